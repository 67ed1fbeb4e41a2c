"""What ranks tell each other, between threads; between processes: test_processes.py."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
from support.recorded_slurm import BATCH, PAIR, STEP
from support.threads import Threads
from torch import Tensor

from relvlm import ranks
from relvlm.errors import UserError


@pytest.mark.parametrize(
    ("variables", "met"),
    [
        ({}, False),
        (BATCH, False),
        (PAIR, True),
        (PAIR | {"RANK": "0", "WORLD_SIZE": "1"}, False),
        (STEP, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),  # whose other variables are not looked at
    ],
    ids=["by hand", "batch script", "launcher", "launcher of one", "srun of two", "srun of one"],
)
def test_only_a_process_that_has_others_joins_a_group(variables, met, scontrol, environment, monkeypatch):
    environment(variables)
    groups = []
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda backend, timeout: groups.append((backend, timeout)))
    ranks.join("gloo")
    assert groups == ([("gloo", timedelta(minutes=10))] if met else [])
    assert ("LOCAL_RANK" in os.environ) == (met or "RANK" in variables)  # met or not, a launcher's are completed


def test_a_group_is_joined_once(environment, monkeypatch):
    environment(PAIR)
    monkeypatch.setattr(ranks, "dist", Threads(2))  # which has no init_process_group
    ranks.join("gloo")


@pytest.fixture
def threads(monkeypatch) -> Callable[..., list[Any]]:
    def run(size: int, work: Callable[[int], Any], backend: str = "gloo") -> list[Any]:
        monkeypatch.setattr(ranks, "dist", Threads(size, backend))
        return ranks.dist.run(work)

    return run


SIZES = [2, 0, 3]


def rows_of(rank: int) -> Tensor:
    return torch.arange(SIZES[rank] * 2.0).view(-1, 2) + 10 * rank


def test_rows_of_unequal_counts_are_gathered_in_order(threads):
    def work(rank: int) -> tuple[Tensor, Tensor, int]:
        return ranks.gather_rows(rows_of(rank), torch.full((SIZES[rank],), rank))

    for rank, (rows, owners, first) in enumerate(threads(3, work)):
        assert torch.equal(rows, torch.cat([rows_of(r) for r in range(3)]))
        assert owners.tolist() == [0, 0, 2, 2, 2] and first == [0, 2, 2][rank]


def test_several_tensors_travel_together_and_so_do_their_gradients(threads):
    def work(rank: int) -> tuple[Tensor, ...]:
        own = [rows_of(rank).requires_grad_(), (1 + rows_of(rank)[:, 0]).requires_grad_()]
        keys = torch.stack([torch.arange(SIZES[rank]), torch.full((SIZES[rank],), 2**40 + rank)], 1)
        first, second, gathered, _ = ranks.gather_rows(own[0], own[1], keys)
        (first.sum(1) * second * (1 + rank)).sum().backward()
        return gathered, own[0].grad, own[1].grad

    for rank, (keys, first, second) in enumerate(threads(3, work)):
        assert (keys[:, 1] - 2**40).tolist() == [0, 0, 2, 2, 2] and keys.dtype == torch.int64
        torch.testing.assert_close(first, 6 * (1 + rows_of(rank)[:, :1]).expand(-1, 2))
        torch.testing.assert_close(second, 6 * rows_of(rank).sum(1))
    assert ranks.dist.calls == 3 * 3  # of each rank: counts, rows, gradients


@pytest.mark.parametrize(("backend", "reduced"), [("gloo", ["all_reduce"]), ("nccl", ["reduce_scatter_tensor"])])
def test_a_rows_gradient_is_the_sum_of_what_every_rank_says_of_it(threads, monkeypatch, backend, reduced):
    called: set[str] = set()

    def noting(name: str) -> Callable[..., None]:
        real = getattr(Threads, name)
        return lambda self, *tensors: (tensors[-1].is_floating_point() and called.add(name), real(self, *tensors))[1]

    for name in ("all_reduce", "reduce_scatter_tensor"):
        monkeypatch.setattr(Threads, name, noting(name))

    def work(rank: int) -> Tensor:
        own = rows_of(rank).requires_grad_()
        rows, _ = ranks.gather_rows(own)
        ((rank + 1) * rows.square().sum()).backward()
        return own.grad

    for rank, gradient in enumerate(threads(3, work, backend)):
        torch.testing.assert_close(gradient, (1 + 2 + 3) * 2 * rows_of(rank))
    assert list(called) == reduced


@pytest.mark.parametrize("size", [2, 3])
def test_numbers_are_summed_and_objects_listed(size, threads):
    def work(rank: int) -> tuple[list[float], list[str], tuple[int, int]]:
        ranks.barrier()
        total = ranks.sum_over_ranks(torch.tensor([1.0, 3.0 * rank])).tolist()
        return total, ranks.gather_objects("abc"[rank]), (ranks.rank(), ranks.world_size())

    total, listed = [size, 1.5 * size * (size - 1)], list("abc"[:size])
    assert threads(size, work) == [(total, listed, (rank, size)) for rank in range(size)]
    assert ranks.dist.calls == 3 * size


def test_a_rank_alone_waits_for_nobody(threads):
    def work(rank: int) -> None:
        x = torch.ones(2, 2)
        ranks.barrier()
        assert ranks.gather_rows(x, x) == (x, x, 0) and ranks.gather_objects(5) == [5]
        assert ranks.sum_over_ranks(x) is x and (ranks.rank(), ranks.world_size()) == (0, 1)

    threads(1, work)
    assert ranks.dist.calls == 0


def test_without_a_group_there_is_one_rank():
    x = torch.randn(3, 2, requires_grad=True)
    rows, first = ranks.gather_rows(x)
    assert rows is x and first == 0
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    assert ranks.sum_over_ranks(x) is x


def test_what_rank_0_is_refused_is_raised_on_every_rank(monkeypatch):
    threads, done = Threads(2), []
    monkeypatch.setattr(ranks, "dist", threads)

    def refuse() -> None:
        raise UserError("out: is taken")

    def work(rank: int) -> str:
        ranks.on_first_rank(lambda: done.append(rank))
        with pytest.raises(UserError) as error:
            ranks.on_first_rank(refuse)
        return str(error.value)

    assert threads.run(work) == ["out: is taken"] * 2 and done == [0]


@pytest.mark.parametrize(
    ("variables", "outcome"),
    [
        ({}, ranks.Outcome(7)),
        (PAIR, None),
        (PAIR | {"RANK": "0"}, ranks.Outcome(7)),
        (PAIR | {"RANK": "0", "WORLD_SIZE": "1"}, ranks.Outcome(7)),
        (STEP, None),
        (STEP | {"SLURM_PROCID": "0", "SLURM_NODEID": "0"}, ranks.Outcome(7)),
    ],
    ids=["by hand", "second", "first", "launcher of one", "second task", "first task"],
)
def test_ahead_of_the_meeting_the_first_rank_alone_acts(variables, outcome, scontrol, environment):
    environment(variables)
    done = []
    assert ranks.attempt_ahead(lambda: done.append(1) or 7) == outcome
    assert len(done) == (outcome is not None)


@pytest.mark.parametrize(("world_size", "at_once"), [("1", True), ("2", False)])
def test_an_error_ahead_of_the_meeting_waits_for_those_whom_it_is_to_be_told(environment, world_size, at_once):
    environment(PAIR | {"RANK": "0", "WORLD_SIZE": world_size})

    def refuse() -> None:
        raise UserError("out: is taken")

    if at_once:
        with pytest.raises(UserError, match="out: is taken"):
            ranks.attempt_ahead(refuse)
    else:
        assert ranks.attempt_ahead(refuse) == ranks.Outcome(None, "out: is taken")


@pytest.mark.parametrize(("size", "group"), [(1, None), (2, "group")])
def test_only_several_ranks_have_a_group_of_their_own(size, group, monkeypatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ranks, "world_size", lambda: size)
    monkeypatch.setattr(ranks.dist, "new_group", lambda **of: asked.append(of) or "group")
    assert ranks.new_group(timedelta(seconds=7)) == group
    assert asked == ([] if group is None else [{"backend": "gloo", "timeout": timedelta(seconds=7)}])
