"""`region_attention` and `varlen_attention`: one set of kernels, with and without boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.dropout import threshold
from relvlm_kernels.reference.attention import Gradients
from relvlm_kernels.regions import Regions
from relvlm_kernels.triton import plan, tiles
from relvlm_kernels.triton.kernels.backward import attention_backward_kv, attention_backward_q
from relvlm_kernels.triton.kernels.forward import attention_forward
from relvlm_kernels.triton.launch import cdiv, dense_rows, launch, power_of_2

LOG2_E = 1.4426950408889634
MOST_BITS = 30  # rows and columns of a grid that `masks.see` can hold in one word


@dataclass(frozen=True)
class _Owners:
    """Who owns queries and keys: images (with boxes) or sequences.

    count: how many; keys: of an image, or of all sequences; grid and prefix: of an image.
    """

    count: int
    starts: Tensor
    table: Tensor
    with_mean: Tensor
    key_starts: Tensor
    keys: int
    prefix: int
    grid: tuple[int, int]
    boxed: bool

    @property
    def keys_each(self) -> int:
        return self.keys if self.boxed else cdiv(self.keys, max(1, self.count))


@dataclass(frozen=True)
class _Dropout:
    rate: float
    seed: Tensor | None

    def arguments(self, like: Tensor) -> dict[str, Any]:
        return {
            "seed": self.seed if self.seed is not None else like,
            "keep_scale": 1 / (1 - self.rate),
            "threshold": _signed(threshold(self.rate)),
            "DROPOUT": self.rate > 0,
        }


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention`."""
    return _forward(q, k, v, _images(regions, q, k), scale, _Dropout(dropout, seed))


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    return _backward(
        grad, q, k, v, out, lse, _images(regions, q, k, to is not None), scale, _Dropout(dropout, seed), to
    )


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    scale: float,
    dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See `ops.varlen_attention`."""
    return _forward(q, k, v, _sequences(cu_q, cu_k, k), scale, _Dropout(dropout, seed))


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    return _backward(grad, q, k, v, out, lse, _sequences(cu_q, cu_k, k), scale, _Dropout(dropout, seed), to)


def _images(regions: Regions, q: Tensor, k: Tensor, partial: bool = False) -> _Owners:
    rows = plan.by_image(
        regions.offsets,
        regions.image,
        regions.box,
        regions.prefix,
        regions.mean,
        k.shape[0],
        q.shape[0],
        partial,
    )
    patches = regions.grid[0] * regions.grid[1]
    return _Owners(
        k.shape[0], rows.starts, rows.table, rows.with_mean, rows.starts, k.shape[1], k.shape[1] - patches,
        regions.grid, True,
    )  # fmt: skip


def _sequences(cu_q: Tensor, cu_k: Tensor, k: Tensor) -> _Owners:
    starts, key_starts = cu_q.to(torch.int32).contiguous(), cu_k.to(torch.int32).contiguous()
    return _Owners(len(cu_q) - 1, starts, starts, starts, key_starts, k.shape[0], 0, (1, 1), False)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, owners: _Owners, scale: float, dropout: _Dropout
) -> tuple[Tensor, Tensor]:
    q, k, v = dense_rows(q), dense_rows(k), dense_rows(v)
    out, lse = _new(q.shape, q), _new(q.shape[:2], q, torch.float32)
    tile = tiles.forward(_padded(q), q.dtype)
    splits = _splits(len(q), owners, tile)
    arguments = _arguments(q, k, v, owners, scale, dropout, tile) | {"out": out, "lse": lse, "splits": splits}
    _launch(attention_forward, owners.count * q.shape[1] * splits, arguments, tile)
    if not owners.count:
        out.zero_()
        lse.fill_(-torch.inf)
    return out, lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, owners: _Owners, scale: float,
    dropout: _Dropout, to: Gradients | None,
) -> Gradients:  # fmt: skip
    grad, q, k, v = (dense_rows(x) for x in (grad, q, k, v))
    wanted = to or tuple(_new(x.shape, x) for x in (q, k, v))
    dq, dk, dv = found = _writable(*wanted)
    stats = _new((3, *lse.shape), q, torch.float32)
    saved: dict[str, Any] = {
        "grad": grad, "lse": lse.contiguous(), "stats": stats, "grad_scale": scale,
        **_places(grad=grad),
    }  # fmt: skip
    programs = owners.count * q.shape[1]

    tile = tiles.backward_q(_padded(q), q.dtype)
    splits = _splits(len(q), owners, tile)
    arguments = saved | _arguments(q, k, v, owners, scale, dropout, tile)
    arguments |= {"out": out.contiguous(), "dq": dq, "splits": splits}
    _launch(attention_backward_q, programs * splits, arguments, tile)

    tile = tiles.backward_kv(_padded(q), q.dtype)
    splits = cdiv(owners.keys_each, tile.keys)
    arguments = saved | _arguments(q, k, v, owners, scale, dropout, tile)
    arguments |= {"dk": dk, "dv": dv, "splits": splits, "PARTS": _parts(dk)}
    _launch(attention_backward_kv, programs * splits, arguments, tile)
    for a, b in zip(found, wanted, strict=True):
        if not owners.count:
            a.zero_()
        if a is not b:
            b.copy_(a)
    return wanted


def _writable(dq: Tensor, dk: Tensor, dv: Tensor) -> Gradients:
    """These where the kernels can write them, else copies."""
    if not _parts(dk) or dk.stride() != dv.stride():
        dk, dv = dk.contiguous(), dv.contiguous()
    return dq.contiguous(), dk, dv


def _parts(x: Tensor) -> int:
    """Of how many parts like `x` (..., H, D) its rows consist, evenly; 0 where they do not."""
    parts, more = divmod(x.stride(-3), x.shape[-2] * x.shape[-1])
    one_run = x.dim() == 3 or x.stride(0) == x.shape[1] * x.stride(1)
    dense = x.stride(-2) == x.shape[-1] and x.stride(-1) == 1
    return parts if dense and one_run and not more else 0


def _splits(queries: int, owners: _Owners, tile: tiles.Tile) -> int:
    """Programs per owner and head: as many as tiles of queries on average; whoever has more goes round again."""
    return max(1, cdiv(queries, max(1, owners.count) * tile.queries))


def _arguments(
    q: Tensor, k: Tensor, v: Tensor, owners: _Owners, scale: float, dropout: _Dropout, tile: tiles.Tile
) -> dict[str, Any]:
    """What all attention kernels take."""
    strides = {f"{name}_owner": x.stride(0) for name, x in (("k", k), ("v", v))}
    return strides | _places(q=q, k=k, v=v) | dropout.arguments(owners.starts) | {
        "q": q, "k": k, "v": v, "starts": owners.starts, "table": owners.table, "with_mean": owners.with_mean,
        "key_starts": owners.key_starts, "scale": scale * LOG2_E, "rows": len(q), "heads": q.shape[1],
        "keys": owners.keys, "prefix": owners.prefix, "width": owners.grid[1], "D": q.shape[2],
        "BLOCK_D": _padded(q), "BLOCK_Q": tile.queries, "BLOCK_K": tile.keys, "BOXED": owners.boxed,
        "BITS": max(owners.grid) <= MOST_BITS,
    }  # fmt: skip


def _places(**tensors: Tensor) -> dict[str, int]:
    """Strides of rows and heads."""
    strides = {f"{name}_row": x.stride(-3) for name, x in tensors.items()}
    return strides | {f"{name}_head": x.stride(-2) for name, x in tensors.items()}


def _launch(kernel: Any, programs: int, arguments: dict[str, Any], tile: tiles.Tile) -> None:
    launch(kernel, programs, arguments, tile.warps, tile.stages, tile.registers)


def _padded(q: Tensor) -> int:
    """Head width as the kernels hold it."""
    return max(16, power_of_2(q.shape[-1]))


def _new(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device)


def _signed(word: int) -> int:
    """The int32 with the bits of this uint32."""
    return word - (1 << 32) if word >= 1 << 31 else word
