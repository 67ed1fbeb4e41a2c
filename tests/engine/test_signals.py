"""What a rank is told while it trains, and what all of them make of it."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from relvlm.engine.signals import MARGIN_S, Told
from relvlm.stopping import SIGNALS


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_a_signal_is_answered_after_the_step_that_follows_it(number):
    before = signal.getsignal(number)
    with Told({}) as told:
        asked = told.ask()
        os.kill(os.getpid(), number)
        assert not told.agreed(asked)  # this step was asked for before
        assert told.agreed(told.ask())
        assert told.reason == f"told to end by {number.name}"
    assert signal.getsignal(number) is before


def test_nobody_told_is_nothing_to_answer():
    with Told({}) as told:
        assert not told.agreed(told.ask()) and told.reason == ""


@pytest.mark.parametrize(("left_s", "ends"), [(MARGIN_S - 1, True), (MARGIN_S + 60, False)])
def test_the_end_of_the_jobs_time_is_seen_ahead(left_s, ends):
    with Told({"SLURM_JOB_END_TIME": str(int(time.time() + left_s))}) as told:
        assert told.agreed(told.ask()) is ends
        assert told.reason == ("the job's time is nearly over" if ends else "")


def test_a_time_that_is_none_is_no_end():
    told = Told({"SLURM_JOB_END_TIME": "Unknown"})
    assert not told.agreed(told.ask())


def test_what_one_rank_is_told_ends_all_of_them(monkeypatch):
    """The collective is replaced by one in which another rank has been told."""

    class Work:
        def __init__(self, flag: Tensor) -> None:
            self.flag = flag

        def wait(self) -> None:
            self.flag.fill_(1)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "new_group", lambda backend: backend)
    monkeypatch.setattr(dist, "all_reduce", lambda flag, op, group, async_op: Work(flag))
    with Told({}) as told:
        asked = told.ask()
        assert torch.equal(asked.flag, torch.tensor(0, dtype=torch.uint8))
        assert told.agreed(asked) and told.reason == "another rank was told to end"


def test_the_first_word_is_kept():
    with Told({}) as told:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert threading.current_thread() is threading.main_thread()
        assert told.agreed(told.ask()) and told.agreed(told.ask())
        assert told.reason == "told to end by SIGUSR1"


def test_the_margin_is_that_of_the_job_scripts():
    scripts = [path.read_text() for path in (Path(__file__).parents[2] / "slurm").glob("*.sh")]
    asked = [int(found) for text in scripts for found in re.findall(r"--signal=(?:B:)?USR1@(\d+)", text)]
    assert asked and set(asked) == {MARGIN_S}


def test_one_rank_alone_asks_nobody(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "new_group", lambda backend: pytest.fail("a collective"))
    assert Told({}).ask().work is None
