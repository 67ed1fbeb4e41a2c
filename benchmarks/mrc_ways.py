"""Ways to attend from texts to boxes of their images: ours, and what one would write without a kernel.

A way has queries in the layout it likes best, prepared outside of what is timed, as are masks; `attend` takes them with
keys and values, `tokens` says how those come from the image's. A mean token's key is the mean of keys: both are linear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from support.shapes import Batch, Shape
from torch import Tensor

from relvlm_kernels import box_mean, mrc_pool, region_attention, region_cross_attention

Weights = dict[str, tuple[Tensor, Tensor]]  # weight and bias of each linear layer


class Way:
    """Queries packed, in the order of their groups, and one copy of keys and values."""

    name: str
    backward = True

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.device, self.dropout = batch.lengths.device, batch.shape.dropout
        self.packed = torch.arange(int(batch.lengths.sum()), device=self.device)
        self.cls = batch.regions.offsets[:-1].long()  # place of each group's first token in what `attend` returns

    @classmethod
    def refuses(cls, shape: Shape) -> str:
        """Why it cannot attend like this; empty where it can."""
        return ""

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
        raise NotImplementedError

    def cross_attend(self, q: Tensor, image_BSD: Tensor, weights: Weights) -> Tensor:
        """Attention to keys and values that are projected from the image tokens."""
        tokens = self.tokens(image_BSD)
        k, v = (F.linear(tokens, *weights[name]).unflatten(-1, q.shape[-2:]) for name in ("key", "value"))
        del tokens
        return self.attend(q, k, v)

    def pool(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """First layer of the MRC head from rows (T, D) of all tokens."""
        pair = torch.cat([h[self.cls[0::2]], h[self.cls[1::2]]], dim=-1)
        return F.linear(pair, weight, bias).relu()


class Ours(Way):
    """The ops of relvlm_kernels, as the fusion encoder and the MRC head call them."""

    name = "ours"

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return region_attention(q, k, v, self.batch.regions, dropout=self.dropout)

    def cross_attend(self, q: Tensor, image_BSD: Tensor, weights: Weights) -> Tensor:
        return region_cross_attention(q, image_BSD, *weights["kv"], self.batch.regions, dropout=self.dropout)

    def pool(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
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
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout)
        return out.transpose(1, 2)


class Replicated(_Padded):
    """X-VLM's: every region has its copy of the image, whose keys and values are projected, and a mask over it.

    Its mean token takes the place of the copy's first one.
    """

    name = "replicate"

    def padding(self) -> tuple[Tensor, tuple[int, int]]:
        lengths = self.batch.lengths
        longest = int(lengths.max())
        group = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), lengths)
        column = self.packed - self.batch.regions.offsets[group]
        return group * longest + column, (len(lengths), longest)

    def make_mask(self) -> Tensor:
        visible = self.batch.visible
        visible[:, 0] |= self.batch.regions.mean
        hidden = ~visible[:, None, None]
        return torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, -1e9)

    def tokens(self, image_BSD: Tensor) -> Tensor:
        copies = image_BSD[self.batch.regions.image.long()]
        if not self.batch.shape.mean:
            return copies
        chosen = self.batch.regions.mean.view(-1, *[1] * (copies.dim() - 2))
        first = torch.where(chosen, mean_tokens(image_BSD, self.batch), copies[:, 0])
        return torch.cat([first[:, None], copies[:, 1:]], 1)


class Masked(_Padded):
    """All queries of an image beside each other over one copy of its keys and values, under a dense mask.

    The mean tokens of all its regions stand behind the image's own.
    """

    name = "packed mask"

    def padding(self) -> tuple[Tensor, tuple[int, int]]:
        shape, lengths = self.batch.shape, self.batch.lengths.view(self.batch.shape.images, -1).sum(1)
        longest = int(lengths.max())
        image = torch.repeat_interleave(torch.arange(shape.images, device=self.device), lengths)
        starts = lengths.cumsum(0) - lengths
        return image * longest + self.packed - starts[image], (shape.images, longest)

    def visible_to_queries(self) -> Tensor:
        """(B, Q, S + mean tokens) bool; padding sees everything."""
        visible, shape = self.batch.visible, self.batch.shape
        if shape.mean:
            own = torch.eye(shape.groups, dtype=torch.bool, device=self.device).repeat(shape.images, 1)
            visible = torch.cat([visible, own & self.batch.regions.mean[:, None]], 1)
        visible = visible.repeat_interleave(self.batch.lengths, dim=0)
        flat = visible.new_ones(self.shape[0] * self.shape[1], visible.shape[1])
        return flat.index_copy_(0, self._place, visible).view(*self.shape, -1)

    def tokens(self, image_BSD: Tensor) -> Tensor:
        if not self.batch.shape.mean:
            return image_BSD
        means = mean_tokens(image_BSD, self.batch).view(len(image_BSD), -1, *image_BSD.shape[2:])
        return torch.cat([image_BSD, means], 1)

    def make_mask(self) -> Tensor:
        hidden = ~self.visible_to_queries()[:, None]
        return torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, -torch.inf)


class Flex(Masked):
    """FlexAttention with a block mask. Its backward is refused on the CPU."""

    name = "flex"

    @classmethod
    def refuses(cls, shape: Shape) -> str:
        return "no dropout of probabilities" if shape.dropout else ""

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
        aligned = torch.zeros(*hidden.shape[:2], -(-keys // 8) * 8, device=self.device)  # it wants rows of 16 bytes
        aligned[..., :keys].masked_fill_(hidden, -torch.inf)
        return aligned

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from xformers.ops import memory_efficient_attention

        bias = self.mask.to(q.dtype)[:, None].expand(-1, q.shape[2], -1, -1)[..., : k.shape[1]]
        return memory_efficient_attention(q, k, v, attn_bias=bias, p=self.dropout)


def mean_tokens(x: Tensor, batch: Batch) -> Tensor:
    """(G, ...): the mean of each group's patches, of image tokens (B, S, ...)."""
    r = batch.regions
    return box_mean(x.flatten(2), r.box, r.image, r.grid).view(-1, *x.shape[2:])


@cache
def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
