"""Two processes on gloo equal one: gathered rows, their gradients, ITC, chunks of a step and skipped steps."""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from support.batches import made_batch
from torch import Tensor
from toys import toy_model

from relvlm import ranks
from relvlm.config.schema import Config, OptimConfig
from relvlm.engine import distributed
from relvlm.engine.train_step import train_step
from relvlm.losses.itc import itc_loss
from relvlm.plan.workload import Workload
from relvlm.pretraining.chunks import Chunk, chunks_of
from relvlm.pretraining.means import ONE_RANK, Ranks
from relvlm.pretraining.negatives import Negatives
from relvlm.pretraining.step import Pretraining

SIZES = [2, 5]


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of `WORK` gives on each of two ranks, all in one pair of processes: starting one takes seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _worker(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    distributed.start(threads=1)
    torch.save({work.__name__: work() for work in WORK}, folder / f"{rank}.pt")
    ranks.stop()


def block(rank: int) -> Tensor:
    return torch.arange(SIZES[rank] * 3, dtype=torch.float64).view(-1, 3) + 100 * rank


def loss_of_rank(rank: int, own: Tensor, everyone: Tensor) -> Tensor:
    return (rank + 1) * (own.sum(0) * everyone.square().mean(0)).sum()


def gathered():
    """Rows of unequal counts; the gradient of a loss that differs by rank; other shapes and types."""
    rank = ranks.rank()
    own = block(rank).requires_grad_()
    rows, first = ranks.gather_rows(own)
    loss_of_rank(rank, own, rows).backward()
    again, keys, _ = ranks.gather_rows(own.detach(), torch.arange(SIZES[rank]) + 10 * rank)
    assert torch.equal(again, rows)
    return {"rows": rows.detach(), "first": first, "gradient": own.grad, "keys": keys}


def similarities() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=-1) for _ in range(2))
    return images, texts


def itc_of(images: Tensor, texts: Tensor, gather: Callable[[Tensor], tuple[Tensor, int]]):
    """Loss and gradients; the pairs of texts 1 and 5 are false negatives of each other."""
    images, texts = images.clone().requires_grad_(), texts.clone().requires_grad_()
    temperature = torch.tensor([0.2], requires_grad=True)
    (all_images, first), (all_texts, _) = gather(images), gather(texts)
    wrong = torch.zeros(6, 6, dtype=torch.bool)
    wrong[1, 5] = wrong[5, 1] = True
    wrong = wrong[first : first + len(images)]
    loss = itc_loss(images, texts, all_images, all_texts, temperature, first, wrong, wrong)
    loss.backward()
    return {
        "loss": loss.detach(),
        "images": images.grad,
        "texts": texts.grad,
        "temperature": temperature.grad,
    }


def half_of_itc():
    half = slice(3 * ranks.rank(), 3 * ranks.rank() + 3)
    return itc_of(*(x[half] for x in similarities()), ranks.gather_rows)


def sums():
    return ranks.sum_over_ranks(torch.tensor([1.0, 2.0 * ranks.rank()])).tolist()


class Line(torch.nn.Module):
    """Its loss is its weight and what the batch adds, its gradient 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch: float, of: Chunk | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        total = self.weight.sum() + batch
        return total, {"itc": total.detach()}


def steps_with_a_nan_on_rank_1():
    """At each ZeRO stage: which steps were taken, and the weight at the end."""
    nan = float("nan") if ranks.rank() else 0.0
    steps = [[0.0], [nan], [0.0], [0.0, nan, 0.0], [0.0, 0.0]]
    found = []
    for stage in range(4):
        model, config = Line(), Config(accumulate=2, optim=OptimConfig(clip_norm=0.0))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        settings = {"zero_optimization": {"stage": stage}}
        engine = distributed.initialize(model, optimizer, None, config, settings)
        stepped = [train_step(engine, step)[1] for step in steps]
        found.append((stepped, engine.module.weight.item()))
    return found


WORK_OF_A_CHUNK = Workload("captions", 3, 1, 5, 8, masked=1)


def in_chunks(of: Ranks, seeds: Sequence[int]):
    """Values and gradients of a step in chunks made from the seeds."""
    step = Pretraining(toy_model().double(), of)
    chunks = [made_batch(WORK_OF_A_CHUNK, 32, 4, 50, 7, seed) for seed in seeds]
    negatives = Negatives.given(torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1]))
    found = []
    for batch, chunk in zip(chunks, chunks_of(chunks), strict=True):
        total, values = step(batch, chunk, negatives)
        total.backward()
        found.append(values)
    sums = {name: sum(values[name] for values in found) for name in found[0]}
    return sums | {name: p.grad for name, p in step.named_parameters()}


def two_of_four_chunks():
    first = 2 * ranks.rank()
    both = Ranks(2, ranks.gather_rows, ranks.sum_over_ranks)
    return in_chunks(both, [first, first + 1])


WORK = [gathered, half_of_itc, sums, steps_with_a_nan_on_rank_1, two_of_four_chunks]


@pytest.mark.slow
def test_rows_of_unequal_counts_are_gathered_with_their_gradient(both_ranks):
    found = [rank["gathered"] for rank in both_ranks]
    blocks = [block(rank).requires_grad_() for rank in range(2)]
    rows = torch.cat(blocks)
    sum(loss_of_rank(rank, blocks[rank], rows) for rank in range(2)).backward()
    for rank, result in enumerate(found):
        assert torch.equal(result["rows"], rows.detach())
        assert result["first"] == [0, 2][rank]
        torch.testing.assert_close(result["gradient"], blocks[rank].grad)
        assert result["keys"].tolist() == [0, 1, 10, 11, 12, 13, 14]


@pytest.mark.slow
def test_itc_on_two_processes_is_itc_of_the_whole_batch(both_ranks):
    halves = [rank["half_of_itc"] for rank in both_ranks]
    whole = itc_of(*similarities(), lambda x: (x, 0))
    torch.testing.assert_close((halves[0]["loss"] + halves[1]["loss"]) / 2, whole["loss"])
    for name in ("images", "texts"):  # DeepSpeed divides by the number of processes
        torch.testing.assert_close(torch.cat([half[name] for half in halves]) / 2, whole[name])
    mean = (halves[0]["temperature"] + halves[1]["temperature"]) / 2
    torch.testing.assert_close(mean, whole["temperature"])


@pytest.mark.slow
def test_numbers_are_summed_over_ranks(both_ranks):
    assert [rank["sums"] for rank in both_ranks] == [[2.0, 2.0]] * 2


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_both(both_ranks):
    for found in (rank["steps_with_a_nan_on_rank_1"] for rank in both_ranks):
        for stepped, weight in found:
            assert stepped == [True, False, True, False, True]
            assert weight == pytest.approx(1 - 0.1 * (1 + 1 + 2))


@pytest.mark.slow
def test_two_chunks_on_each_of_two_processes_are_four_chunks_on_one(both_ranks):
    one, other = (rank["two_of_four_chunks"] for rank in both_ranks)
    whole = in_chunks(ONE_RANK, range(4))
    assert one.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close((one[name] + other[name]) / 2, value)
