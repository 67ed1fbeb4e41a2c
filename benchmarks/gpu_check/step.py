"""The training step at the recipe's batches on one of 8 GPUs, eager and compiled: time, launches, kernels, MFU.

The weights are as DeepSpeed has them in bf16: all of the model in bf16, an fp32 master of each in the optimizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from support.batches import made_batch
from timing import brief
from torch import Tensor, nn

from gpu_check.ceilings import limits
from gpu_check.check import Check
from gpu_check.profiling import Profile, profiled
from gpu_check.target import Target, spare_the_compiler, target
from relvlm.config.load import load_config
from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.batches.batch import Batch
from relvlm.kinds import BatchKind
from relvlm.model import RelVLM
from relvlm.plan.flops import BERT_WORDS, GQA_RELATIONS, TRAINING, Sizes, packed
from relvlm.plan.workload import Workload, workload
from relvlm.pretraining.step import Pretraining

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "13m" / "rex_vlm.yaml"
GPUS, REGIONS = 8, 5
KINDS: tuple[BatchKind, ...] = ("captions", "entities", "mrc", "vsg")
WARM_UP, STEPS, TOP = 3, 10, 20
TOY = ModelConfig(
    image_size=32, embed_dim=16, vision=ViTConfig(width=32, layers=1, heads=2, patch_size=8),
    text=TextConfig(layers=1, heads=2, width=32), fusion=FusionConfig(layers=1, heads=2), mrc_hidden=24,
)  # fmt: skip


class MasterAdamW:
    """AdamW on fp32 copies of bf16 weights, whose gradients it takes and which it writes back."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = [p for p in module.parameters() if p.requires_grad]
        self.masters = [p.detach().float() for p in self.weights]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        self.inner = torch.optim.AdamW(self.masters, lr=1e-6, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        kept = [(w, m) for w, m in zip(self.weights, self.masters, strict=True) if w.grad is not None]
        torch._foreach_copy_([m.grad for _, m in kept], [w.grad for w, _ in kept])
        self.inner.step()
        torch._foreach_copy_(self.weights, self.masters)
        for weight in self.weights:
            weight.grad = None


@dataclass(frozen=True)
class Step:
    """One step of training on one batch, over and over."""

    pretraining: Pretraining
    optimizer: MasterAdamW
    batch: Batch

    def loss(self) -> Tensor:
        return self.pretraining(self.batch).total

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()


def main(check: Check) -> None:
    here, most = target(check), limits(check)
    if here.toy:
        spare_the_compiler()
    for compiled in (False, True):
        pretraining, sizes = made_step(here, compiled)
        optimizer = MasterAdamW(pretraining)
        for work in works(here):
            row = {"kind": work.kind, "images": work.images, "compiled": compiled}
            try:
                row |= measure(Step(pretraining, optimizer, batch_of(work, sizes, here)), sizes, work, here, most)
            except Exception as error:  # one kind that fails stops no other
                row["error"] = brief(error)
            check.row(what="step", **row)
        del pretraining, optimizer


def made_step(here: Target, compiled: bool) -> tuple[Pretraining, Sizes]:
    """That of the recipe's model, with all weights in bf16."""
    torch.manual_seed(0)
    config = TOY if here.toy else load_config(RECIPE).model
    sizes = Sizes(config, 50 if here.toy else BERT_WORDS, 7 if here.toy else GQA_RELATIONS)
    model = RelVLM(replace(config, compile=compiled), sizes.words, sizes.relations)
    return Pretraining(model.to(here.device, torch.bfloat16)), sizes


def works(here: Target) -> list[Workload]:
    """A GPU's share of each kind of step."""
    data = replace(load_config(RECIPE).data, regions_per_image=REGIONS)
    found = [workload(data, kind) for kind in (KINDS[::2] if here.toy else KINDS)]
    return [_toy(work) if here.toy else replace(work, images=-(-work.images // GPUS)) for work in found]


def _toy(work: Workload) -> Workload:
    groups, masked = min(work.groups, 3), min(work.masked, 1)
    return replace(work, images=2, groups=groups, tokens=5, padded=8, masked=masked)


def batch_of(work: Workload, sizes: Sizes, here: Target) -> Batch:
    vision, size = sizes.model.vision, sizes.model.image_size
    return made_batch(work, size, size // vision.patch_size, sizes.words, sizes.relations).to(here.device)


def measure(step: Step, sizes: Sizes, work: Workload, here: Target, most: dict[str, float]) -> dict[str, Any]:
    """Milliseconds of a step and of its parts, kept memory, MFU, launches, busy share, the longest kernels."""
    began = time.perf_counter()
    for _ in range(1 if here.toy else WARM_UP):
        step()
    _wait(here)
    first = time.perf_counter() - began
    count = 1 if here.toy else STEPS
    took = _seconds(lambda: [step() for _ in range(count)], here) / count
    flops = TRAINING * sum(packed(sizes, work).values())
    row = {
        "ms": took * 1e3, "first_steps_s": first, "tflop": flops / 1e12, "mfu": flops / took / most["flops_per_s"],
        **_parts(step, here), "peak_gib": _peak(here),
    }  # fmt: skip
    return row | _seen(profiled(step, here.device), took)


def _parts(step: Step, here: Target) -> dict[str, float]:
    """Milliseconds of each part of one step, the device being waited for between them."""
    losses: list[Tensor] = []
    found = {"forward_ms": _seconds(lambda: losses.append(step.loss()), here)}
    found["backward_ms"] = _seconds(lambda: losses.pop().backward(), here)
    found["update_ms"] = _seconds(step.optimizer.step, here)
    return {name: seconds * 1e3 for name, seconds in found.items()}


def _seen(profile: Profile, took: float) -> dict[str, Any]:
    top = [{"name": k.name[:120], "count": k.count, "us": round(k.seconds * 1e6, 1)} for k in profile.kernels[:TOP]]
    return {
        "launches": profile.launches, "kernels": sum(k.count for k in profile.kernels),
        "busy": profile.busy / took, "kernel_ms": sum(k.seconds for k in profile.kernels) * 1e3, "top": top,
    }  # fmt: skip


def _seconds(run: Callable[[], Any], here: Target) -> float:
    _wait(here)
    began = time.perf_counter()
    run()
    _wait(here)
    return time.perf_counter() - began


def _wait(here: Target) -> None:
    if here.device.type == "cuda":
        torch.cuda.synchronize()


def _peak(here: Target) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if here.device.type == "cuda" else 0.0


if __name__ == "__main__":
    main(Check.from_arguments("step"))
