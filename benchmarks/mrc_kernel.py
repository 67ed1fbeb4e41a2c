"""Region attention and the whole MRC branch: ours against the ways without a kernel, all in one run.

    python benchmarks/mrc_kernel.py                       # a few shapes on the CPU
    python benchmarks/mrc_kernel.py --shapes full --flex  # all, and FlexAttention (a minute of compiling)
    python benchmarks/mrc_kernel.py --device cuda --dtype bf16 --json out.json --plot out.png --profile trace.json

Ways: `replicate` copies an image for each region and projects its keys and values there, under a mask (X-VLM's);
`packed mask` projects them once per image and gives SDPA a mask over all queries of the image; `flex` is
FlexAttention with a block mask; `xformers` where it can be imported. That all agree is checked before anything is
timed. Times are medians of interleaved repeats, ratios medians of the repeats' ratios; memory is the most that tensors
held beyond inputs, weights and their gradients (the C++ kernels keep below 1 MiB of scratch per thread beside). As in
training, there are no gradients when a repeat begins, and the C library keeps what is freed (up to 32 MiB a tensor).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import commit, copy_bandwidth, gemm_rate, interleaved, machine, peak_bytes, speedup
from mrc_report import markdown, plot, print_table, waterfall
from mrc_shapes import CUDA_SHAPES, SHAPES, TARGET, Batch, Shape, make_batch
from mrc_ways import Branch, Flex, Masked, Replicated, Way, Xformers
from torch import Tensor

from relvlm_kernels import chosen
from relvlm_kernels.malloc import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03, torch.float16: 4e-3}  # of the largest number


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device, dtype = torch.device(args.device), DTYPES[args.dtype]
    result = _header(args, device, dtype)
    shapes = (SHAPES if device.type == "cpu" else CUDA_SHAPES)[args.shapes]
    for shape in shapes:
        row = measure(shape, device, dtype, args.repeats, args.flex, result["machine"])
        result["shapes"].append(row)
        print_table(row)
    print(waterfall(result["shapes"][0]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        args.json.with_suffix(".md").write_text(markdown(result))
    if args.plot:
        plot(result, args.plot)
    if args.profile:
        write_trace(shapes[0], device, dtype, args.profile)


def measure(
    shape: Shape, device: torch.device, dtype: torch.dtype, repeats: int, flex: bool, limits: dict[str, float]
) -> dict[str, Any]:
    """All ways at one shape. Raises SystemExit where they do not agree."""
    batch = make_batch(shape, device)
    ways = [Way(batch), Replicated(batch), Masked(batch)]
    ways += [Flex(batch)] if flex else []
    ways += [Xformers(batch)] if device.type == "cuda" and find_spec("xformers") else []
    check(batch, ways, device, dtype)
    row: dict[str, Any] = {
        "shape": vars(shape),
        "regions": len(batch.lengths),
        "tokens": int(batch.lengths.sum()),
    }
    row["forward"] = _compare(
        batch, {w.name: _forward(w, dtype) for w in ways}, device, repeats, limits, dtype, 1
    )
    grads = {w.name: _backward(w, dtype) for w in ways if w.backward}
    row["backward"] = _compare(batch, grads, device, repeats, limits, dtype, 2.5)
    row["branch"] = _branches(batch, [w for w in ways if w.backward], device, dtype, repeats)
    return row


def check(batch: Batch, ways: list[Way], device: torch.device, dtype: torch.dtype) -> None:
    """Output and gradients of every way against masked attention in fp64 (images one by one)."""
    exact = _outputs(Masked(batch), torch.float64, device)
    for way in ways:
        for name, found, wanted in zip(
            ("out", "dq", "dk", "dv"), _outputs(way, dtype, device), exact, strict=False
        ):
            off = float((found.double() - wanted).abs().max() / wanted.abs().max())
            if not off <= TOLERANCE[dtype]:
                raise SystemExit(
                    f"{way.name}: {name} is off by {off:.1e} of its largest number: nothing measured"
                )


def _inputs(way: Way, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q in the way's layout, k and v of each image, and the gradient of the packed output."""
    shape, generator = way.batch.shape, torch.Generator().manual_seed(2)
    heads = (shape.heads, shape.width)

    def draw(*rows: int) -> Tensor:
        return torch.randn(*rows, *heads, generator=generator, dtype=torch.float32).to(way.device, dtype)

    q, k, v, grad = (
        draw(len(way.packed)),
        *(draw(shape.images, shape.keys) for _ in range(2)),
        draw(len(way.packed)),
    )
    q, k, v = (x.requires_grad_(way.backward) for x in (way.layout(q), k, v))
    return q, k, v, way.layout(grad)


def _outputs(way: Way, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    q, k, v, grad = _inputs(way, dtype)
    out = way.attend(q, way.tokens(k), way.tokens(v))
    found = [way.rows(out.detach())]
    if way.backward:
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), grad)
        found += [way.rows(dq), dk, dv]
    return found


def _forward(way: Way, dtype: torch.dtype) -> Callable[[], Callable[[], Any]]:
    """Attention alone; the copies of keys and values are made before."""
    q, k, v, _ = (x.detach() for x in _inputs(way, dtype))
    k, v = way.tokens(k), way.tokens(v)
    return lambda: lambda: way.attend(q, k, v)


def _backward(way: Way, dtype: torch.dtype) -> Callable[[], Callable[[], Any]]:
    q, k, v, grad = _inputs(way, dtype)
    k, v = (way.tokens(x.detach()).requires_grad_() for x in (k, v))

    def prepare() -> Callable[[], Any]:
        out = way.attend(q, k, v)
        return lambda: torch.autograd.grad(out, (q, k, v), grad)

    return prepare


def _compare(
    batch: Batch, sides: dict[str, Any], device: torch.device, repeats: int, limits: dict[str, float],
    dtype: torch.dtype, work: float,
) -> dict[str, Any]:  # fmt: skip
    """Times, ratios, and the fractions of the machine's rates at which the work that must be done was done."""
    times = interleaved(sides, device, repeats)
    flops, moved = work * batch.flops(), (1 if work == 1 else 2) * batch.bytes(dtype.itemsize)
    result = {}
    for name, values in times.items():
        took = median(values)
        result[name] = {
            "ms": took * 1e3, "ratio": speedup(times, name, "ours"), "flops": flops, "bytes": moved,
            "gemm_fraction": flops / took / limits["flops_per_s"],
            "copy_fraction": moved / took / limits["bytes_per_s"],
            "roofline_fraction": max(flops / limits["flops_per_s"], moved / limits["bytes_per_s"]) / took,
        }  # fmt: skip
    return result


def _branches(
    batch: Batch, ways: list[Way], device: torch.device, dtype: torch.dtype, repeats: int
) -> dict[str, Any]:
    """Forward and backward of the whole branch. Raises SystemExit where losses or gradients do not agree."""
    branch = Branch.random(batch, dtype)
    shape = batch.shape
    image = torch.randn(shape.images, shape.keys, shape.dim, device=device).to(dtype).requires_grad_()
    queries = {way.name: _inputs(way, dtype)[0] for way in ways}
    leaves = [image, *queries.values(), *branch.leaves()]

    def prepare(way: Way) -> Callable[[], Any]:
        for x in leaves:
            x.grad = None
        return lambda: branch.loss(way, queries[way.name], image).backward()

    _check_branch(ways, prepare, image, TOLERANCE[dtype])
    times = interleaved({way.name: partial(prepare, way) for way in ways}, device, max(repeats // 2, 3))
    peaks = {way.name: peak_bytes(prepare(way), device) for way in ways}
    return {
        name: {
            "ms": median(values) * 1e3, "ratio": speedup(times, name, "ours"), "peak_bytes": peaks[name],
            "peak_ratio": peaks[name] / peaks["ours"],
        } for name, values in times.items()
    }  # fmt: skip


def _check_branch(
    ways: list[Way], prepare: Callable[[Way], Callable[[], Any]], image: Tensor, tolerance: float
) -> None:
    grads = []
    for way in ways:
        prepare(way)()
        grads.append(image.grad)
    for way, grad in zip(ways, grads, strict=True):
        off = float((grad - grads[-1]).abs().max() / grads[-1].abs().max())
        if not off <= tolerance:
            raise SystemExit(f"{way.name}: gradients of the image are off by {off:.1e}: nothing measured")


def write_trace(shape: Shape, device: torch.device, dtype: torch.dtype, path: Path) -> None:
    """A torch profiler trace of the branch, ours."""
    batch = make_batch(shape, device)
    way, branch = Way(batch), Branch.random(batch, dtype)
    q = _inputs(way, dtype)[0]
    image = torch.randn(shape.images, shape.keys, shape.dim, device=device).to(dtype).requires_grad_()
    branch.loss(way, q, image).backward()
    with torch.profiler.profile() as profile:
        branch.loss(way, q, image).backward()
    profile.export_chrome_trace(str(path))
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def _header(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    limits = {"flops_per_s": gemm_rate(device, dtype), "bytes_per_s": copy_bandwidth(device)}
    print(f"{machine(device)}; {args.threads} threads; {args.dtype}; kernels: {chosen(device, dtype).name}")
    print(f"GEMM {limits['flops_per_s'] / 1e9:.0f} GFLOP/s, copy {limits['bytes_per_s'] / 1e9:.1f} GB/s")
    return {
        "command": "python " + " ".join(sys.argv), "device": machine(device), "dtype": args.dtype,
        "threads": args.threads, "repeats": args.repeats, "commit": commit(), "torch": torch.__version__,
        "backend": chosen(device, dtype).name, "machine": limits, "shapes": [],
    }  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=list(DTYPES))
    parser.add_argument("--shapes", default="quick", choices=list(SHAPES), help=f"the first is {TARGET.name}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15, help="of attention; the branch takes half as many")
    parser.add_argument(
        "--flex", action=argparse.BooleanOptionalAction, help="FlexAttention (default: on cuda)"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--profile", type=Path, help="write a torch profiler trace of the branch, ours")
    args = parser.parse_args()
    if args.flex is None:
        args.flex = args.device == "cuda"
    return args


if __name__ == "__main__":
    main()
