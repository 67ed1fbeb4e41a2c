"""What a training step asks of the host, counted: calls of Python and C in the ops' layer, ops that a GPU would launch.

Of a model as deep as the recipe's and so narrow that a CPU is through with it in a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.batches.batch import Batch
from relvlm.encoders import vit
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload
from relvlm.pretraining.step import Pretraining
from relvlm_kernels import backends, checks, cuda
from relvlm_kernels.cuda import attention, library
from relvlm_kernels.packed import attention_by_pytorch
from relvlm_kernels.triton import launch

from .batches import made_batch

TESTS = Path(__file__).resolve().parents[1]
LAYER = "/relvlm_kernels/", "/torch/_library/"  # files whose functions begin the ops' layer, forward and backward
MODEL = ModelConfig(
    image_size=32, embed_dim=16, vision=ViTConfig(width=64, layers=12, heads=2, patch_size=8),
    text=TextConfig(layers=6, heads=2, width=64), fusion=FusionConfig(layers=6, heads=2), mrc_hidden=24,
)  # fmt: skip
WORKS = {
    "captions": Workload("captions", 4, 1, 6, 16, masked=2),
    "entities": Workload("entities", 2, 3, 4, 8, masked=1, boxes=3),
    "mrc": Workload("mrc", 2, 3, 4, 8, relations=2),
    "vsg": Workload("vsg", 4, 1, 6, 16, masked=2),
}
BACKENDS = "cpu", "cuda"


class Calls:
    """Counts calls of Python and C functions from within the layer, while it is this thread's profile function."""

    def __init__(self) -> None:
        self.count = self.depth = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and (self.depth or any(part in frame.f_code.co_filename for part in LAYER)):
            self.depth += 1
            self.count += 1
        elif event == "return" and self.depth:
            self.depth -= 1
        elif event == "c_call" and self.depth:
            self.count += 1


class Launches(TorchDispatchMode):
    """Counts ops that write something; one of ours counts as one, whatever it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or "empty" in func.name() or "detach" in func.name())
        return func(*args, **kwargs or {})


@contextmanager
def without_a_gpu() -> Iterator[list[str]]:
    """The `cuda` backend takes tensors of the CPU, and starts nothing. Yields the names of what it would have run."""
    started: list[str] = []
    backends._chosen.cache_clear()
    with ExitStack() as stack:
        for of, name, value in (
            (cuda, "missing", lambda: ""), (cuda, "refusal", lambda *of: ""), (attention, "_output", torch.zeros_like),
            (library.Launch, "run", lambda call, function: started.append(function)),
            (vit, "attention_qkvpacked", attention_by_pytorch),
            (launch, "start", lambda kernel, programs, arguments: _zeros(arguments)),
            (backends.BACKENDS["cuda"], "_missing", None), (checks, "wanted", lambda device: False),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(of, name, value))
        yield started
    backends._chosen.cache_clear()


def _zeros(arguments: dict[str, Any]) -> None:
    """In place of what a kernel of Triton would write."""
    for name in arguments.keys() & {"out", "total", "mean", "rstd", "dresidual", "dx", "sums"}:
        arguments[name].zero_()


def toy_step(kind: str) -> tuple[Pretraining, Batch]:
    """One that has run once, so that whatever is made at the first step is there."""
    torch.manual_seed(0)
    step, batch = Pretraining(RelVLM(MODEL, 50, 7)), made_batch(WORKS[kind], 32, 4, 50, 7)
    step(batch).total.backward()
    return step, batch


def counts_elsewhere() -> dict[str, dict[str, dict[str, int]]]:
    """`counts` by backend and kind, in a process of its own: DeepSpeed's ZeRO 3 changes F.linear for one for good."""
    program = f"import json\nfrom {__name__} import *\n"
    program += "print(json.dumps({b: {k: counts(k, b) for k in WORKS} for b in BACKENDS}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TESTS)
    found: dict[str, dict[str, dict[str, int]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def counts(kind: str, backend: str) -> dict[str, int]:
    """Calls and launches of a step of that kind, and of the kernels' library on a GPU."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict("os.environ", RELVLM_KERNELS=backend))
        started = stack.enter_context(without_a_gpu()) if backend == "cuda" else []
        step, batch = toy_step(kind)
        step.zero_grad()
        started.clear()
        calls = Calls()
        sys.setprofile(calls)
        try:
            step(batch).total.backward()
        finally:
            sys.setprofile(None)
        with Launches() as forward:
            total = step(batch).total
        with Launches() as backward:
            total.backward()
    return {"calls": calls.count, "forward": forward.count, "backward": backward.count}
