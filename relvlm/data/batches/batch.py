"""The one shape of batch that all kinds share: G groups, each a text that looks at an image (or a box of it).

A joint batch holds groups of several kinds about the same photos, one section for each kind.

Legend: B images, G groups, T packed text tokens, M masked tokens, R triplets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relvlm.data.batches.pools import ImagePools
from relvlm.data.batches.regions import Region
from relvlm.data.batches.transforms import normalise
from relvlm.kinds import KINDS, SECTION_KINDS, BatchKind
from relvlm_kernels import Regions


class Section(NamedTuple):
    """The groups of one kind in a batch, its masked tokens (of M) and its regions (of `Batch.region`)."""

    kind: BatchKind
    groups: slice
    masked: slice
    regions: slice
    weight: float  # of its losses in the sum

    @property
    def aligned(self) -> bool:
        """Whether its texts say what is seen (ITC, ITM, MLM)."""
        return KINDS[self.kind].aligned


class Distinct(NamedTuple):
    """Which texts of a batch are worth encoding: the first of each that are equal."""

    rows: Tensor  # (T',) int64 rows of `text_ids`: text 0, then text 1, ...
    cu: Tensor  # (U + 1,) int32 offsets into these
    of_group: Tensor  # (G,) int64, the text of each group


@dataclass(frozen=True)
class Batch:
    """One step's input on one rank, from one dataset.

    `captions` and `vsg`: G = B whole-image groups. `entities`: regions and, where captions exist, the whole
    image. `mrc`: one group per entity that a triplet names; no masked tokens. `joint`: several of these, whose
    groups look at the same B images.
    """

    kind: BatchKind
    dataset: str
    pixels: Tensor  # (B, 3, H, W) uint8 as a worker leaves them, float32 from `to` on
    image_key: Tensor  # (B,) int64, equal for equal images
    text_ids: Tensor  # (T,) int64: [CLS] ... [SEP] of group 0, then of group 1, ...
    text_key: Tensor  # (G,) int64, equal for equal texts
    regions: Regions  # rows of `text_ids` of each group, and what they look at: a whole image with [CLS], or a box
    region: Tensor  # int64, the groups that see a box, increasing
    target_box: Tensor  # (G, 4) float32 (cx, cy, w, h) in [0, 1]; of no meaning where the image is seen whole
    mlm_ids: Tensor  # int64, `text_ids` after masking, without those of mrc groups (which come last)
    mlm_row: Tensor  # (M,) int64, rows of T to predict, increasing
    mlm_label: Tensor  # (M,) int64
    subject: Tensor  # (R,) int64, groups
    object: Tensor  # (R,) int64, groups
    relation: Tensor  # (R,) int64, relation classes
    distinct: Distinct | None = None  # without it, every group's text counts as one of its own
    joint: tuple[Section, ...] = ()  # the sections of a joint batch
    pool: Tensor | None = None  # (G,) int64, the pool of each group in the global batch; None: all are one pool
    draws: Tensor | None = None  # (G', 2) float32 in [0, 1) for the groups with negatives; None: drawn when needed
    region_patches: int | None = None  # in the boxes of `region`; None: counted on the device, if asked for
    samples_hash: int = 0  # sum of its views' `sample`, modulo 2^64: the same however a step is shared out

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`, and its pixels normalised there: bytes travel, not floats."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, pixels=normalise(moved.pixels)) if moved.pixels.dtype == torch.uint8 else moved

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, so that `to` overlaps with computing; called by DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: function(v) for k, v in values.items() if isinstance(v, Tensor)}
        moved["regions"] = self.regions.map(function)
        if self.distinct is not None:
            moved["distinct"] = Distinct(*map(function, self.distinct))
        return replace(self, **moved)

    @property
    def images(self) -> int:
        """Number of images B."""
        return self.pixels.shape[0]

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return len(self.text_key)

    @property
    def whole(self) -> Tensor:
        """(G,) bool: the group sees its whole image."""
        return self.regions.prefix

    @property
    def sections(self) -> tuple[Section, ...]:
        """Those of a joint batch; any other is one section."""
        if self.joint:
            return self.joint
        spans = slice(0, self.groups), slice(0, len(self.mlm_row)), slice(0, len(self.region))
        return (Section(self.kind, *spans, KINDS[self.kind].weight),)

    @property
    def boxed(self) -> bool:
        """Whether groups may see a box: what a box is in needs all patches of the image."""
        return any(KINDS[section.kind].boxed for section in self.sections)

    @property
    def aligned(self) -> int:
        """Number of groups whose texts say what is seen: the first ones."""
        return sum(s.groups.stop - s.groups.start for s in self.sections if s.aligned)


@dataclass(frozen=True)
class Group:
    """One text of an image; `masked`, `positions`, `labels` as `mask` (masking.py) returns them, or no masks."""

    ids: list[int]
    key: int
    region: Region
    masked: list[int]
    positions: list[int]
    labels: list[int]


@dataclass(frozen=True)
class View:
    """One image, as augmented, with the texts that look at it, by the kind of section that they are for.

    `triplets` holds (subject, object, relation class), subject and object being places in the `mrc` groups. `sample`
    is a hash of which record it is, of which epoch.
    """

    pixels: np.ndarray  # (H, W, 3) uint8
    image_key: int
    groups: Mapping[BatchKind, Sequence[Group]]
    triplets: Sequence[tuple[int, int, int]] = ()
    sample: int = 0


def assemble(
    kind: BatchKind,
    dataset: str,
    views: Sequence[View],
    grid: tuple[int, int],
    weights: Mapping[BatchKind, float] | None = None,
    pools: ImagePools | None = None,
) -> Batch:
    """The batch of some views, packed without padding; `grid`: (rows, columns) of an image's patches.

    `weights` are those of a joint batch's sections, `pools` those of the images: without, the batch is one pool.
    """
    placed = [
        (section, image, group)
        for section in SECTION_KINDS
        for image, view in enumerate(views)
        for group in view.groups.get(section, ())
    ]
    groups = [group for _, _, group in placed]
    masked = [group for section, _, group in placed if KINDS[section].aligned]
    triplets = _triplets(views, len(masked))
    cu = np.cumsum([0, *(len(g.ids) for g in groups)])
    return Batch(
        kind=kind,
        dataset=dataset,
        pixels=torch.from_numpy(np.stack([view.pixels for view in views])).permute(0, 3, 1, 2),
        image_key=torch.tensor([view.image_key for view in views]),
        text_ids=_flat(g.ids for g in groups),
        text_key=torch.tensor([g.key for g in groups]),
        regions=_regions([(image, group.region) for _, image, group in placed], cu, grid),
        region=_flat([i] for i, g in enumerate(groups) if not g.region.whole),
        target_box=torch.tensor([g.region.target for g in groups]),
        mlm_ids=_flat(g.masked for g in masked),
        mlm_row=_flat([start + p for p in g.positions] for start, g in zip(cu.tolist(), masked, strict=False)),
        mlm_label=_flat(g.labels for g in masked),
        subject=triplets[0],
        object=triplets[1],
        relation=triplets[2],
        distinct=distinct_texts([g.key for g in groups], cu.tolist()),
        joint=_sections(views, weights) if weights else (),
        pool=None if pools is None else torch.tensor([pools.of_image[image] for _, image, _ in placed]),
        draws=None if pools is None else torch.from_numpy(pools.draws([at[:2] for at in placed[: len(masked)]])),
        region_patches=sum(_area(*g.region.patches) for g in groups if not g.region.whole),
        samples_hash=sum(view.sample for view in views) % 2**64,
    )


def _sections(views: Sequence[View], weights: Mapping[BatchKind, float]) -> tuple[Section, ...]:
    """Of a joint batch, in the order of its groups; each kind with a weight has one."""
    sections: list[Section] = []
    first = masked_first = region_first = 0
    for kind in (kind for kind in SECTION_KINDS if weights.get(kind)):
        groups = [group for view in views for group in view.groups[kind]]
        last = first + len(groups)
        masked_last = masked_first + sum(len(g.positions) for g in groups)
        region_last = region_first + sum(not g.region.whole for g in groups)
        spans = slice(first, last), slice(masked_first, masked_last), slice(region_first, region_last)
        sections.append(Section(kind, *spans, weights[kind]))
        first, masked_first, region_first = last, masked_last, region_last
    return tuple(sections)


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


def _regions(seen: Sequence[tuple[int, Region]], cu: np.ndarray, grid: tuple[int, int]) -> Regions:
    """Of (image, region) pairs: a whole image shows its [CLS] too, a box the mean of its patches (X-VLM with Swin)."""
    whole = torch.tensor([region.whole for _, region in seen])
    return Regions(
        offsets=torch.from_numpy(cu.astype(np.int32)),
        image=torch.tensor([image for image, _ in seen], dtype=torch.int32),
        box=torch.tensor([region.patches for _, region in seen], dtype=torch.int32),
        prefix=whole,
        mean=~whole,
        grid=grid,
    )


def _area(x0: int, y0: int, x1: int, y1: int) -> int:
    return (x1 - x0) * (y1 - y0)


def _flat(lists: Iterable[Iterable[int]]) -> Tensor:
    return torch.from_numpy(np.fromiter(chain.from_iterable(lists), np.int64))


def _triplets(views: Sequence[View], first: int) -> Tensor:
    """(3, R) int64: subject and object as groups of the batch, whose mrc groups begin at `first`; relation class."""
    rows = []
    for view in views:
        rows += [(first + subject, first + target, relation) for subject, target, relation in view.triplets]
        first += len(view.groups.get("mrc", ()))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).T.contiguous()
