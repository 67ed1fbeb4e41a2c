"""Faults of every kind are found, by one process or several, in all of a set or in a part, and summed up by kind."""

import os
import signal
import tarfile

import pytest
from support.pets import build, photo, run, sample
from support.shards import shard_set, toy_photo, toy_sample, write_toys

from relvlm.data.shards.shard_file import encode_sample
from relvlm.data.shards.store import write_shards
from relvlm.data.tools import lint as linting
from relvlm.data.tools.lint import SHOWN, Fault, lint, summary
from relvlm.errors import UserError


def test_a_sound_set_passes_lint(tmp_path, capsys):
    assert run("lint", build(tmp_path / "set")) == 0
    assert "set: sound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("k9", photo(9, (10, 20)), sample(9)), "k9: image is 10x20, its JSON says 20x10"),
        (("k9", photo(9)[:45], sample(9)), "k9: corrupt image"),
        (("k9", photo(9), sample(1)), "k9: same image_id as 000000.tar: k1"),
        (("k9", photo(1), sample(9)), "k9: same image bytes as 000000.tar: k1"),
        (("k9", photo(9), sample(9, captions=(" ",))), "k9: captions: empty text"),
    ],
)
def test_lint_finds(tmp_path, capsys, second, message):
    assert run("lint", "--list", build(tmp_path / "set", [("k1", photo(1), sample(1)), second])) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_lint_finds_a_key_used_in_two_shards(tmp_path, capsys):
    keys = ("k0", "k1", "k2", "k0")
    build(tmp_path / "set", [(key, photo(n), sample(n)) for n, key in enumerate(keys)])
    assert run("lint", "--list", tmp_path / "set") == 1
    assert capsys.readouterr().out == "000001.tar: k0: same key as 000000.tar: k0\n"


def test_lint_finds_a_field_that_stands_twice(tmp_path, capsys):
    annotation = encode_sample(toy_sample(0)).replace(b'"width":8', b'"width":9,"width":8')
    shards = shard_set(tmp_path / "set", [("k.png", toy_photo(0)), ("k.json", annotation)], 1)
    assert shards.read(0).sample == toy_sample(0)
    assert run("lint", "--list", tmp_path / "set") == 1
    assert capsys.readouterr().out == "0.tar: k: invalid JSON: width: stands twice in one object\n"


def test_lint_finds_a_flipped_byte(tmp_path, capsys):
    shard = build(tmp_path / "set") / "000000.tar"
    with tarfile.open(shard) as tar:
        place = tar.getmember("k1.json").offset_data
    with shard.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"?")
    assert run("lint", "--list", tmp_path / "set") == 1
    out = capsys.readouterr().out
    assert "SHA-256 differs" in out and "000000.tar: k1: invalid JSON" in out


def test_lint_lists_every_torn_shard(tmp_path, capsys):
    folder = build(tmp_path / "set")
    (folder / "000000.tar").unlink()
    os.truncate(folder / "000001.tar", 10)
    assert run("lint", "--list", folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "000000.tar: missing" in lines[0] and "000001.tar: 10 bytes" in lines[1]


def test_lint_without_a_shard_set_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no manifest.json"):
        run("lint", "--list", tmp_path)


def faults_of(folder, **options):
    return list(lint(folder, **options))


def spoilt(folder, numbers):
    """`write_toys` with the photos of some keys damaged."""
    for tar in sorted(folder.glob("*.tar")):
        data = tar.read_bytes()
        for n in numbers:
            data = data.replace(toy_photo(n), toy_photo(n)[:40] + bytes([200 + n]) * (len(toy_photo(n)) - 40))
        tar.write_bytes(data)


def test_two_processes_find_what_one_finds_in_the_same_order(tmp_path, monkeypatch):
    monkeypatch.setattr(linting, "SPAN", 2)
    folder = write_toys(tmp_path / "set", 9)
    spoilt(folder, (1, 4, 8))
    found = faults_of(folder)
    unreadable = "not a readable image: neither JPEG nor PNG, or cut short"
    assert [f.kind for f in found] == ["checksum or count"] * 3 + [unreadable] * 3
    assert [f.line.split(": ")[1] for f in found[3:]] == ["k1", "k4", "k8"]
    assert faults_of(folder, processes=2) == found


def test_a_process_that_is_killed_is_one_error(tmp_path, monkeypatch):
    folder = write_toys(tmp_path / "set", 3)
    monkeypatch.setattr(linting, "inspect_record", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match=r"set: a process ended by itself \(out of memory\? fewer --processes\)"):
        faults_of(folder, processes=2)


def test_a_sample_is_a_part_the_same_each_time_and_has_no_checksums(tmp_path):
    folder = write_toys(tmp_path / "set", 12)
    spoilt(folder, range(12))
    found = faults_of(folder, sample=5)
    assert len(found) == 5 and found == faults_of(folder, sample=5)
    assert not any(f.kind.startswith("checksum") for f in found)
    assert len(faults_of(folder, sample=12)) == 12


def test_a_record_in_two_places_is_found_across_spans(tmp_path, monkeypatch):
    monkeypatch.setattr(linting, "SPAN", 1)
    toys = [(f"k{n}", toy_photo(n % 2), toy_sample(n)) for n in range(3)]
    write_shards(tmp_path / "set", toys, source="toy", builder_args={}, shard_size=2)
    assert faults_of(tmp_path / "set", processes=2) == [
        Fault("same image bytes", "000001.tar: k2: same image bytes as 000000.tar: k0")
    ]


@pytest.mark.parametrize("count", [SHOWN, SHOWN + 1])
def test_the_summary_has_a_line_a_kind_and_the_first_of_each(count):
    faults = [Fault("rare", "r"), *(Fault("often", f"line {n}") for n in range(count))]
    total, lines = summary(faults)
    more = ["          ... and 1 more"] if count > SHOWN else []
    often = [f"{count:>8}  often", *(f"          line {n}" for n in range(SHOWN)), *more]
    assert total == count + 1 and lines == [*often, "       1  rare", "          r"]


def test_the_command_sums_up(tmp_path, capsys):
    folder = write_toys(tmp_path / "set", 12)
    spoilt(folder, range(8))
    assert run("lint", folder, "--sample", 12, "--processes", 2) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "       8  not a readable image: neither JPEG nor PNG, or cut short"
    assert len(out.splitlines()) == 1 + SHOWN + 1 and "8 faults in 12 records at most (no checksums)" in err
