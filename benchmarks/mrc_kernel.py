"""Region attention and the whole MRC branch: ours against the ways without a kernel, all in one run.

    python benchmarks/mrc_kernel.py                       # a few shapes on the CPU
    python benchmarks/mrc_kernel.py --shapes full --flex  # all, and FlexAttention (a minute of compiling)
    python benchmarks/mrc_kernel.py --device cuda --json out.json --plot out.png --profile trace.json  # in bf16

Ways: `replicate` copies an image for each region and projects its keys and values there, under a mask (X-VLM's);
`packed mask` projects them once per image and gives SDPA a mask over all queries of the image; `flex` is
FlexAttention with a block mask; `flash` packed FlashAttention over the tokens of every box, gathered (on a GPU);
`xformers` where it can be imported. The first shape comes a second time as training has it, with a mean token and
dropout. Every way is compared with fp64 before it is timed: one that is off, or fails, is a row that says so. Times
are medians of interleaved repeats, ratios medians of the repeats' ratios; on a GPU they are replays of 20 calls over
inputs that no cache holds. Memory is the most that tensors held beyond inputs, weights and their gradients (the C++
kernels keep below 1 MiB of scratch per thread beside). As in training, there are no gradients when a repeat begins,
and the C library keeps what is freed (up to 32 MiB a tensor). The JSON is written after every shape.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from agreement import drawn
from attention_times import Limits, checked, compare, made_ways
from flash_ways import FlashBoxes
from measuring import commit, copy_bandwidth, gemm_rate, machine, output_file
from mrc_branch import Branch, measure_branch
from mrc_report import markdown, plot, print_table, waterfall
from mrc_ways import Flex, Masked, Ours, Replicated, Way, Xformers
from support.shapes import QUICK, SHAPES, TARGET, Shape, as_trained, for_cuda, make_batch, toy
from timing import count_cpu_seconds

from relvlm_kernels import chosen, cpu
from relvlm_kernels.malloc import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.cpu_seconds:
        count_cpu_seconds()
    device, dtype = torch.device(args.device), DTYPES[args.dtype]
    result = _header(args, device, dtype)
    for shape in _shapes(args):
        row = measure(shape, device, dtype, args, result["machine"])
        result["shapes"].append(row)
        print_table(row)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
            args.json.with_suffix(".md").write_text(markdown(result))
    print(waterfall(result["shapes"][0]))
    if args.plot:
        plot(result, args.plot)
    if args.profile:
        write_trace(_shapes(args)[0], device, dtype, args.profile)


def measure(
    shape: Shape, device: torch.device, dtype: torch.dtype, args: argparse.Namespace, limits: Limits
) -> dict[str, Any]:
    """All ways at one shape; `refused` says which were not tried, `wrong` which failed or did not agree."""
    batch = make_batch(shape, device)
    kinds = [kind for kind in _kinds(device, args.flex) if not args.ways or kind.name in ("ours", *args.ways)]
    ways, refused = made_ways(batch, kinds)
    wrong = checked(ways, dtype)
    row: dict[str, Any] = {
        "shape": vars(shape), "groups": len(batch.lengths), "tokens": int(batch.lengths.sum()),
        "refused": refused, "wrong": wrong,
    }  # fmt: skip
    ways = [way for way in ways if "error" not in wrong.get(way.name, {})]
    for stage in ("forward", "backward"):
        row[stage] = compare(stage, ways, device, dtype, args.repeats, limits)
    branch = [w for w in ways if w.backward and args.branch]
    row["branch"] = measure_branch(batch, branch, device, dtype, args.repeats) if branch else {}
    return row


def _kinds(device: torch.device, flex: bool) -> list[type[Way]]:
    on_gpu = [FlashBoxes, *([Xformers] if find_spec("xformers") else [])]
    return [Ours, Replicated, Masked, *([Flex] if flex else []), *(on_gpu if device.type == "cuda" else [])]


def _shapes(args: argparse.Namespace) -> list[Shape]:
    if args.shapes == "toy":
        return [*map(toy, QUICK), toy(replace(TARGET, mean=True)), toy(as_trained(TARGET))]
    shapes = [*SHAPES[args.shapes], as_trained(TARGET)]
    return [for_cuda(shape) for shape in shapes] if args.device == "cuda" else shapes


def write_trace(shape: Shape, device: torch.device, dtype: torch.dtype, path: Path) -> None:
    """A torch profiler trace of the branch, ours."""
    batch = make_batch(shape, device)
    way, branch = Ours(batch), Branch.random(batch, dtype)
    q = drawn(way, dtype)[0]
    image = torch.randn(shape.images, shape.keys, shape.dim, device=device).to(dtype).requires_grad_()
    branch.loss(way, q, image).backward()
    with torch.profiler.profile() as profile:
        branch.loss(way, q, image).backward()
    profile.export_chrome_trace(str(path))
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def _header(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    n, size = (256, 1 << 20) if args.shapes == "toy" else (0, 0)
    limits = {"flops_per_s": gemm_rate(device, dtype, n=n), "bytes_per_s": copy_bandwidth(device, size=size)}
    print(f"{machine(device)}; {args.threads} threads; {args.dtype}; kernels: {chosen(device, dtype).name}")
    print(f"GEMM {limits['flops_per_s'] / 1e9:.0f} GFLOP/s, copy {limits['bytes_per_s'] / 1e9:.1f} GB/s")
    return {
        "command": "python " + shlex.join(sys.argv), "device": machine(device), "dtype": args.dtype,
        "instructions": cpu.instructions() if device.type == "cpu" and not cpu.missing() else "",
        "threads": args.threads, "repeats": args.repeats, "commit": commit(), "torch": torch.__version__,
        "backend": chosen(device, dtype).name, "machine": limits, "shapes": [],
    }  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on cuda, fp32 on the CPU")
    parser.add_argument("--shapes", default="quick", choices=[*SHAPES, "toy"], help=f"the first is {TARGET.name}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15, help="of attention; the branch takes half as many")
    parser.add_argument("--ways", nargs="+", help="names of those beside ours (default: all)")
    parser.add_argument("--no-branch", dest="branch", action="store_false", help="attention alone")
    parser.add_argument("--cpu-seconds", action="store_true", help="of the process, where others run: with --threads 1")
    parser.add_argument("--flex", action=argparse.BooleanOptionalAction, help="FlexAttention (default: on cuda)")
    parser.add_argument("--json", type=output_file)
    parser.add_argument("--plot", type=output_file)
    parser.add_argument("--profile", type=output_file, help="write a torch profiler trace of the branch, ours")
    args = parser.parse_args()
    args.dtype = args.dtype or ("bf16" if args.device == "cuda" else "fp32")
    if args.flex is None:
        args.flex = args.device == "cuda" or "flex" in (args.ways or ())
    there = [kind.name for kind in _kinds(torch.device(args.device), args.flex)]
    if unknown := [name for name in args.ways or () if name not in there]:
        parser.error(f"--ways: {', '.join(unknown)}: expected some of {', '.join(there)}")
    return args


if __name__ == "__main__":
    main()
