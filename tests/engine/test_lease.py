"""A folder has one run: who is refused, who follows whom, and who must end. Holders are processes of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from relvlm.engine import lease, process
from relvlm.engine.lease import Holder, Lease, newest, read_holder, refuse_if_held
from relvlm.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from relvlm.engine import lease
lease.BEAT_S = 0.05
held = lease.Lease(Path(sys.argv[1]))
held.take()
print("taken", flush=True)
sys.stdin.readline()
held.release()
"""


TIMES = lease.BEAT_S, lease.LOOK_S, lease.STALE_S


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    for name, value in {"BEAT_S": 0.05, "LOOK_S": 0.4, "STALE_S": 0.8}.items():
        monkeypatch.setattr(lease, name, value)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    started: list[subprocess.Popen] = []

    def begin(**environment: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        run = subprocess.Popen(command, env=os.environ | paths | environment, **pipes)
        started.append(run)
        assert run.stdout and run.stdout.readline() == "taken\n", run.stderr and run.stderr.read()
        return run

    yield begin
    for run in started:
        run.kill()
        run.communicate()


def elsewhere(out: Path, **changes: object) -> Path:
    """Puts the holder's file to another host, of whose processes nothing is known here."""
    entry = newest(out / "lease")
    assert entry
    holder = read_holder(entry.path)
    assert holder
    there = replace(holder, process=replace(holder.process, host="gpu7", where="another"), **changes)
    entry.path.write_text(json.dumps(asdict(there)))
    return entry.path


def dead(out: Path) -> Path:
    """The file of a run on another host that gives no sign any more."""
    held = Lease(out)
    held.path = held._create(1)
    return elsewhere(out)


def take(out: Path) -> Lease:
    held = Lease(out)
    held.take()
    return held


def refusal(out: Path) -> str:
    with pytest.raises(UserError) as caught:
        take(out)
    return str(caught.value)


def test_a_second_run_is_told_who_trains_there(start, tmp_path):
    run = start(SLURM_JOB_ID="4711")
    with pytest.raises(UserError) as before_torch:
        refuse_if_held(tmp_path)
    for message in (refusal(tmp_path), str(before_torch.value)):
        for part in (f"out: {tmp_path} is in use by", f"on {process.own().host}:", "Slurm job 4711", f"pid {run.pid}"):
            assert part in message
        assert f"since {time.strftime('%Y')}-" in message


def test_a_run_on_another_host_is_known_by_its_beat(start, tmp_path):
    start()
    elsewhere(tmp_path)
    assert "a run on gpu7" in refusal(tmp_path)
    with pytest.raises(UserError, match="gpu7"):
        refuse_if_held(tmp_path)


def test_a_run_that_was_killed_is_followed_at_once(start, tmp_path, monkeypatch):
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("it waited"))
    run = start()
    run.kill()
    run.wait()
    refuse_if_held(tmp_path)
    take(tmp_path).release()


def test_a_run_that_ended_is_followed_at_once(start, tmp_path, monkeypatch):
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("it waited"))
    start().communicate("end\n")
    elsewhere(tmp_path)
    take(tmp_path).release()


def test_one_that_gives_no_sign_from_afar_is_followed_after_a_while(tmp_path, caplog):
    caplog.set_level("INFO")
    dead(tmp_path)
    refuse_if_held(tmp_path)  # which does not wait for so long
    assert not caplog.text
    took = take(tmp_path)
    assert caplog.text.count("no sign of a run on gpu7") == 1
    assert took.path and took.path.name == "000002.json" and "taken over from a run on gpu7" in caplog.text
    assert [path.name for path in (tmp_path / "lease").iterdir()] == ["000002.json"]
    took.release()


def test_a_clock_that_is_wrong_makes_nobody_stale(start, tmp_path):
    start()
    path = elsewhere(tmp_path)
    os.utime(path, (1, 1))
    assert "gpu7" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("job", "restarts", "waits"), [("4711", "1", False), ("4711", "0", True), ("4712", "1", True), (None, "1", True)]
)
def test_a_job_that_is_requeued_follows_itself_at_once(tmp_path, monkeypatch, job, restarts, waits):
    dead(tmp_path)
    elsewhere(tmp_path, job=job, restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    slept: list[float] = []
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    take(tmp_path).release()
    assert bool(slept) == waits


def test_of_two_that_follow_a_dead_run_one_gets_it(tmp_path):
    dead(tmp_path)
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert first._create(2) and second._create(2) is None


def test_one_that_looked_before_others_came_and_went_gives_way(tmp_path):
    dead(tmp_path)
    third = Lease(tmp_path)
    third.path = third._create(3)
    assert Lease(tmp_path)._create(2) is None and newest(tmp_path / "lease").path == third.path


def test_a_run_that_stood_still_ends_when_it_has_been_followed(start, tmp_path):
    run = start()
    later = Lease(tmp_path)
    later.path = later._create(2)
    assert run.wait(timeout=20) == 3
    assert "was taken over by a run on" in run.stderr.read()


def test_a_run_whose_folder_is_removed_ends(start, tmp_path):
    run = start()
    newest(tmp_path / "lease").path.unlink()
    assert run.wait(timeout=20) == 3


def test_a_torn_file_is_somebody_who_may_beat(tmp_path):
    dead(tmp_path).write_text("{")
    took = take(tmp_path)
    assert took.path and took.path.name == "000002.json"
    took.release()


@pytest.mark.parametrize("place", [".", "lease"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, place):
    out = tmp_path / "run"
    (out / place).parent.mkdir(exist_ok=True)
    (out / place).write_text("") if place != "." else out.write_text("")
    assert refusal(out).startswith(f"out: {out}: cannot be written: ")


def test_a_disk_without_room_leaves_no_file(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease.os, "fsync", full)
    assert "cannot be written: [Errno 28] No space left on device (" in refusal(tmp_path)
    assert list((tmp_path / "lease").iterdir()) == []


def test_own_details_are_this_process():
    holder = Holder.own({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"})
    assert (holder.process.pid, holder.job, holder.restarts) == (os.getpid(), "7", 2)
    assert [Holder.own(e).restarts for e in ({}, {"SLURM_RESTART_COUNT": ""})] == [0, 0]
    assert process.is_alive(holder.process) and process.is_alive(replace(holder.process, started="1")) is False
    assert process.is_alive(replace(holder.process, host="gpu7")) is None


def test_runs_of_all_versions_beat_and_wait_alike():
    """Who waits for less than others' beats takes a folder from a run that lives."""
    assert TIMES == (1.0, 3.0, 30.0)
