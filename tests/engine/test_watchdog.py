"""A thread that ends a run which gets no further: when, with what words, with which status."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
from support import programs

from relvlm.config.trouble import DeadlinesConfig
from relvlm.engine import heartbeat, process, watchdog
from relvlm.engine.heartbeat import Heartbeats, Sign
from relvlm.engine.watchdog import Watchdog, is_lost_connection, may_requeue
from relvlm.errors import UserError
from relvlm.stopping import REQUEUE, TROUBLE

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
LONG, SHORT = 1000.0, 0.1
GONE = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"


class Exits:
    """Stands for os._exit, which ends the thread alone here."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.happened = threading.Event()

    def __call__(self, status: int) -> None:
        self.status = status
        self.happened.set()
        raise SystemExit


@pytest.fixture
def exits(monkeypatch) -> Exits:
    found = Exits()
    monkeypatch.setattr(watchdog.os, "_exit", found)
    monkeypatch.setattr(watchdog.multiprocessing, "active_children", list)  # other tests' loaders
    monkeypatch.setattr(watchdog, "end_undisturbed", lambda: None)  # which pytest would outlive deaf
    monkeypatch.setattr(watchdog, "BEAT_S", 0.02)
    monkeypatch.setattr(watchdog, "LOOK_S", 0.1)
    return found


def made(out: Path, **deadlines: float) -> Watchdog:
    every = {"start": LONG, "first_step": LONG, "step": LONG, "save": LONG} | deadlines
    return Watchdog(out, heartbeat.begin(out, "000001"), DeadlinesConfig(**every))


def cause(out: Path) -> str:
    return (out / "trouble/000001/cause.txt").read_text()


def test_a_missed_deadline_ends_the_run_with_its_cause_and_stacks(exits, tmp_path, capfd):
    with made(tmp_path) as watch:
        watch.begin(SHORT, 12)
        watch.at("forward")
        assert exits.happened.wait(30)
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("error: rank 0 on ") and line.endswith(f"; stacks in {tmp_path / 'trouble/000001'}")
    assert "is in step 12 (forward) for 0 s" in line and line in cause(tmp_path)
    stacks = (tmp_path / "trouble/000001/rank_00000.txt").read_text()
    assert "step 12 (forward)" in stacks and "test_a_missed_deadline" in stacks and exits.status == REQUEUE


def test_what_goes_on_is_left_alone_however_long_it_takes_in_all(exits, tmp_path):
    with made(tmp_path) as watch:
        for step in range(10):
            watch.begin(0.5, step)
            time.sleep(0.1)
    assert exits.status is None
    assert Heartbeats(tmp_path, "000001").read(0).phase == "ended"


@pytest.mark.parametrize(("step", "limit"), [(1, 7.0), (2, 3.0), (3, 3.0), (4, 50.0)])
def test_the_first_step_has_time_and_later_ones_five_times_the_longest(step, limit, tmp_path, monkeypatch):
    watch = made(tmp_path, first_step=7.0, step=3.0)
    for each, began in zip(range(1, step + 1), (0.0, 100.0, 100.5, 110.5), strict=False):
        monkeypatch.setattr(watchdog.time, "monotonic", lambda now=began: now)
        watch.begin_step(each, 1)
    assert watch._limit == limit


def test_a_process_that_stood_still_is_not_late(exits, tmp_path, monkeypatch):
    with made(tmp_path) as watch:
        watch.begin(5.0, 1)
        time.sleep(0.2)  # the thread has begun to count
        clock = time.monotonic
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock() + 1000)  # as after SIGSTOP and SIGCONT
        time.sleep(0.3)
    assert exits.status is None


def test_a_lost_connection_becomes_the_rank_that_died(exits, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(watchdog, "world_size", lambda: 2)
    dead = Sign(1, replace(process.own(), pid=2**30), 5, 7, "backward")
    with pytest.raises(RuntimeError, match="closed by peer"), made(tmp_path) as watch:
        watch.heartbeats.first(dead)
        raise RuntimeError(GONE)
    assert exits.status == REQUEUE
    assert (
        "(pid 1073741824) died, last seen in step 7 (backward); rank 0 is in the start; stacks in"
        in capfd.readouterr().err
    )


def test_an_error_of_its_own_is_told_to_the_others_and_comes_through(exits, tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "world_size", lambda: 2)
    with pytest.raises(UserError, match="torn"), made(tmp_path) as watch:
        watch.begin(LONG, 3)
        watch.at("data")
        raise UserError("shard 3: torn\nand more")
    said = watch.heartbeats.read(0)
    assert (said.step, said.phase, said.failure) == (3, "data", "UserError: shard 3: torn") and exits.status is None


def test_another_ranks_failure_ends_this_one_without_a_requeue(exits, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(watchdog, "world_size", lambda: 2)
    with made(tmp_path) as watch:
        watch.heartbeats.first(Sign(1, process.own(), 5, 7, "data", failure="UserError: torn"))
        watch.begin(SHORT, 7)
        assert exits.happened.wait(30)
    assert exits.status == TROUBLE and "failed in step 7 (data): UserError: torn" in capfd.readouterr().err


def test_where_another_rank_looks_for_the_cause_this_one_leaves_stacks_and_says_nothing(exits, tmp_path, capfd):
    with made(tmp_path) as watch:
        assert watch.heartbeats.claim(1)
        time.sleep(0.2)
        beats = watch.heartbeats.read(0).beat
        time.sleep(0.2)
        assert watch.heartbeats.read(0).beat > beats and not exits.happened.is_set()  # seen to live
        (tmp_path / "trouble/000001/cause.txt").write_text("error: ...")
        assert exits.happened.wait(30)
    assert exits.status == TROUBLE and "error" not in capfd.readouterr().err
    assert (tmp_path / "trouble/000001/rank_00000.txt").exists()


def test_a_process_of_an_earlier_start_ends(exits, tmp_path):
    with made(tmp_path):
        heartbeat.begin(tmp_path, "000002")
        assert exits.happened.wait(30)
    assert exits.status == TROUBLE


def test_trouble_is_requeued_where_something_was_saved_since_the_last(tmp_path):
    assert may_requeue(tmp_path) and not may_requeue(tmp_path)
    (tmp_path / "checkpoints/step_0000005").mkdir(parents=True)
    assert may_requeue(tmp_path) and not may_requeue(tmp_path)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError(GONE), True),
        (dist.DistBackendError("NCCL error"), True),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (UserError("data.workers: Connection"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_lost_connection_is_told_from_other_errors(error, lost):
    assert is_lost_connection(error) == lost


def test_ranks_that_do_not_meet_end_and_say_so():
    script = "import time; from relvlm.engine.watchdog import meeting\nwith meeting({}): time.sleep({})\nprint('met')"
    done = programs.run("-c", script.format(0.1, 60), RANK="1", WORLD_SIZE="2")
    assert done.returncode == TROUBLE and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(
        "error: rank 1 of 2 has not met the others for 0 s (deadlines.start)"
    )
    assert programs.run("-c", script.format(1, 0) + "; time.sleep(1.5); print('on')").stdout == "met\non\n"
