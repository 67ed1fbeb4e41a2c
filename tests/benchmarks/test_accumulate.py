"""What the benchmark of chunks compares is the same step."""

from dataclasses import replace

import pytest
import torch
from accumulate import KINDS, check_equal, kept_by_chunk, split
from support.batches import made_batch
from train_step import SIZES

from relvlm.model import RelVLM
from relvlm.plan.workload import Workload
from relvlm.pretraining.step import Pretraining


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_are_compared_with_the_same_step(kind: str) -> None:
    step = Pretraining(RelVLM(SIZES["mini"][0], 50, 7))
    aligned, regional = kind != "mrc", kind in ("mrc", "entities")
    work = Workload(kind, 5, 3 if regional else 1, 5, 8, masked=int(aligned), relations=0 if aligned else 2)
    batch = made_batch(work, 32, 4, 50, 7)
    chunks = split(batch, 2)
    check_equal(step, batch, chunks)
    kept = [kept_by_chunk(step, parts, torch.float32) for parts in ([batch], chunks)]
    assert kept[1] < 0.75 * kept[0]
    regions = replace(chunks[1].regions, image=chunks[1].regions.image.flip(0))
    shifted = replace(chunks[1], regions=regions)
    with pytest.raises(RuntimeError, match="not comparable"):
        check_equal(step, batch, [chunks[0], shifted])
