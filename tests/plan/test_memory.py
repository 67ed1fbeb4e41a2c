"""Estimates of kept activations against what autograd really keeps."""

from dataclasses import replace

import pytest
import torch
from support.batches import made_batch
from support.footprint import kept_bytes
from support.official_way import OfficialWay

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.model import RelVLM
from relvlm.plan.flops import Sizes
from relvlm.plan.memory import features, official_activations, packed_activations, states
from relvlm.plan.workload import Workload
from relvlm.pretraining.chunks import chunks_of
from relvlm.pretraining.step import Pretraining

MODEL = ModelConfig(
    image_size=128,
    embed_dim=32,
    vision=ViTConfig(width=96, layers=4, heads=4, patch_size=16),
    text=TextConfig(layers=4, heads=4, width=128, max_positions=64, dropout=0.0),
    fusion=FusionConfig(layers=4, heads=4),
    mrc_hidden=96,
    itm_head="mlp",
)
WORKS = [
    Workload("captions", 2, 1, 14, 36, masked=3),
    Workload("entities", 2, 4, 4, 36, masked=1, boxes=4),
    Workload("mrc", 2, 4, 4, 36, relations=2),
]


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
@pytest.mark.parametrize("way", ["ours", "official"])
def test_activations_are_within_a_tenth_of_what_is_kept(work: Workload, way: str) -> None:
    step, sizes = Pretraining(RelVLM(MODEL, 500, 7)), Sizes(MODEL, 500, 7)
    batch = made_batch(work, 128, 8, 500, 7)
    if way == "ours":
        kept, expected = kept_bytes(lambda: step(batch).total, step, torch.float32), packed_activations
    else:
        plain = OfficialWay(step.model, work.padded)
        kept, expected = kept_bytes(lambda: plain(batch), step, torch.float32), official_activations
    assert sum(expected(sizes, work, 4).values()) == pytest.approx(kept, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
def test_a_chunk_keeps_what_is_its_own_and_a_gradient_of_each_feature(work: Workload) -> None:
    step, sizes = Pretraining(RelVLM(MODEL, 500, 7)), Sizes(MODEL, 500, 7)
    chunks = [made_batch(work, 128, 8, 500, 7, seed) for seed in range(3)]
    first, *_ = chunks_of(chunks)
    first.step.targets = step.chunk_targets(chunks)
    kept = kept_bytes(lambda: step(chunks[0], first).total, step, torch.float32)
    gradients = [x for target in first.step.targets if target.itc for x in target.itc.features]
    whole = replace(work, images=3 * work.images)
    assert sum(features(sizes, whole, 4).values()) == sum(x.nbytes for x in gradients)
    assert sum(packed_activations(sizes, work, 4).values()) == pytest.approx(kept, rel=0.1)


@pytest.mark.slow
def test_dropped_patches_keep_nothing_but_their_embedding() -> None:
    dropping = replace(MODEL, vision=replace(MODEL.vision, patch_keep=0.25))
    step, sizes, work = Pretraining(RelVLM(dropping, 500, 7)), Sizes(dropping, 500, 7), WORKS[0]
    batch = made_batch(work, 128, 8, 500, 7)
    kept = kept_bytes(lambda: step(batch).total, step, torch.float32)
    expected = sum(packed_activations(sizes, work, 4).values())
    assert expected == pytest.approx(kept, rel=0.1)
    assert expected < 0.8 * sum(packed_activations(Sizes(MODEL, 500, 7), work, 4).values())


def test_zero_shards_one_part_more_at_each_stage() -> None:
    whole = {"weights": 2e9, "gradients": 2e9, "optimizer": 12e9}
    assert states(10**9, 0, 8, 2) == whole
    assert states(10**9, 1, 8, 2) == whole | {"optimizer": 1.5e9}
    assert states(10**9, 2, 8, 2) == whole | {"gradients": 0.25e9, "optimizer": 1.5e9}
    assert states(10**9, 3, 8, 2) == {name: size / 8 for name, size in whole.items()}
