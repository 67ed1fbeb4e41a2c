"""Saves: whole or not there, beside the training, tried again, pruned from the old end."""

import errno
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import programs
from support.saved_runs import Engine, made_config, save, steps

import relvlm
from relvlm import checkpoints, pretrained, storage
from relvlm.config.schema import CheckpointConfig, Config
from relvlm.engine import judging, run_state, saver
from relvlm.engine.run_state import Progress
from relvlm.engine.saver import Saver
from relvlm.errors import UserError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "PAUSES_S", (0.0, 0.0))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return made_config(tmp_path)


@pytest.fixture
def folder(config: Config) -> Path:
    return Path(config.out) / "checkpoints"


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


PLACES = [(Path, "rename"), (run_state, "write_model"), (storage, "sync_one"), (checkpoints, "write_manifest")]


@pytest.mark.parametrize(("where", "place"), PLACES, ids=[place for _, place in PLACES])
def test_a_save_that_fails_leaves_the_older_checkpoint_and_nothing_else(config, folder, monkeypatch, where, place):
    engine = Engine(config)
    older = save(engine, folder, 5, config)
    with monkeypatch.context() as broken:
        broken.setattr(where, place, full)
        with pytest.raises(UserError, match="No space left"):
            save(engine, folder, 10, config)
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_0000005"]
    assert pretrained.latest(folder) == older and checkpoints.fault_of(older) is None
    save(engine, folder, 10, config)
    assert relvlm.load(config.out).step == 10


def test_a_failure_is_one_line_with_room_and_place(config, folder, monkeypatch):
    monkeypatch.setattr(run_state, "write_model", full)
    with pytest.raises(UserError) as caught:
        save(Engine(config), folder, 7, config)
    said = str(caught.value)
    assert said.startswith(f"{folder / 'step_0000007'}: cannot be written: [Errno 28] No space left on device")
    assert "needs about " in said and " free there" in said and "\n" not in said


def test_a_save_is_tried_again(config, folder, monkeypatch, caplog):
    failures, write = [full, full], run_state.write_model
    monkeypatch.setattr(run_state, "write_model", lambda *of: (failures.pop() if failures else write)(*of))
    assert save(Engine(config), folder, 7, config) == folder / "step_0000007" and not failures
    assert [line.split(" (")[-1] for line in caplog.messages if "tried" in line] == 2 * ["tried again in 0 s)"]


def test_a_run_ends_after_so_many_failed_saves_in_a_row(config, folder, monkeypatch, caplog):
    engine = Engine(config)
    config = replace(config, checkpoint=CheckpointConfig(max_failed=2))
    made = Saver(folder, config, folder)
    failing = [True, True, False, True, True, True, True]
    write = run_state.write_model
    monkeypatch.setattr(run_state, "write_model", lambda *of: full() if failing[0] else write(*of))
    for step in range(1, 7):
        made.save(engine, Progress(step))
        made._thread.join()
        failing.pop(0)
    with pytest.raises(UserError, match="step_0000006: cannot be written"):
        made.save(engine, Progress(7))
    assert made.last == folder / "step_0000003"
    counts = [line.split(" (")[-1].split(" ")[0] for line in caplog.messages if "in a row" in line]
    assert counts == ["1", "2", "1", "2", "3"]


def test_training_goes_on_while_a_save_is_written(config, folder, monkeypatch):
    engine, go, write = Engine(config), threading.Event(), run_state.write_model
    monkeypatch.setattr(run_state, "write_model", lambda *of: go.wait(60) and write(*of))
    before = {name: x.clone() for name, x in engine.module.model.state_dict().items()}
    made = Saver(folder, config, folder)
    made.save(engine, Progress(1))
    engine.step()
    assert not folder.exists() or steps(folder) == []
    go.set()
    for name, tensor in relvlm.load(made.wait()).state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_fault_that_is_none_of_the_disks_ends_the_run_too(config, folder, monkeypatch):
    monkeypatch.setattr(run_state, "write", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        save(Engine(config), folder, 7, config)


def test_an_orphan_of_a_later_step_is_replaced_and_does_not_count_as_newest(config, folder):
    engine, keeps_one = Engine(config), replace(config, checkpoint=CheckpointConfig(keep=1))
    for step in (5, 10):
        save(engine, folder, step, config)
    save(engine, folder, 7, keeps_one)  # a run that went back, with a new interval
    assert steps(folder) == ["step_0000007", "step_0000010"]
    engine.step()
    save(engine, folder, 10, keeps_one)
    assert steps(folder) == ["step_0000010"] and run_state.read_progress(folder / "step_0000010").updates == 1


KEPT = [
    (0, 0, [1, 2, 3, 4]),
    (1, 0, [4]),
    (3, 0, [2, 3, 4]),
    (9, 0, [1, 2, 3, 4]),
    (1, 2, [2, 4]),
    (0, 2, [1, 2, 3, 4]),
]


@pytest.mark.parametrize(("keep", "keep_every", "left"), KEPT)
def test_pruning_keeps_the_newest_and_those_that_stay_for_ever(config, folder, keep, keep_every, left):
    engine = Engine(config)
    config = replace(config, checkpoint=CheckpointConfig(keep=keep, keep_every=keep_every))
    for step in range(1, 5):
        save(engine, folder, step, config)
    assert steps(folder) == [f"step_{step:07d}" for step in left]
    assert relvlm.load(config.out).step == 4


def test_the_best_checkpoint_is_never_pruned(config, folder):
    engine, config = Engine(config), replace(config, checkpoint=CheckpointConfig(keep=1))
    for step, value in ((1, 50.0), (2, 70.0), (3, 60.0), (4, 70.0), (5, 80.0)):
        judging.note(folder.parent, save(engine, folder, step, config), {"VSR": value}, "VSR")
        assert step < 3 or steps(folder)[0] == "step_0000002"
    save(engine, folder, 6, config)
    assert steps(folder) == ["step_0000005", "step_0000006"]


def test_the_last_good_checkpoint_is_never_pruned(config, folder):
    engine, config = Engine(config), replace(config, checkpoint=CheckpointConfig(keep=1))
    for step, skipped in ((1, 0), (2, 0), (3, 1), (4, 2)):
        save(engine, folder, step, config, skipped)
    assert steps(folder) == ["step_0000002", "step_0000004"]
    save(engine, folder, 5, config)
    assert steps(folder) == ["step_0000005"]


@pytest.mark.parametrize("limit", [2000, 20_000])
def test_a_file_that_cannot_grow_is_one_line_too(config, folder, limit):
    """The real thing: torch and safetensors write what the system then refuses."""
    script = f"""
import resource, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from support.saved_runs import Engine, made_config, save
from relvlm.engine import saver
from relvlm.errors import UserError
saver.PAUSES_S = ()
config = made_config(Path({str(folder.parents[1])!r}))
engine = Engine(config)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try: save(engine, Path({str(folder)!r}), 1, config)
except UserError as error: print(error)
"""
    done = programs.run("-c", script)
    assert done.stdout.startswith(f"{folder / 'step_0000001'}: cannot be written: ") and "needs about" in done.stdout
    assert done.stdout.count("\n") == 1 and list(folder.iterdir()) == []


def test_a_checkpoint_that_somebody_reads_ends_no_run_when_it_is_pruned(config, folder, monkeypatch):
    engine, keeps_one = Engine(config), replace(config, checkpoint=CheckpointConfig(keep=1))
    save(engine, folder, 1, keeps_one)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, ignore_errors=False: ignore_errors or 1 / 0)  # NFS: .nfs000 stays
    save(engine, folder, 2, keeps_one)
    assert steps(folder) == ["step_0000002"] and (folder / ".step_0000001.tmp").is_dir()


def test_what_a_killed_save_left_is_cleared(folder):
    for name in (".step_0000005.tmp/state", "step_0000004", "mine"):
        (folder / name).mkdir(parents=True)
    (folder / ".latest.tmp").write_text("step")
    saver.clear(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "step_0000004"]
