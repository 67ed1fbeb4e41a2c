"""What a rank sees of its loader workers: which one is silent, which one reads for long."""

import os
import signal
import time
from dataclasses import replace

import pytest
from support.scenes import COUNT, loader_of, only

from relvlm.config.schema import KindCounts
from relvlm.data.batches.loader import Loader, dead_workers_named
from relvlm.data.batches.worker_signs import BEATS, PID, STEP, WorkerSigns, WorkerWatch
from relvlm.errors import UserError


@pytest.fixture
def loader(config):
    data = replace(only(config, "captions"), workers=2, batch=KindCounts(captions=COUNT))
    return loader_of(data)


def rows(*states: tuple[int, int, int]) -> WorkerSigns:
    signs = WorkerSigns(len(states))
    for row, state in zip(signs.rows, states, strict=True):
        row[PID], row[BEATS], row[STEP] = state
    return signs


def test_a_worker_whose_beats_stand_still_is_silent():
    signs = rows((7, 1, -1), (8, 1, -1))
    watch = WorkerWatch(signs)
    watch.look(10.0)
    signs.rows[1, BEATS] += 1
    assert watch.look(15.0) == ""
    signs.rows[1, BEATS] += 1
    assert watch.look(15.1) == "loader worker 0 (pid 7) has said nothing for 5 s"


def test_of_workers_that_beat_the_one_that_has_read_longest_is_named():
    signs = rows((7, 1, 4), (8, 1, 5))
    watch = WorkerWatch(signs)
    watch.look(0.0)
    for now in range(1, 31):
        signs.rows[:, BEATS] += 1
        signs.rows[0, STEP] += 1
        seen = watch.look(float(now))
    assert seen == "loader worker 1 (pid 8) has been reading step 6 for 30 s"


def test_a_silent_worker_comes_before_one_that_reads():
    signs = rows((7, 1, 4), (8, 1, -1))
    watch = WorkerWatch(signs)
    for now in range(9):
        signs.rows[0, BEATS] += 1
        seen = watch.look(float(now))
    assert seen == "loader worker 1 (pid 8) has said nothing for 8 s"


def pids_of_both(loader: Loader) -> list[int]:
    """Of two workers: each has given a batch, so that neither is a process yet to come, whose number is 0."""
    for _ in range(2):
        next(loader)
    pids = loader.signs.rows[:, PID].tolist()
    assert len(pids) == 2 and all(pids)
    return pids


def test_workers_beat_and_say_what_they_read(loader):
    pids = pids_of_both(loader)
    assert len(set(pids) - {os.getpid()}) == 2 and (loader.signs.rows[:, BEATS] > 0).all()
    for _ in range(1000):  # until they are as far ahead as they may be
        if (loader.signs.rows[:, STEP] == -1).all():
            return
        time.sleep(0.01)
    pytest.fail("a worker reads on")


def test_a_worker_that_is_killed_is_named(loader):
    pid = pids_of_both(loader)[1]
    os.kill(pid, signal.SIGKILL)
    named = pytest.raises(UserError, match=rf"loader worker \(pid\(?s?\)? {pid}\).*take fewer workers")
    with named, dead_workers_named():
        for _ in range(1000):
            next(loader)
            time.sleep(0.01)


def test_a_connection_that_ends_before_torch_has_its_word_is_that_worker_too(loader):
    pid = pids_of_both(loader)[1]
    named = pytest.raises(UserError, match=rf"loader worker \(pid\(?s?\)? {pid}\)")
    with named, dead_workers_named():
        os.kill(pid, signal.SIGKILL)
        raise ConnectionResetError("by peer")


@pytest.mark.parametrize("error", [RuntimeError("of another kind"), ConnectionResetError("of another kind")])
def test_another_error_of_the_loop_comes_through(error):
    with pytest.raises(type(error), match="of another kind"), dead_workers_named():
        raise error
