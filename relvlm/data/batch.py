"""The one shape of batch that all four kinds share: G groups, each a text that looks at an image (or a box of it).

Legend: B images, G groups, T packed text tokens, M masked tokens, R triplets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relvlm.data.regions import Region
from relvlm.data.transforms import normalise

BatchKind = Literal["captions", "entities", "mrc", "vsg"]
BATCH_KINDS: tuple[BatchKind, ...] = ("captions", "entities", "mrc", "vsg")


class Distinct(NamedTuple):
    """Which texts of a batch are worth encoding: the first of each that are equal."""

    rows: Tensor  # (T',) int64 rows of `text_ids`: text 0, then text 1, ...
    cu: Tensor  # (U + 1,) int32 offsets into these
    of_group: Tensor  # (G,) int64, the text of each group


@dataclass(frozen=True)
class Batch:
    """One step's input on one rank, from one dataset.

    `captions` and `vsg`: G = B whole-image groups. `entities`: regions and, where captions exist, the whole
    image. `mrc`: one group per entity that a triplet names; no masked tokens.
    """

    kind: BatchKind
    dataset: str
    pixels: Tensor  # (B, 3, H, W) float32
    image_key: Tensor  # (B,) int64, equal for equal images
    text_ids: Tensor  # (T,) int64: [CLS] ... [SEP] of group 0, then of group 1, ...
    text_cu: Tensor  # (G + 1,) int32 offsets into T
    text_key: Tensor  # (G,) int64, equal for equal texts
    image_index: Tensor  # (G,) int32, row of `pixels`
    box: Tensor  # (G, 4) int32, patches (x0, y0, x1, y1), half-open
    whole: Tensor  # (G,) bool: the group sees the whole image
    target_box: Tensor  # (G, 4) float32 (cx, cy, w, h) in [0, 1]; of no meaning where `whole`
    mlm_ids: Tensor  # (T,) int64, `text_ids` after masking
    mlm_row: Tensor  # (M,) int64, rows of T to predict, increasing
    mlm_label: Tensor  # (M,) int64
    subject: Tensor  # (R,) int64, groups
    object: Tensor  # (R,) int64, groups
    relation: Tensor  # (R,) int64, relation classes
    distinct: Distinct | None = None  # without it, every group's text counts as one of its own

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, so that `to` overlaps with computing; called by DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: function(v) for k, v in values.items() if isinstance(v, Tensor)}
        if self.distinct is not None:
            moved["distinct"] = Distinct(*map(function, self.distinct))
        return replace(self, **moved)

    @property
    def images(self) -> int:
        """Number of images B."""
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Group:
    """One text of an image; `masked`, `positions`, `labels` as `mask_words` returns them, or no masks."""

    ids: list[int]
    key: int
    region: Region
    masked: list[int]
    positions: list[int]
    labels: list[int]


@dataclass(frozen=True)
class View:
    """One image, as augmented, with the texts that look at it.

    `triplets` holds (subject, object, relation class), subject and object being places in `groups`.
    """

    pixels: np.ndarray  # (H, W, 3) uint8
    image_key: int
    groups: Sequence[Group]
    triplets: Sequence[tuple[int, int, int]] = ()


def assemble(kind: BatchKind, dataset: str, views: Sequence[View]) -> Batch:
    """The batch of some views, packed without padding."""
    groups = [group for view in views for group in view.groups]
    counts = [len(view.groups) for view in views]
    triplets = _triplets(views, counts)
    cu = np.cumsum([0, *(len(g.ids) for g in groups)])
    return Batch(
        kind=kind,
        dataset=dataset,
        pixels=normalise(np.stack([view.pixels for view in views])),
        image_key=torch.tensor([view.image_key for view in views]),
        text_ids=_flat(g.ids for g in groups),
        text_cu=torch.from_numpy(cu.astype(np.int32)),
        text_key=torch.tensor([g.key for g in groups]),
        image_index=torch.from_numpy(np.repeat(np.arange(len(views), dtype=np.int32), counts)),
        box=torch.tensor([g.region.patches for g in groups], dtype=torch.int32),
        whole=torch.tensor([g.region.whole for g in groups]),
        target_box=torch.tensor([g.region.target for g in groups]),
        mlm_ids=_flat(g.masked for g in groups),
        mlm_row=_flat(
            [start + p for p in g.positions] for start, g in zip(cu.tolist(), groups, strict=False)
        ),
        mlm_label=_flat(g.labels for g in groups),
        subject=triplets[0],
        object=triplets[1],
        relation=triplets[2],
        distinct=distinct_texts([g.key for g in groups], cu.tolist()),
    )


def distinct_texts(keys: Sequence[int], cu: Sequence[int]) -> Distinct:
    """Of texts with these keys and offsets."""
    place: dict[int, int] = {}
    spans: list[range] = []
    for key, start, end in zip(keys, cu, cu[1:], strict=False):
        if key not in place:
            place[key] = len(spans)
            spans.append(range(start, end))
    return Distinct(
        rows=_flat(spans),
        cu=torch.tensor(np.cumsum([0, *map(len, spans)]), dtype=torch.int32),
        of_group=torch.tensor([place[key] for key in keys]),
    )


def _flat(lists: Iterable[Iterable[int]]) -> Tensor:
    return torch.from_numpy(np.fromiter(chain.from_iterable(lists), np.int64))


def _triplets(views: Sequence[View], counts: list[int]) -> Tensor:
    """(3, R) int64: subject and object as groups of the batch, relation class."""
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    rows = [
        (start + subject, start + target, relation)
        for start, view in zip(starts, views, strict=True)
        for subject, target, relation in view.triplets
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).T.contiguous()
