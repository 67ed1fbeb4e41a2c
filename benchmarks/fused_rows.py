"""Passes over rows fused (add_norm, gelu_linear) and as PyTorch composes them, forward + backward, sides interleaved.

    python benchmarks/fused_rows.py                        # the ops at base width, and at that of `mini`
    python benchmarks/fused_rows.py --steps mini mid base  # whole training steps with either, captions and entities

The ops are timed with their products, and so are the products alone: what is left is what the passes cost. A step with
the composed passes is ours but for them. Times are CPU seconds of one thread, medians; ratios are medians over the
repeats, and above 1 the fused one is faster. More threads share all of it but `bernoulli_`, PyTorch's dropout, which
one thread draws while the others wait. MFU is against a large product, measured beside the steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from measuring import commit, machine, output_file
from stepping import timed_step
from support.footprint import kept_bytes
from torch import Tensor
from train_step import RECIPE, SIZES, adamw, made_parts

from relvlm.config.load import load_config
from relvlm.encoders import feed_forward, text
from relvlm.model import RelVLM
from relvlm.plan.flops import BERT_WORDS, GQA_RELATIONS, TRAINING, Sizes, packed
from relvlm.plan.workload import workload
from relvlm.pretraining.step import Pretraining
from relvlm_kernels import add_norm, gelu_linear
from relvlm_kernels.cpu import instructions
from relvlm_kernels.malloc import keep_freed_memory

CPU, FP32 = torch.device("cpu"), torch.float32
# Rows, width; the last but one is of `mini`, and the last so small that the host alone is timed.
SHAPES = ((64, 768), (400, 768), (1200, 768), (500, 64), (8, 16))
DROPOUT, EPS = 0.1, 1e-12
PRODUCT_FLOPS = 5 * 2 * 1536**3


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    on = f"{machine(CPU)}, 1 thread, torch {torch.__version__}"
    print(f"{on}, fp32, {instructions()}, {commit()}\n")
    steps = [row for size in args.steps for row in step_rows(size, args.kinds, args.images, args.repeats)]
    ops = [] if steps else list(op_rows(args.repeats))
    if args.json:
        context = {"command": sys.argv, "machine": on, "dtype": "fp32", "commit": commit()}
        args.json.write_text(json.dumps(context | {"ops": ops, "steps": steps}, indent=1) + "\n")


def op_rows(repeats: int) -> Iterator[dict[str, Any]]:
    """Of each op and shape; the ratio is of what is left without the products."""
    print("| op | rows x width | products alone, ms | composed, ms | fused, ms | composed / fused | the passes alone |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for rows, width in SHAPES:
        for op, sides in {"add_norm": norm_sides(rows, width), "gelu_linear": gelu_sides(rows, width)}.items():
            times = cpu_seconds(sides, repeats)
            row = {"op": op, "rows": rows, "width": width} | {name: median(each) for name, each in times.items()}
            row["ratio"] = ratio(times)
            row["passes"] = (row["composed"] - row["product"]) / (row["fused"] - row["product"])
            milliseconds = " | ".join(f"{row[n] * 1e3:.3f}" for n in ("product", "composed", "fused"))
            print(
                f"| {op} | {rows} x {width} | {milliseconds} | {row['ratio']:.2f} | {row['passes']:.2f} |", flush=True
            )
            yield row


def cpu_seconds(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Of each side, one after another in every repeat, the first to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, run in sides.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    return {name: each[1:] for name, each in seconds.items()}


def ratio(times: dict[str, list[float]]) -> float:
    return median(a / b for a, b in zip(times["composed"], times["fused"], strict=True))


def norm_sides(rows: int, width: int) -> dict[str, Callable[[], Any]]:
    """LayerNorm(dropout(x W + b) + residual), with the gradients of all five and of the norm's parameters."""
    x, residual, product = leaves((rows, width), (rows, width), (width, width))
    bias, weight, shift = leaves((width,), (width,), (width,))
    inputs, grad = (x, residual, product, bias, weight, shift), torch.randn(rows, width)

    def composed() -> Any:
        total = residual + F.dropout(F.linear(x, product, bias), DROPOUT)
        return torch.autograd.grad(F.layer_norm(total, (width,), weight, shift, EPS), inputs, grad)

    def fused() -> Any:
        out = add_norm(F.linear(x, product, bias), residual, weight, shift, EPS, DROPOUT)
        return torch.autograd.grad(out, inputs, grad)

    def alone() -> Any:
        return torch.autograd.grad(F.linear(x, product), (x, product), grad)

    return {"product": alone, "composed": composed, "fused": fused}


def gelu_sides(rows: int, width: int) -> dict[str, Callable[[], Any]]:
    """gelu(x V + b) W of a hidden width four times as wide."""
    x, first, bias, second = leaves((rows, width), (4 * width, width), (4 * width,), (width, 4 * width))
    (out_bias,) = leaves((width,))
    inputs, grad = (x, first, bias, second, out_bias), torch.randn(rows, width)

    def composed() -> Any:
        return torch.autograd.grad(F.linear(F.gelu(F.linear(x, first, bias)), second, out_bias), inputs, grad)

    def fused() -> Any:
        return torch.autograd.grad(gelu_linear(F.linear(x, first), bias, second, out_bias), inputs, grad)

    def alone() -> Any:
        return torch.autograd.grad(F.linear(F.linear(x, first), second), (x, first, second), grad)

    return {"product": alone, "composed": composed, "fused": fused}


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [(torch.randn(shape) / shape[-1] ** 0.5).requires_grad_() for shape in shapes]


def step_rows(size: str, kinds: list[str], images: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Of whole steps of a size of train_step.py."""
    print("| size | batch | images | composed, s | fused, s | composed / fused | kept memory | MFU, fused |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    config, usual = SIZES[size]
    sizes = Sizes(config, BERT_WORDS, GQA_RELATIONS)
    torch.manual_seed(0)
    step = Pretraining(RelVLM(config, BERT_WORDS, GQA_RELATIONS))
    optimizer = adamw(step.model)
    for kind in kinds:
        work = replace(workload(load_config(RECIPE).data, kind), images=images or usual)
        (batch,) = made_parts(step.model, [work], CPU)
        flops = TRAINING * sum(packed(sizes, work).values())
        row = {"size": size, "kind": kind, "images": work.images}
        row |= measured(step, optimizer, lambda b=batch: step(b).total, flops, repeats)
        cells = f"{row['composed']:.3f} | {row['fused']:.3f} | {row['ratio']:.3f} | {row['memory_ratio']:.0%}"
        print(f"| {size} | {kind} | {work.images} | {cells} | {row['mfu']:.0%} |", flush=True)
        yield row


def measured(
    step: Pretraining, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], flops: float, repeats: int
) -> dict[str, float]:
    def composed() -> float:
        with composed_passes():
            return timed_step(loss, optimizer, FP32, CPU)

    sides = {"composed": composed, "fused": lambda: timed_step(loss, optimizer, FP32, CPU), "product": product()}
    times = cpu_seconds(sides, repeats)
    with composed_passes():
        kept = kept_bytes(loss, step, FP32)
    row = {name: median(each) for name, each in times.items()}
    mfu = flops / row["fused"] * row.pop("product") / PRODUCT_FLOPS
    return row | {"ratio": ratio(times), "memory_ratio": kept_bytes(loss, step, FP32) / kept, "mfu": mfu}


def product() -> Callable[[], Any]:
    """Large products of square matrices."""
    a, b = torch.randn(2, 1536, 1536).unbind(0)
    return lambda: [a @ b for _ in range(5)]


@contextmanager
def composed_passes() -> Iterator[None]:
    """The encoders with PyTorch's own ops where ours are fused."""
    before = text.add_norm, feed_forward.FeedForward.forward
    text.add_norm, feed_forward.FeedForward.forward = _add_norm, torch.nn.Sequential.forward
    try:
        yield
    finally:
        text.add_norm, feed_forward.FeedForward.forward = before


def _add_norm(x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float) -> Tensor:
    return F.layer_norm(residual + F.dropout(x, dropout), weight.shape, weight, shift, eps)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="*", choices=SIZES, default=[], help="whole steps of these sizes instead")
    parser.add_argument("--kinds", nargs="+", default=["captions", "entities"])
    parser.add_argument("--images", type=int, default=0, help="images of a batch (0: by size)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=output_file)
    return parser.parse_args()


if __name__ == "__main__":
    main()
