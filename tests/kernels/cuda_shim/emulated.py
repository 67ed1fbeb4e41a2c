"""Runs the emulated CUDA kernels against the fp64 reference; a program of its own, since it preloads a sanitizer.

Arguments: the library, then cases `op:dtype:width:dropout`, `absent`, `pooling:dtype` or `limits`.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path

import torch
from support.attention_cases import NAMES, poisoning, results, wave

from relvlm_kernels import Regions, cuda, reference
from relvlm_kernels.cuda import library

GRID = (9, 15)
SCALE = 0.31
SEED = torch.tensor([-0x123456789ABCDEF])
BOUND = {torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def take(path: str) -> ctypes.CDLL:
    """Makes the backend run the library at `path` on CPU tensors."""
    library.LIBRARY.path = Path(path)
    torch.empty_like, torch.Tensor.new_empty = poisoning(torch.empty_like), poisoning(torch.Tensor.new_empty)
    library.current_device, library.current_stream = (lambda: 0), (lambda device: 0)
    return library.LIBRARY.loaded


def regions() -> Regions:
    """Groups of 0 to 70 tokens on images 0, 1 and 3 of four, not in order: one-patch and whole boxes, all flags.

    Five rows before them and 66 after are in no group.
    """
    lengths = torch.tensor([5, 3, 0, 70, 5, 1, 4, 6, 9])
    box = torch.tensor([
        [0, 0, 15, 9], [1, 1, 2, 2], [1, 4, 4, 8], [14, 8, 15, 9],
        [0, 0, 1, 1], [2, 5, 12, 6], [0, 0, 15, 9], [3, 0, 5, 2],
    ])  # fmt: skip
    image = torch.tensor([3, 0, 0, 3, 1, 0, 3, 3])
    prefix = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool()
    mean = torch.tensor([0, 1, 1, 1, 1, 0, 1, 0]).bool()
    return Regions(lengths.cumsum(0).int(), image.int(), box.int(), prefix, mean, GRID)


def case(op: str, width: int, heads: int = 2) -> tuple[list[torch.Tensor], tuple]:
    """With rows and keys that no group or sequence owns."""
    generator = torch.Generator().manual_seed(width)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if op == "region_attention":
        r = regions()
        keys = (4, 2 + GRID[0] * GRID[1], heads, width)
        return [draw(int(r.offsets[-1]) + 66, heads, width), draw(*keys), draw(*keys)], (r,)
    cu_q, cu_k = torch.tensor([2, 5, 5, 22, 24, 92]), torch.tensor([67, 137, 142, 143, 143, 163])
    return [draw(n, heads, width) for n in (94, 230, 230)], (cu_q.int(), cu_k.int())


def by_parts(module, tensors, index, dropout):
    """Gradients of region attention into one buffer, by two calls for some of the images each."""
    q, k, v = tensors
    rest = SCALE, dropout, SEED if dropout else None
    out, lse = module.region_attention(q, k, v, *index, *rest)
    dq, dkv = torch.empty_like(q), k.new_empty(*k.shape[:-2], 2, *k.shape[-2:])
    for part in (slice(0, 1), slice(1, 4)):
        of_part = replace(index[0], image=index[0].image - part.start)
        to = dq, *dkv[part].unbind(-3)
        module.region_attention_backward(wave(out), q, k[part], v[part], out, lse, of_part, *rest, to)
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
    exact = [x.double() for x in low]
    if op == "region_attention":
        found, wanted = (by_parts(m, x, index, float(dropout)) for m, x in ((cuda, low), (reference, exact)))
    else:
        rest = SCALE, float(dropout), SEED
        found, wanted = (results(m, op, x, index, *rest) for m, x in ((cuda, low), (reference, exact)))
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        check(f"{op} {dtype} {width} {dropout} {name}", a, b, BOUND[low[0].dtype])


def absent() -> None:
    """Images that are not there, no group, no sequence, no image: zeros."""
    tensors, (r,) = case("region_attention", 32)
    tensors = [x.float() for x in tensors]
    there = r.image.clone()
    there[[2, 5]] = torch.tensor([9, -1]).int()
    none = replace(r, offsets=r.offsets[:1], image=r.image[:0], box=r.box[:0], prefix=r.prefix[:0], mean=r.mean[:0])
    for name, index in (("absent", replace(r, image=there)), ("no group", none)):
        found, wanted = (results(m, "region_attention", tensors, (index,), SCALE) for m in (cuda, reference))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    no_images = [tensors[0], tensors[1][:0], tensors[2][:0]]
    zeros_of(results(cuda, "region_attention", no_images, (none,), SCALE))
    one = torch.tensor([3]).int()
    zeros_of(results(cuda, "varlen_attention", [tensors[0]] * 3, (one, one), SCALE))


def zeros_of(found: tuple[torch.Tensor, ...]) -> None:
    out, lse, *gradients = found
    assert not out.any() and lse.isneginf().all() and not any(x.any() for x in gradients)


def limits() -> None:
    """Wide heads need more shared memory than the emulated GPU has, as those of sm_86, 89 and 120."""
    torch.cuda.get_device_capability = lambda index: (8, 6)
    refused = {
        (dtype, width): cuda.refusal(torch.device("cuda", 0), dtype, width)
        for dtype in (torch.bfloat16, torch.float32) for width in (64, 80, 90, 96, 100, 128, 130)
    }  # fmt: skip
    wide = [key for key, reason in refused.items() if "shared memory, 101376 are there" in reason]
    assert [(str(dtype), width) for dtype, width in wide] == [
        ("torch.bfloat16", 100), ("torch.bfloat16", 128),
        *(("torch.float32", width) for width in (90, 96, 100, 128)),
    ], refused  # fmt: skip
    assert refused[torch.bfloat16, 130] == "no kernels for heads of 130"
    assert "need 106528 bytes" in refused[torch.bfloat16, 128]


def pooling(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    r, bound = regions(), BOUND[getattr(torch, dtype)]
    x = torch.randn(4, 2 + GRID[0] * GRID[1], 40, generator=generator).to(getattr(torch, dtype))
    grad = torch.randn(len(r.image), 40, generator=generator).to(x.dtype)
    image = r.image.clone()
    image[4] = 4  # is not there
    found, wanted = (m.box_mean(y, r.box, image, GRID) for m, y in ((cuda, x), (reference, x.double())))
    check("box_mean", found, wanted, bound)
    assert not found[4].any()
    wanted = reference.box_mean_backward(grad.double(), x.double(), r.box, image, GRID)
    check("dx", cuda.box_mean_backward(grad, x, r.box, image, GRID), wanted, bound)
    h, weight, bias = (torch.randn(*s, generator=generator).to(x.dtype) for s in [(9, 64), (70, 128), (70,)])
    for triplets in (7, 30):
        rows = torch.randint(9, (2, triplets), generator=generator)
        out = cuda.mrc_pool(h, *rows, weight, bias)
        exact = [t.double() for t in (h, weight, bias)]
        check("mrc_pool", out, reference.mrc_pool(exact[0], *rows, *exact[1:]), bound)
        grad = torch.randn(triplets, 70, generator=generator).to(x.dtype)
        found = cuda.mrc_pool_backward(grad, h, *rows, weight, bias, out)
        wanted = reference.mrc_pool_backward(grad.double(), exact[0], *rows, *exact[1:], out.double())
        for name, a, b in zip(("dh", "dweight", "dbias"), found, wanted, strict=True):
            check(name, a, b, bound)


def main(path: str, *cases: str) -> None:
    loaded = take(path)
    for number, chosen in enumerate(cases):
        loaded.relvlm_emulation(number % 2, number // 2 % 2)
        name, *arguments = chosen.split(":")
        checks = {"absent": absent, "limits": limits, "pooling": pooling}
        checks[name](*arguments) if name in checks else attention(name, *arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
