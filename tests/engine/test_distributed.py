"""Two processes on gloo equal one: gathered rows, their gradients, ITC, agreement and skipped steps."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from relvlm.engine import distributed
from relvlm.engine.loop import train_step
from relvlm.errors import UserError
from relvlm.losses.itc import itc_loss

SIZES = [2, 5]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of `WORK` gives on each of two ranks, all in one pair of processes: starting one takes seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _worker(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=distributed.TIMEOUT)
    torch.save({work.__name__: work() for work in WORK}, folder / f"{rank}.pt")
    distributed.stop()


def block(rank: int) -> Tensor:
    return torch.arange(SIZES[rank] * 3, dtype=torch.float64).view(-1, 3) + 100 * rank


def loss_of_rank(rank: int, own: Tensor, everyone: Tensor) -> Tensor:
    return (rank + 1) * (own.sum(0) * everyone.square().mean(0)).sum()


def gathered():
    """Rows of unequal counts; the gradient of a loss that differs by rank; other shapes and types."""
    rank = distributed.rank()
    own = block(rank).requires_grad_()
    rows, first = distributed.gather_rows(own)
    loss_of_rank(rank, own, rows).backward()
    keys, _ = distributed.gather_rows(torch.arange(SIZES[rank]) + 10 * rank)
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
    half = slice(3 * distributed.rank(), 3 * distributed.rank() + 3)
    return itc_of(*(x[half] for x in similarities()), distributed.gather_rows)


def agreement():
    rank = distributed.rank()
    verdicts = [distributed.all_agree(torch.tensor(flag)) for flag in (True, rank == 0, rank == 1, False)]
    return verdicts, distributed.mean_over_ranks(torch.tensor([1.0, 2.0 * rank])).tolist()


class Engine:
    """As much of DeepSpeed's engine as a step uses: one weight, whose loss is not finite where the batch says so."""

    skipped_steps = 0

    def __init__(self) -> None:
        self.weight = torch.ones(1, requires_grad=True)
        self.calls: list[str] = []

    def __call__(self, batch: SimpleNamespace) -> tuple[Tensor, dict[str, Tensor]]:
        total = (self.weight * batch.factor).sum()
        return total, {"itc": total.detach()}

    def zero_optimization_stage(self) -> int:
        return 1

    def zero_grad(self) -> None:
        self.weight.grad = None

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        self.calls.append("backward")

    def step(self) -> None:
        with torch.no_grad():
            self.weight -= 0.1 * self.weight.grad
        self.calls.append("step")


def steps_with_a_nan_on_rank_1():
    engine, rank = Engine(), distributed.rank()
    nan = float("nan") if rank else 1.0
    stepped = [train_step(engine, SimpleNamespace(factor=f))[1] for f in (1.0, nan, 1.0)]
    return stepped, engine.calls, engine.weight.detach()


WORK = [gathered, half_of_itc, agreement, steps_with_a_nan_on_rank_1]


@pytest.mark.slow
def test_rows_of_unequal_counts_are_gathered_with_their_gradient(ranks):
    found = [rank["gathered"] for rank in ranks]
    blocks = [block(rank).requires_grad_() for rank in range(2)]
    rows = torch.cat(blocks)
    sum(loss_of_rank(rank, blocks[rank], rows) for rank in range(2)).backward()
    for rank, result in enumerate(found):
        assert torch.equal(result["rows"], rows.detach())
        assert result["first"] == [0, 2][rank]
        torch.testing.assert_close(result["gradient"], blocks[rank].grad)
        assert result["keys"].tolist() == [0, 1, 10, 11, 12, 13, 14]


@pytest.mark.slow
def test_itc_on_two_processes_is_itc_of_the_whole_batch(ranks):
    halves = [rank["half_of_itc"] for rank in ranks]
    whole = itc_of(*similarities(), lambda x: (x, 0))
    torch.testing.assert_close((halves[0]["loss"] + halves[1]["loss"]) / 2, whole["loss"])
    for name in ("images", "texts"):  # DeepSpeed divides by the number of processes
        torch.testing.assert_close(torch.cat([half[name] for half in halves]) / 2, whole[name])
    mean = (halves[0]["temperature"] + halves[1]["temperature"]) / 2
    torch.testing.assert_close(mean, whole["temperature"])


@pytest.mark.slow
def test_ranks_agree_only_where_all_do(ranks):
    for verdicts, mean in (rank["agreement"] for rank in ranks):
        assert verdicts == [True, False, False, False]
        assert mean == [1.0, 1.0]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_both(ranks):
    for stepped, calls, weight in (rank["steps_with_a_nan_on_rank_1"] for rank in ranks):
        assert stepped == [True, False, True]
        assert calls == ["backward", "step"] * 2
        assert weight.isfinite().all()


def test_a_single_process_gathers_nothing():
    x = torch.randn(3, 2, requires_grad=True)
    rows, first = distributed.gather_rows(x)
    assert rows is x and first == 0
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.all_agree(torch.tensor(True)) and not distributed.all_agree(torch.tensor(False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable DeepSpeed config"),
        ('{"bf16": {"enabled": true}}', "bf16: is decided by the relvlm config"),
        ('{"optimizer": {}}', "optimizer: is decided by the relvlm config"),
        ('{"gradient_accumulation_steps": 4}', "gradient_accumulation_steps: only 1 is supported"),
    ],
)
def test_a_deepspeed_config_that_contradicts_ours_is_refused(tmp_path, text, message):
    path = tmp_path / "deepspeed.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        distributed.read_deepspeed_config(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_the_deepspeed_config_may_be_left_out():
    assert distributed.read_deepspeed_config(None) == {"zero_optimization": {"stage": 1}}
