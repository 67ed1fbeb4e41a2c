"""Runs the emulated CUDA kernels against the fp64 reference; a program of its own, since it preloads a sanitizer.

Arguments: the library, then cases `op:dtype:width:dropout`.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from relvlm_kernels import Regions, cuda, eager
from relvlm_kernels.cuda import library

GRID = (9, 15)
SCALE = 0.31
SEED = torch.tensor([-0x123456789ABCDEF])
BOUND = {torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def take(path: str) -> ctypes.CDLL:
    """Makes the backend run the library at `path` on CPU tensors."""
    library.LIBRARY.path = Path(path)
    torch.cuda.device = lambda device: nullcontext()
    torch.cuda.current_stream = lambda: SimpleNamespace(cuda_stream=0)
    return library.LIBRARY.loaded


def regions(generator: torch.Generator) -> Regions:
    """Groups of 0 to 70 tokens on images 0, 1 and 3 of four, not in order: one-patch and whole boxes, all flags."""
    lengths = torch.tensor([3, 0, 70, 5, 1, 4, 6, 9])
    box = torch.tensor([
        [0, 0, 15, 9], [1, 1, 2, 2], [1, 4, 4, 8], [14, 8, 15, 9],
        [0, 0, 1, 1], [2, 5, 12, 6], [0, 0, 15, 9], [3, 0, 5, 2],
    ])  # fmt: skip
    image = torch.tensor([3, 0, 0, 3, 1, 0, 3, 3])
    prefix = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool()
    mean = torch.tensor([0, 1, 1, 1, 1, 0, 1, 0]).bool()
    offsets = torch.cat([torch.zeros(1), lengths.cumsum(0)])
    return Regions(offsets.int(), image.int(), box.int(), prefix, mean, GRID)


def case(op: str, width: int, heads: int = 2) -> tuple[list[torch.Tensor], tuple]:
    generator = torch.Generator().manual_seed(width)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if op == "region_attention":
        r = regions(generator)
        keys = (4, 2 + GRID[0] * GRID[1], heads, width)
        return [draw(int(r.offsets[-1]), heads, width), draw(*keys), draw(*keys)], (r,)
    cu_q, cu_k = torch.tensor([0, 3, 3, 20, 22, 90]), torch.tensor([0, 70, 75, 76, 76, 96])
    return [draw(n, heads, width) for n in (90, 96, 96)], (cu_q.int(), cu_k.int())


def results(module, op, tensors, index, dropout):
    """Gradients into one buffer; those of region attention by two calls, for some of the images each."""
    q, k, v = tensors
    seed = SEED if dropout else None
    out, lse = getattr(module, op)(q, k, v, *index, SCALE, dropout, seed)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().view(out.shape).to(out.dtype)
    backward, rest = getattr(module, f"{op}_backward"), (SCALE, dropout, seed)
    dq, dkv = torch.empty_like(q), k.new_empty(*k.shape[:-2], 2, *k.shape[-2:])
    if op == "varlen_attention":
        backward(grad, q, k, v, out, lse, *index, *rest, (dq, *dkv.unbind(-3)))
        return out, lse, dq, *dkv.unbind(-3)
    for part in (slice(0, 1), slice(1, 4)):
        regions = replace(index[0], image=index[0].image - part.start)
        backward(grad, q, k[part], v[part], out, lse, regions, *rest, (dq, *dkv[part].unbind(-3)))
    return out, lse, dq, *dkv.unbind(-3)


def check(name: str, found: torch.Tensor, wanted: torch.Tensor, bound: float) -> None:
    """Relative to the largest; infinities must agree."""
    finite = wanted.isfinite()
    assert torch.equal(found.isfinite(), finite), f"{name}: not finite where it should be, or the reverse"
    error = float((found.double() - wanted)[finite].abs().max() / wanted[finite].abs().max())
    print(f"{name}: {error:.1e}")
    assert error < bound, name


def attention(op: str, dtype: str, width: str, dropout: str) -> None:
    tensors, index = case(op, int(width))
    low = [x.to(getattr(torch, dtype)) for x in tensors]
    found = results(cuda, op, low, index, float(dropout))
    wanted = results(eager, op, [x.double() for x in low], index, float(dropout))
    for name, a, b in zip(("out", "lse", "dq", "dk", "dv"), found, wanted, strict=True):
        check(f"{op} {dtype} {width} {dropout} {name}", a, b, BOUND[low[0].dtype])


def pooling(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    r, bound = regions(generator), BOUND[getattr(torch, dtype)]
    x = torch.randn(4, 2 + GRID[0] * GRID[1], 40, generator=generator).to(getattr(torch, dtype))
    grad = torch.randn(len(r.image), 40, generator=generator).to(x.dtype)
    check(
        "box_mean",
        cuda.box_mean(x, r.box, r.image, GRID),
        eager.box_mean(x.double(), r.box, r.image, GRID),
        bound,
    )
    wanted = eager.box_mean_backward(grad.double(), x.double(), r.box, r.image, GRID)
    check("dx", cuda.box_mean_backward(grad, x, r.box, r.image, GRID), wanted, bound)
    h, weight, bias = (torch.randn(*s, generator=generator).to(x.dtype) for s in [(9, 64), (70, 128), (70,)])
    for triplets in (7, 30):
        rows = torch.randint(9, (2, triplets), generator=generator)
        out = cuda.mrc_pool(h, *rows, weight, bias)
        exact = [t.double() for t in (h, weight, bias)]
        check("mrc_pool", out, eager.mrc_pool(exact[0], *rows, *exact[1:]), bound)
        grad = torch.randn(triplets, 70, generator=generator).to(x.dtype)
        found = cuda.mrc_pool_backward(grad, h, *rows, weight, bias, out)
        wanted = eager.mrc_pool_backward(grad.double(), exact[0], *rows, *exact[1:], out.double())
        for name, a, b in zip(("dh", "dweight", "dbias"), found, wanted, strict=True):
            check(name, a, b, bound)


def main(path: str, *cases: str) -> None:
    loaded = take(path)
    for number, chosen in enumerate(cases):
        loaded.relvlm_emulation(number % 2, number // 2 % 2)
        name, *arguments = chosen.split(":")
        pooling(*arguments) if name == "pooling" else attention(name, *arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
