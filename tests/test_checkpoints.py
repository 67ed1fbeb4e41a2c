"""Folders of checkpoints: found by looking, and known by their manifests to be whole."""

from pathlib import Path

import pytest

from relvlm import checkpoints
from relvlm.errors import UserError

FILES = {"state_00000.safetensors": b"\x00\x01" * 40, "config.json": b'{"step": 3}'}


def made(folder: Path, step: int) -> Path:
    checkpoint = folder / checkpoints.name_of(step)
    checkpoint.mkdir(parents=True)
    for name, content in FILES.items():
        (checkpoint / name).write_bytes(content)
    checkpoints.write_manifest(checkpoint, {name: checkpoints.file_record(checkpoint / name) for name in FILES})
    return checkpoint


def test_checkpoints_are_found_in_their_order_and_nothing_else(tmp_path):
    for name in ("step_0000010", "step_0000009", ".step_0000011.tmp", "step_5", "step_000001x", "latest"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_0000012").write_text("no folder")
    found = checkpoints.saved(tmp_path)
    assert [path.name for path in found] == ["step_0000009", "step_0000010"]
    assert [checkpoints.step_of(path) for path in found] == [9, 10]
    assert checkpoints.saved(tmp_path / "none") == []


def test_a_whole_checkpoint_has_no_fault(tmp_path):
    assert checkpoints.fault_of(made(tmp_path, 3)) is None


@pytest.mark.parametrize("name", [*FILES, checkpoints.MANIFEST])
def test_every_byte_that_is_another_every_cut_and_every_missing_file_is_noticed(tmp_path, name):
    checkpoint = made(tmp_path, 3)
    path = checkpoint / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert checkpoints.fault_of(checkpoint), place
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert str(checkpoints.fault_of(checkpoint)).startswith(f"{path}: ")
    path.unlink()
    assert "not readable" in str(checkpoints.fault_of(checkpoint))


@pytest.mark.parametrize(
    "manifest",
    ["{}", "[]", '{"files": []}', '{"files": {"config.json": {}}}', '{"files": {"config.json": 3}}', "\x00"],
)
def test_a_manifest_that_says_nothing_is_a_fault(tmp_path, manifest):
    checkpoint = made(tmp_path, 3)
    (checkpoint / checkpoints.MANIFEST).write_text(manifest)
    assert str(checkpoints.fault_of(checkpoint)).startswith(f"{checkpoint / checkpoints.MANIFEST}: not readable")


def test_the_newest_whole_one_is_taken_and_the_damaged_ones_are_named(tmp_path):
    assert checkpoints.newest_whole(tmp_path) == (None, {})
    older, newer = made(tmp_path, 3), made(tmp_path, 7)
    assert checkpoints.newest_whole(tmp_path) == (newer, {})
    (newer / "config.json").write_bytes(b'{"step": 4}')
    found, faults = checkpoints.newest_whole(tmp_path)
    assert found == older and list(faults) == [newer] and faults[newer].startswith(f"{newer / 'config.json'}: damaged")


def test_a_damaged_one_that_is_put_aside_is_none_any_more(tmp_path):
    for _ in range(2):  # the same step may be damaged again
        aside = checkpoints.set_aside(made(tmp_path, 7))
        assert aside == tmp_path / "damaged_step_0000007" and {path.name for path in aside.iterdir()} > FILES.keys()
        assert checkpoints.saved(tmp_path) == [] and len(list(tmp_path.iterdir())) == 1


def test_a_run_never_begins_anew_over_damaged_checkpoints(tmp_path):
    for step in (3, 7):
        (made(tmp_path, step) / checkpoints.MANIFEST).unlink()
    with pytest.raises(UserError, match="no checkpoint is whole") as caught:
        checkpoints.newest_whole(tmp_path)
    assert all(f"step_000000{step}" in str(caught.value) for step in (3, 7))
