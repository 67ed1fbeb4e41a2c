"""Made batches of each kind: random pixels and words in the shapes and lengths of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm.data.batches.batch import Batch, Section
from relvlm.plan.workload import Workload
from relvlm_kernels import Regions

CLS, MASK, FIRST_WORD = 2, 4, 10


def made_batch(work: Workload, image_size: int, side: int, words: int, relations: int, seed: int = 0) -> Batch:
    """A batch of `work` on a grid of `side` x `side` patches; text lengths vary around the mean, as real ones do."""
    torch.manual_seed(seed)
    groups = work.images * work.groups
    cu = F.pad(_lengths(groups, work.tokens, work.padded).cumsum(0), (1, 0)).to(torch.int32)
    ids_T = torch.randint(FIRST_WORD, words, (int(cu[-1]),))
    ids_T[cu[:-1].long()] = CLS
    row_M = _masked_rows(cu, work.masked)
    masked_T = ids_T.index_fill(0, row_M, MASK)
    regional = work.kind in ("entities", "mrc")
    subject_R, object_R = _triplets(work)
    image_G = torch.arange(work.images, dtype=torch.int32).repeat_interleave(work.groups)
    whole_G = torch.full((groups,), not regional)
    box_G4 = _boxes(groups, side, regional)
    regions = Regions(cu, image_G, box_G4, whole_G, ~whole_G, (side, side))
    region_patches = int((box_G4[:, 2:] - box_G4[:, :2]).prod(1).sum()) if regional else 0
    return Batch(
        kind=work.kind, dataset="made",
        pixels=torch.randn(work.images, 3, image_size, image_size),
        image_key=torch.arange(work.images),
        text_ids=ids_T, text_key=torch.arange(groups), regions=regions,
        region=torch.arange(groups if regional else 0),
        target_box=torch.rand(groups, 4) * 0.5 + 0.2,
        mlm_ids=masked_T, mlm_row=row_M, mlm_label=ids_T[row_M],
        subject=subject_R, object=object_R, relation=torch.randint(0, relations, subject_R.shape),
        region_patches=region_patches,
    )  # fmt: skip


def joint_of(parts: Sequence[Batch]) -> Batch:
    """Batches of one kind each, about equally many images, as one joint batch about the first one's photos.

    Part `mrc` comes last. No text counts as equal to one of another part.
    """
    groups = [0, *accumulate(part.groups for part in parts)]
    rows = [0, *accumulate(len(part.text_ids) for part in parts)]
    masked = [0, *accumulate(len(part.mlm_row) for part in parts)]
    regions = [0, *accumulate(len(part.region) for part in parts)]
    spans = [[slice(a, b) for a, b in pairwise(ends)] for ends in (groups, masked, regions)]
    sections = tuple(Section(part.kind, *span, weight=1.0) for part, *span in zip(parts, *spans, strict=True))

    def joined(name: str, shifts: Sequence[int] = (0,) * len(parts)) -> Tensor:
        return torch.cat([getattr(p, name) + shift for p, shift in zip(parts, shifts, strict=False)])

    return replace(
        parts[0], kind="joint", joint=sections, regions=_joined_regions(parts, rows),
        region_patches=sum(part.region_patches or 0 for part in parts),
        **{name: joined(name) for name in ("text_ids", "target_box", "mlm_label", "relation")},
        **{name: joined(name, groups) for name in ("text_key", "region", "subject", "object")},
        mlm_row=joined("mlm_row", rows),
        mlm_ids=torch.cat([part.mlm_ids for part in parts if part.kind != "mrc"]),
    )  # fmt: skip


def _joined_regions(parts: Sequence[Batch], rows: Sequence[int]) -> Regions:
    """Those of batches whose texts begin at these rows."""
    each = [part.regions for part in parts]
    offsets = [r.offsets[1:] + first for r, first in zip(each, rows, strict=False)]
    return Regions(
        torch.cat([each[0].offsets[:1], *offsets]),
        *(torch.cat([getattr(r, name) for r in each]) for name in ("image", "box", "prefix", "mean")),
        each[0].grid,
    )


def _lengths(groups: int, mean: int, longest: int) -> Tensor:
    """Between half and one and a half times the mean, and of that mean over the batch."""
    half = mean // 2
    ramp = torch.linspace(-half, half, groups).round().long() if groups > 1 else torch.zeros(1).long()
    return (mean + ramp[torch.randperm(groups)]).clamp(2, longest)


def _masked_rows(cu: Tensor, masked: int) -> Tensor:
    """Up to `masked` rows of each text after its [CLS]."""
    if not masked:
        return torch.zeros(0, dtype=torch.long)
    offsets = cu.long()
    ends = torch.minimum(offsets[:-1] + 1 + masked, offsets[1:])
    return torch.cat([torch.arange(a + 1, b) for a, b in zip(offsets[:-1].tolist(), ends.tolist(), strict=True)])


def _boxes(groups: int, side: int, regional: bool) -> Tensor:
    """Boxes whose sides are 20 to 80% of the grid's, or the whole grid."""
    if not regional:
        return torch.tensor([[0, 0, side, side]], dtype=torch.int32).expand(groups, 4).contiguous()
    size_G2 = (side * (0.2 + 0.6 * torch.rand(groups, 2))).round().clamp(1, side)
    corner_G2 = (torch.rand(groups, 2) * (side - size_G2 + 1)).floor()
    return torch.cat([corner_G2, corner_G2 + size_G2], dim=1).to(torch.int32)


def _triplets(work: Workload) -> tuple[Tensor, Tensor]:
    """Subject and object rows: neighbours among each image's groups."""
    first_B = torch.arange(work.images) * work.groups
    places = torch.arange(work.relations) % max(work.groups - 1, 1)
    subject_R = (first_B[:, None] + places).flatten()
    return subject_R, subject_R + 1
