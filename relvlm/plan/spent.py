"""What a step that is there costs: the FLOPs of its batches by their own texts and boxes, not by assumed averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relvlm.data.batches.batch import Batch, Section
from relvlm.plan.flops import Sizes, trained
from relvlm.plan.workload import Workload


def step_flops(sizes: Sizes, chunks: Sequence[Batch]) -> float:
    """FLOPs of the forward and backward pass of one rank's step; nothing is read back from a GPU.

    `sizes.model.image_size` is that of a full-size step. As in `relvlm plan`, attention is counted by mean lengths, and
    vision blocks that see boxes alone (`region_mask: late_vision`) are not.
    """
    total = 0.0
    for batch in chunks:
        model = replace(sizes.model, image_size=batch.pixels.shape[-1])
        total += sum(trained(replace(sizes, model=model), workloads_of(batch), len(chunks)).values())
    return total


def workloads_of(batch: Batch) -> list[Workload]:
    """Its sections."""
    return [_workload(batch, section, first=not number) for number, section in enumerate(batch.sections)]


def _workload(batch: Batch, section: Section, first: bool) -> Workload:
    """A section's own groups, and its share of what the batch knows as a whole: text tokens and boxes' patches."""
    images, groups = batch.images, section.groups.stop - section.groups.start
    masked = section.masked.stop - section.masked.start
    boxes = section.regions.stop - section.regions.start
    texts = batch.groups if batch.distinct is None else len(batch.distinct.cu) - 1
    return Workload(
        section.kind,
        images,
        groups / images,
        len(batch.text_ids) / batch.groups,
        padded=0,
        masked=masked / groups,
        seen=1 - boxes / groups * (1 - _mean_box(batch)),
        relations=0 if section.aligned else len(batch.relation) / images,
        boxes=boxes / images if section.aligned else 0,
        encodes=first,
        beside_boxes=batch.boxed,
        distinct=texts / batch.groups,
    )


def _mean_box(batch: Batch) -> float:
    """The share of an image's patches in a mean box; 1 where the batch has not counted them."""
    rows, columns = batch.regions.grid
    if not len(batch.region) or batch.region_patches is None:
        return 1.0
    return batch.region_patches / (len(batch.region) * rows * columns)
