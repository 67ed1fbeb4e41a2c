"""One packed pass of the fusion encoder for all that the objectives of a batch want of it.

Legend: T packed text tokens, G groups, n rows that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.packing import gather_rows
from relvlm.encoders.spans import fuse_spans
from relvlm.pretraining.encode import EncodedTexts, EncodedViews
from relvlm.pretraining.savings import ALL_SAVINGS, Savings
from relvlm_kernels import Regions


class FusionQuery(NamedTuple):
    """Text `texts[i]` looks at view `views[i]`; `rows` (increasing) of their packed tokens are read.

    Without `rows`, each text's first one is ([CLS]). Where the number of `tokens` of every query is given, nothing is
    read back from the device.
    """

    texts: Tensor
    views: Tensor
    rows: Tensor | None = None
    tokens: int | None = None


def fused_pass(
    fusion: FusionEncoder,
    texts: EncodedTexts,
    views: EncodedViews,
    queries: Sequence[FusionQuery],
    savings: Savings = ALL_SAVINGS,
) -> list[Tensor]:
    """The fused rows (n, D) that each query reads; all of them go through in one packed batch."""
    if savings.one_pass:
        return _one_pass(fusion, texts, views, queries, savings)
    return [rows for query in queries for rows in _one_pass(fusion, texts, views, [query], savings)]


def _one_pass(
    fusion: FusionEncoder,
    texts: EncodedTexts,
    views: EncodedViews,
    queries: Sequence[FusionQuery],
    savings: Savings,
) -> list[Tensor]:
    view_G = torch.cat([query.views for query in queries])
    rows, offsets = gather_rows(texts.cu, torch.cat([query.texts for query in queries]), _tokens(queries))
    reads = _rows_to_read(queries, offsets.long())
    read = torch.cat(reads)
    x_TD = texts.tokens_TD[rows]
    if savings.read_rows:
        fused = _fuse(fusion, x_TD, offsets, views, view_G, read, savings.shared_keys)
    else:
        fused = _fuse(fusion, x_TD, offsets, views, view_G, None, savings.shared_keys)[read]
    return list(fused.split([len(part) for part in reads]))


def _fuse(
    fusion: FusionEncoder,
    x_TD: Tensor,
    offsets: Tensor,
    views: EncodedViews,
    view_G: Tensor,
    read: Tensor | None,
    shared_keys: bool,
) -> Tensor:
    """Fused tokens (T, D), or the rows `read` of them, of groups that look at the views `view_G`."""
    if not isinstance(views.views, Regions):
        assert views.key_cu is not None
        return fuse_spans(fusion, x_TD, offsets, views.tokens, views.key_cu, views.views[view_G], read)
    regions, tokens = views.views.pick(view_G, offsets), views.tokens
    if not shared_keys:
        tokens = tokens[regions.image.long()]
        regions = replace(regions, image=torch.arange(len(view_G), dtype=torch.int32, device=view_G.device))
    return fusion(x_TD, tokens, regions, read)


def _tokens(queries: Sequence[FusionQuery]) -> int | None:
    """How many text tokens all queries have, None where only the device knows."""
    known = [query.tokens for query in queries if query.tokens is not None]
    return sum(known) if len(known) == len(queries) else None


def _rows_to_read(queries: Sequence[FusionQuery], offsets: Tensor) -> list[Tensor]:
    read, first = [], 0
    for query in queries:
        starts = offsets[first : first + len(query.texts)]
        read.append(starts if query.rows is None else query.rows + offsets[first])
        first += len(query.texts)
    return read
