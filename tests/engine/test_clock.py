"""The clock of a step: always in one phase, so that the phases come to the whole."""

import threading
import time

import pytest
import torch
import torch.distributed as dist

from relvlm.engine import clock as clock_module
from relvlm.engine.clock import COLLECTIVES, Clock, collectives_timed
from relvlm.engine.columns import PHASES

CPU = torch.device("cpu")


class Time:
    """Goes on when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def passing(monkeypatch) -> Time:
    made = Time()
    monkeypatch.setattr(time, "perf_counter", made)
    return made


def seconds(clock: Clock) -> list[dict[str, float]]:
    return [{phase: s for phase, s in lap.items() if s} for lap in clock.read()]


def test_each_second_is_in_one_phase_and_a_phase_within_another_stops_it(passing):
    clock = Clock(CPU)
    passing.pass_(1)
    with clock.phase("forward"):
        passing.pass_(2)
        with clock.phase("communication"):
            passing.pass_(4)
        passing.pass_(8)
    with clock.phase("forward"):
        passing.pass_(16)
    passing.pass_(32)
    clock.lap()
    assert seconds(clock) == [{"other": 33, "forward": 26, "communication": 4}]


def test_a_step_ends_where_the_next_begins_also_within_a_phase(passing):
    clock = Clock(CPU)
    with clock.phase("logging"):
        passing.pass_(1)
        clock.lap()
        passing.pass_(2)
    passing.pass_(4)
    clock.lap()
    assert seconds(clock) == [{"logging": 1}, {"logging": 2, "other": 4}] and clock.read() == []


def test_phases_come_to_the_step_whatever_happens(passing):
    clock, began = Clock(CPU), passing.now
    for number, phase in enumerate(PHASES):
        passing.pass_(number)
        with clock.phase(phase):
            passing.pass_(0.5)
    with pytest.raises(KeyError), clock.phase("data"):
        passing.pass_(3)
        raise KeyError
    passing.pass_(5)
    clock.lap()
    (lap,) = clock.read()
    assert sum(lap.values()) == passing.now - began and list(lap) == list(PHASES)
    assert lap["data"] == 3.5 and lap["other"] == 0.5 + sum(range(len(PHASES))) + 5


def test_collectives_are_communication_within_the_phase_that_calls_them(passing, monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda x: passing.pass_(x) or "done")
    before = [getattr(dist, name) for name in COLLECTIVES]
    clock = Clock(CPU)
    with collectives_timed(clock), clock.phase("backward"):
        passing.pass_(1)
        assert dist.all_reduce(2) == "done"
    dist.all_reduce(4)
    clock.lap()
    assert seconds(clock) == [{"backward": 1, "communication": 2, "other": 4}]
    assert [getattr(dist, name) for name in COLLECTIVES] == before


def test_those_of_another_thread_take_none_of_the_steps_time(passing, monkeypatch):
    monkeypatch.setattr(dist, "barrier", lambda: passing.pass_(2))
    clock = Clock(CPU)
    with collectives_timed(clock), clock.phase("backward"):
        saver = threading.Thread(target=dist.barrier)
        saver.start()
        saver.join()
    clock.lap()
    assert seconds(clock) == [{"backward": 2}]


def test_what_deepspeed_has_put_aside_is_timed_too(passing, monkeypatch):
    class Backend:
        all_gather_function = staticmethod(lambda: passing.pass_(3))

    backend = Backend()
    monkeypatch.setattr(clock_module, "collective_backend", lambda: backend)
    clock = Clock(CPU)
    with collectives_timed(clock), clock.phase("optimizer"):
        backend.all_gather_function()
    clock.lap()
    assert seconds(clock) == [{"communication": 3}]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_phase_is_the_time_of_its_work_there():
    device = torch.device("cuda")
    clock = Clock(device)
    with clock.phase("forward"):
        torch.cuda._sleep(200_000_000)
    with clock.phase("backward"):
        torch.cuda._sleep(100_000_000)
    began = time.perf_counter()
    clock.lap()
    queued = time.perf_counter() - began
    (lap,) = clock.read()
    assert queued < lap["backward"] and 1.5 < lap["forward"] / lap["backward"] < 2.5
    assert lap["forward"] + lap["backward"] > 0.9 * sum(lap.values())
