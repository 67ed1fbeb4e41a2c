"""Self-attention of the vision encoders: our packed kernels against PyTorch's ways, all in one run.

    python benchmarks/vision_attention.py --out benchmarks/results/vision_attention_cpu.md

All ways start from one joint projection (B, S, 3, H, D) and end in its gradient, as the encoders do. ViT: `SDPA` is
PyTorch's attention. Swin's windows, with a bias that has a gradient and a mask of shifted ones: `products` is softmax
between two matrix products, which keeps scores; `SDPA` has the bias as its mask, which PyTorch's fused kernels refuse
where that wants a gradient. Every way is compared with `ours` first. Times are medians of interleaved repeats, ratios
medians of the repeats' ratios; FLOPs are those of two products forward and five backward, whatever a way computes.
Memory is the most that tensors held during forward and backward, beyond those that were there before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from measuring import commit, gemm_rate, machine, output_file
from support.footprint import peak_bytes
from timing import Run, Times, count_cpu_seconds, interleaved, speedup
from torch import Tensor

from relvlm.encoders.swin import shift_mask
from relvlm_kernels import attention_qkvpacked, cpu, window_attention
from relvlm_kernels.malloc import keep_freed_memory
from relvlm_kernels.windows import by_matrix_products

CPU = torch.device("cpu")
HEAD = (
    "| shape | stage | way | ms | GFLOP/s | of GEMM rate | ours is faster | peak MiB |\n"
    "|---|---|---|---:|---:|---:|---:|---:|"
)
Way = Callable[..., Tensor]


@dataclass(frozen=True)
class Shape:
    """`batch` images, or windows of maps of `resolution` squared, of so many tokens."""

    name: str
    batch: int
    tokens: int
    heads: int
    width: int
    resolution: int = 0

    @property
    def flops(self) -> float:
        return 4 * self.batch * self.heads * self.tokens**2 * self.width


SHAPES = [
    Shape("ViT-B/16, 224 px", 8, 197, 12, 64),
    Shape("ViT-B/16, 384 px", 2, 577, 12, 64),
    Shape("Swin-B, first stage", 256, 49, 4, 32, 56),
    Shape("Swin-B, second stage", 128, 49, 8, 32, 28),
    Shape("Swin-B, third stage", 64, 49, 16, 32, 14),
]


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.cpu_seconds:
        count_cpu_seconds()
    gemm = gemm_rate(CPU, torch.float32)
    head = (
        f"`python {' '.join(sys.argv)}` at {commit()}: {machine(CPU)}, our kernels {cpu.instructions()}, "
        f"{args.threads} threads, fp32; GEMM {gemm / 1e9:.0f} GFLOP/s; torch {torch.__version__}.\n\n{HEAD}"
    )
    lines = [head]
    print(head)
    for shape in SHAPES:
        for line in rows(shape, args.repeats, gemm):
            print(line, flush=True)
            lines.append(line)
            if args.out:
                args.out.write_text("\n".join(lines) + "\n")


def rows(shape: Shape, repeats: int, gemm: float) -> Iterator[str]:
    """Lines of the table; RuntimeError where the ways differ."""
    tensors, ways = inputs(shape), ways_of(shape)
    check(ways, tensors)
    for stage, prepare, products in (("forward", forward, 1.0), ("backward", backward, 2.5)):
        times = interleaved({name: prepare(way, tensors) for name, way in ways.items()}, CPU, repeats)
        for name, found in times.items():
            peak = _peak(ways[name], tensors) if stage == "backward" else ""
            yield _line(shape, stage, name, found, times["ours"], shape.flops * products, gemm, peak)


def _peak(way: Way, tensors: list[Tensor]) -> str:
    return f"{peak_bytes(lambda: training(way, tensors), CPU) / 2**20:.1f}"


def _line(
    shape: Shape, stage: str, name: str, found: Times, ours: Times, flops: float, gemm: float, peak: str
) -> str:  # fmt: skip
    rate = flops / found.median
    ratio = "" if name == "ours" else f"{speedup(found, ours):.2f}x"
    cells = shape.name, stage, name, f"{found.median * 1e3:.2f}", f"{rate / 1e9:.0f}", f"{rate / gemm:.0%}", ratio, peak
    return f"| {' | '.join(cells)} |"


def inputs(shape: Shape) -> list[Tensor]:
    """qkv, then a window's bias; leaves."""
    torch.manual_seed(0)
    shapes: list[tuple[int, ...]] = [(shape.batch, shape.tokens, 3, shape.heads, shape.width)]
    shapes += [(shape.heads, shape.tokens, shape.tokens)] * bool(shape.resolution)
    return [torch.randn(size).requires_grad_() for size in shapes]


def ways_of(shape: Shape) -> dict[str, Way]:
    if not shape.resolution:
        return {"ours": attention_qkvpacked, "SDPA": by_sdpa}
    mask = shift_mask(shape.resolution, 7, 3)
    ways = {"ours": window_attention, "products": by_matrix_products, "SDPA": by_masked_sdpa}
    options = {"products": (shape.width**-0.5,)}
    return {name: _windows(way, mask, *options.get(name, ())) for name, way in ways.items()}


def _windows(way: Way, mask: Tensor, *options: float) -> Way:
    return lambda qkv, bias: way(qkv, bias, mask, *options)


def by_sdpa(qkv: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2)


def by_masked_sdpa(qkv: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    added = (bias + mask[:, None]).repeat(len(qkv) // len(mask), 1, 1, 1)
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), attn_mask=added).transpose(1, 2)


def check(ways: dict[str, Way], tensors: list[Tensor]) -> None:
    found = {name: _results(way, tensors) for name, way in ways.items()}
    for name, results in found.items():
        for a, b in zip(results, found["ours"], strict=True):
            if (a - b).abs().max() > 1e-4 * b.abs().max():
                raise RuntimeError(f"{name} is off from ours")


def _results(way: Way, tensors: list[Tensor]) -> list[Tensor]:
    out = way(*tensors)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), tensors)]


def forward(way: Way, tensors: list[Tensor]) -> Callable[[int], Run]:
    inputs = [x.detach() for x in tensors]
    return lambda _: lambda: way(*inputs)


def backward(way: Way, tensors: list[Tensor]) -> Callable[[int], Run]:
    def prepare(_: int) -> Run:
        out = way(*tensors)
        grad = torch.ones_like(out).contiguous()
        return lambda: torch.autograd.grad(out, tensors, grad)

    return prepare


def training(way: Way, tensors: list[Tensor]) -> None:
    backward(way, tensors)(0)()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cpu-seconds", action="store_true", help="of the process, where others run: with --threads 1")
    parser.add_argument("--out", type=output_file, help="write the table there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
