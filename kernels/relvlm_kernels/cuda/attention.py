"""`region_attention` and `varlen_attention` of the `cuda` backend, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cuda import library
from relvlm_kernels.cuda.library import Call, Index, Launch, Plan, int32
from relvlm_kernels.dropout import threshold
from relvlm_kernels.eager import Gradients
from relvlm_kernels.regions import Regions

TILE_ROWS = 64  # mirrors csrc/cuda/call.h
VIEW, ITEM, TILE, STATE = 8, 4, 4, 4  # words of `View`, `Item`, `Tile`, `RowState`
ALIGNMENT = 16  # bytes


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention` and, for lse, `eager`."""
    return _forward(q, k, v, regions, scale, dropout, seed)


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    return _backward(grad, q, k, v, out, lse, regions, scale, dropout, seed, to)


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    return _forward(q, k, v, (cu_q, cu_k), scale, dropout, seed)


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    return _backward(grad, q, k, v, out, lse, (cu_q, cu_k), scale, dropout, seed, to)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, index: Regions | tuple[Tensor, Tensor], scale: float,
    dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    width = q.shape[2]
    q, k, v = _padded(q, k, v)
    call = _call(q, k, v, index, scale, dropout, seed)
    out, lse = _output(q), q.new_empty(q.shape[:2], dtype=torch.float32)
    call.point(out=out, lse=lse)
    if call.struct.items:
        call.run("attention")
    else:
        out.zero_()
        lse.fill_(-torch.inf)
    return out[..., :width], lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    index: Regions | tuple[Tensor, Tensor], scale: float, dropout: float, seed: Tensor | None,
    to: Gradients | None,
) -> Gradients:  # fmt: skip
    width = q.shape[2]
    grad, q, k, v, out = _padded(grad, q, k, v, out)
    call = _call(q, k, v, index, scale, dropout, seed)
    _point_at_rows(call, "grad", grad)
    states = lse.new_empty(lse.numel(), STATE)
    wanted = _padded(*to) if to else (_output(q), _output(k), _output(v))
    dq = _dense(wanted[0])
    call.point(saved=out.contiguous(), lse=lse.contiguous(), states=states, dq=dq)
    grads = dq, _point_at_rows(call, "dk", wanted[1]), _point_at_rows(call, "dv", wanted[2])
    call.set(backward=1, partial=to is not None)
    if call.struct.items:
        call.run("attention")
    else:
        for x in grads:
            x.zero_()
    found = tuple(x[..., :width] for x in grads)
    for a, b in zip(found, to or found, strict=True):
        if a.data_ptr() != b.data_ptr():  # padded, or laid out in a way that no kernel writes
            b.copy_(a)
    return to or found


def _padded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Heads as wide as the next kernel's: zeros change neither scores nor the outputs that are kept."""
    width = tensors[0].shape[-1]
    wanted = library.padded_width(width)
    if wanted is None:
        raise ValueError(f"heads of {width}: the cuda kernels go up to {library.WIDTHS[-1]}")
    return tuple(torch.nn.functional.pad(x, (0, wanted - width)) if wanted > width else x for x in tensors)


def _call(
    q: Tensor, k: Tensor, v: Tensor, index: Regions | tuple[Tensor, Tensor], scale: float,
    dropout: float, seed: Tensor | None,
) -> Launch:  # fmt: skip
    call = Launch(Call(), q)
    for name, x in (("q", q), ("k", k), ("v", v)):
        _point_at_rows(call, name, x)
    queries, heads, width = q.shape
    call.set(queries=queries, keys=k.shape[:-2].numel(), heads=heads, width=width)
    call.set(scale=scale, dropout=dropout, kept=1 / (1 - dropout), threshold=threshold(dropout))
    call.point(seed=seed if dropout else None)
    if isinstance(index, Regions):
        _index_regions(call, index, k)
    else:
        _index_sequences(call, *index)
    _plan(call, q)
    return call


def _point_at_rows(call: Launch, name: str, x: Tensor) -> Tensor:
    """Rows may lie apart (a slice of a joint projection); other layouts are copied. What is pointed at."""
    one_run = x.dim() == 3 or x.stride(0) == x.shape[1] * x.stride(1)
    strides = x.stride(-3), x.stride(-2)
    aligned = not any(n % ALIGNMENT for n in (x.data_ptr(), *(n * x.element_size() for n in strides)))
    if x.stride(-1) != 1 or not one_run or not aligned or x.is_contiguous():
        strides = x.shape[-2] * x.shape[-1], x.shape[-1]  # a dimension of size 1 has any stride
        x = _dense(x)
    call.point(**{name: x})
    call.set(**{f"{name}_row": strides[0], f"{name}_head": strides[1]})
    return x


def _dense(x: Tensor) -> Tensor:
    """`x`, contiguous and aligned."""
    x = x.contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()


def _index_regions(call: Launch, regions: Regions, k: Tensor) -> None:
    tensors = {name: int32(getattr(regions, name)) for name in ("offsets", "image", "box")}
    tensors |= {name: getattr(regions, name).contiguous() for name in ("prefix", "mean")}
    call.struct.index = Index(
        count=len(regions.image), grid_rows=regions.grid[0], grid_columns=regions.grid[1], tokens=k.shape[1],
        **{name: x.data_ptr() for name, x in tensors.items()},
    )  # fmt: skip
    call.keep(*tensors.values())
    call.set(items=k.shape[0])


def _index_sequences(call: Launch, cu_q: Tensor, cu_k: Tensor) -> None:
    cu_q, cu_k = int32(cu_q), int32(cu_k)
    call.struct.index = Index(offsets=cu_q.data_ptr(), key_offsets=cu_k.data_ptr(), count=len(cu_q) - 1)
    call.keep(cu_q, cu_k)
    call.set(items=len(cu_q) - 1)


def _plan(call: Launch, like: Tensor) -> None:
    """Room for the plan, which the device fills: its sizes follow from the shapes alone."""
    struct = call.struct
    tiles = struct.queries // TILE_ROWS + struct.items, struct.keys // TILE_ROWS + struct.items
    sizes = [struct.queries * VIEW, struct.items * ITEM, *(TILE * n for n in tiles)]
    room = like.new_empty(sum(sizes), dtype=torch.int32)
    struct.plan = Plan(*(part.data_ptr() for part in room.split(sizes)))
    call.keep(room)


def _output(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)
