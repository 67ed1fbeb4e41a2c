"""Ways to attend from regions to their boxes: ours, and what one would write without a kernel.

A way has queries in the layout it likes best, prepared outside of what is timed, as are masks; `attend` takes them with
keys and values, `keys_of` says how those come from the image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from support.shapes import Batch
from torch import Tensor

from relvlm_kernels import mrc_pool, region_attention, region_cross_attention

Weights = dict[str, tuple[Tensor, Tensor]]  # weight and bias of each linear layer
RELATIONS, HIDDEN = 310, 3072  # of GQA's graphs; of the MRC head at base size


class Way:
    """Queries packed, keys and values once per image."""

    name = "ours"
    backward = True

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.device = batch.lengths.device
        self.packed = torch.arange(int(batch.lengths.sum()), device=self.device)
        self.cls = batch.regions.offsets[
            :-1
        ].long()  # place of each region's first token in `pack(attend(...))`

    def layout(self, q_THD: Tensor) -> Tensor:
        """The packed queries as this way wants them."""
        return q_THD

    def rows(self, out: Tensor) -> Tensor:
        """The packed rows of what `attend` returns."""
        return out.flatten(0, -3)[self.place()] if out.dim() > 3 else out

    def place(self) -> Tensor:
        return self.packed

    def tokens(self, image_BSD: Tensor) -> Tensor:
        """Image tokens to project keys and values from."""
        return image_BSD

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return region_attention(q, k, v, self.batch.regions)

    def cross_attend(self, q: Tensor, image_BSD: Tensor, weights: Weights) -> Tensor:
        """Attention to keys and values that are projected from the image tokens, as the fusion encoder does it."""
        return region_cross_attention(q, image_BSD, *weights["kv"], self.batch.regions)

    def pool(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """First layer of the MRC head from rows (T, D) of all tokens."""
        return mrc_pool(h, self.cls[0::2], self.cls[1::2], weight, bias)


class _Padded(Way):
    """Queries padded to `shape`: row `place[t]` holds packed row t."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self._place, self.shape = self.padding()
        self.cls = self._place[self.cls]
        self.mask = self.make_mask()

    def padding(self) -> tuple[Tensor, tuple[int, int]]:
        raise NotImplementedError

    def make_mask(self) -> Tensor:
        raise NotImplementedError

    def place(self) -> Tensor:
        return self._place

    def layout(self, q_THD: Tensor) -> Tensor:
        flat = q_THD.new_zeros(self.shape[0] * self.shape[1], *q_THD.shape[1:])
        return flat.index_copy(0, self._place, q_THD).view(*self.shape, *q_THD.shape[1:])

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mask = self.mask.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    def cross_attend(self, q: Tensor, image_BSD: Tensor, weights: Weights) -> Tensor:
        tokens = self.tokens(image_BSD)
        k, v = (F.linear(tokens, *weights[name]).unflatten(-1, q.shape[-2:]) for name in ("key", "value"))
        del tokens
        return self.attend(q, k, v)

    def pool(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pair = torch.cat([h[self.cls[0::2]], h[self.cls[1::2]]], dim=-1)
        return F.linear(pair, weight, bias).relu()


class Replicated(_Padded):
    """X-VLM's: every region has its copy of the image, whose keys and values are projected, and a mask over it."""

    name = "replicate"

    def padding(self) -> tuple[Tensor, tuple[int, int]]:
        lengths = self.batch.lengths
        longest = int(lengths.max())
        group = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), lengths)
        column = self.packed - self.batch.regions.offsets[group]
        return group * longest + column, (len(lengths), longest)

    def make_mask(self) -> Tensor:
        hidden = ~self.batch.visible[:, None, None]
        return torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, -1e9)

    def tokens(self, image_BSD: Tensor) -> Tensor:
        return image_BSD[self.batch.regions.image.long()]


class Masked(_Padded):
    """All queries of an image beside each other over one copy of its keys and values, under a dense mask."""

    name = "packed mask"

    def padding(self) -> tuple[Tensor, tuple[int, int]]:
        shape, lengths = self.batch.shape, self.batch.lengths.view(self.batch.shape.images, -1).sum(1)
        longest = int(lengths.max())
        image = torch.repeat_interleave(torch.arange(shape.images, device=self.device), lengths)
        starts = lengths.cumsum(0) - lengths
        return image * longest + self.packed - starts[image], (shape.images, longest)

    def visible_to_queries(self) -> Tensor:
        """(B, Q, S) bool; padding sees everything."""
        visible = self.batch.visible.repeat_interleave(self.batch.lengths, dim=0)
        flat = visible.new_ones(self.shape[0] * self.shape[1], visible.shape[1])
        return flat.index_copy_(0, self._place, visible).view(*self.shape, -1)

    def make_mask(self) -> Tensor:
        hidden = ~self.visible_to_queries()[:, None]
        return torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, -torch.inf)


class Flex(Masked):
    """FlexAttention with a block mask. Its backward is refused on the CPU."""

    name = "flex"

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.backward = self.device.type != "cpu"
        self.compiled = _flex()

    def make_mask(self) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        visible = self.visible_to_queries()
        return create_block_mask(
            lambda b, h, q, k: visible[b, q, k], self.shape[0], None, self.shape[1], visible.shape[2],
            device=self.device.type,
        )  # fmt: skip

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return self.compiled(q, k, v, block_mask=self.mask).transpose(1, 2)


class Xformers(Masked):
    """xformers' memory-efficient attention with the dense mask as its bias."""

    name = "xformers"

    def make_mask(self) -> Tensor:
        hidden = ~self.visible_to_queries()
        keys = hidden.shape[-1]
        aligned = torch.zeros(
            *hidden.shape[:2], -(-keys // 8) * 8, device=self.device
        )  # it wants rows of 16 bytes
        aligned[..., :keys].masked_fill_(hidden, -torch.inf)
        return aligned

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from xformers.ops import memory_efficient_attention

        bias = self.mask.to(q.dtype)[:, None].expand(-1, q.shape[2], -1, -1)[..., : k.shape[1]]
        return memory_efficient_attention(q, k, v, attn_bias=bias)


def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@dataclass(frozen=True)
class Branch:
    """The MRC branch behind the queries: projections, attention, pooling, loss. Weights as `torch.nn.Linear`'s.

    `kv` holds those of `key` and `value` in one layer, as the fusion encoder does.
    """

    weights: Weights
    relation_R: Tensor

    @classmethod
    def random(cls, batch: Batch, dtype: torch.dtype) -> Branch:
        dim, device = batch.shape.dim, batch.lengths.device
        shapes = {
            "key": (dim, dim), "value": (dim, dim), "out": (dim, dim), "first": (HIDDEN, 2 * dim),
            "second": (RELATIONS, HIDDEN),
        }  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        weights: Weights = {}
        for name, shape in shapes.items():
            weight = torch.randn(shape, generator=generator, dtype=torch.float64) * shape[1] ** -0.5
            bias = torch.randn(shape[0], generator=generator, dtype=torch.float64) * 0.1
            weights[name] = weight.to(device, dtype), bias.to(device, dtype)
        key, value = weights["key"], weights["value"]
        weights["kv"] = torch.cat([key[0], value[0]]), torch.cat([key[1], value[1]])
        triplets = len(batch.lengths) // 2
        relation = torch.randint(RELATIONS, (triplets,), generator=generator).to(device)
        branch = cls(weights, relation)
        for x in branch.leaves():
            x.requires_grad_()
        return branch

    def leaves(self) -> list[Tensor]:
        return [x for layer in self.weights.values() for x in layer]

    def loss(self, way: Way, q: Tensor, image_BSD: Tensor) -> Tensor:
        """`q` in the way's layout."""
        attended = way.cross_attend(q, image_BSD, self.weights)
        h = F.linear(attended.flatten(-2), *self.weights["out"]).flatten(0, -2)
        hidden = way.pool(h, *self.weights["first"])
        return F.cross_entropy(F.linear(hidden, *self.weights["second"]).float(), self.relation_R)
