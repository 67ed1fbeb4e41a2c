"""Estimates of kept activations against what autograd really keeps."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from support.batches import made_batch
from support.footprint import kept_bytes
from support.official_way import OfficialWay

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
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


PARTS = ("vision encoder", "text encoder", "image K, V", "fusion layers", "MLM scores")
SIZES = Sizes(MODEL, 500, 7)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (WORKS[0], (2_889_216, 1_433_600, 582_400, 3_022_848, 24_000)),
        (WORKS[1], (2_889_216, 1_638_400, 582_400, 4_505_600, 32_000)),
        (WORKS[2], (2_889_216, 819_200, 582_400, 901_120, 0)),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_parts_of_our_step_worked_out_by_hand(work: Workload, expected: tuple[int, ...]) -> None:
    """E.g. of 2 images of 65 tokens of 96: 4 bytes * 2 * (65 * 96 * (4 layers * 12 + 2) + 3 * 128**2 pixels)."""
    assert packed_activations(SIZES, work, 4) == dict(zip(PARTS, expected, strict=True))


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (WORKS[0], (2_889_216, 4_866_048, 2_329_600, 11_796_480, 24_000)),
        (WORKS[1], (2_889_216, 19_464_192, 11_648_000, 58_982_400, 32_000)),
        (WORKS[2], (2_889_216, 9_732_096, 2_329_600, 11_796_480, 0)),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_parts_of_the_official_step_worked_out_by_hand(work: Workload, expected: tuple[int, ...]) -> None:
    assert official_activations(SIZES, work, 4) == dict(zip(PARTS, expected, strict=True))


@pytest.mark.parametrize(("norm", "expected"), [("post", (1_433_600, 3_022_848)), ("pre", (1_490_944, 3_156_480))])
def test_dropout_keeps_a_byte_for_each_masked_element_where_norms_come_first(
    norm: Literal["pre", "post"], expected: tuple[int, int]
) -> None:
    dropped = Sizes(replace(MODEL, text=replace(MODEL.text, dropout=0.1, norm=norm)), 500, 7)
    more = packed_activations(dropped, WORKS[0], 4)
    assert (more["text encoder"], more["fusion layers"]) == expected


def test_dropped_patches_are_not_kept() -> None:
    dropping = Sizes(replace(MODEL, vision=replace(MODEL.vision, patch_keep=0.25)), 500, 7)
    assert packed_activations(dropping, WORKS[0], 4)["vision encoder"] == 1_046_016
    assert packed_activations(dropping, WORKS[2], 4)["vision encoder"] == 2_889_216  # it sees boxes


def test_a_swin_keeps_half_as_much_in_each_stage() -> None:
    swin = SwinConfig(width=8, depths=[1, 2], heads=[1, 2], patch_size=4)
    sizes = Sizes(replace(MODEL, image_size=64, vision=swin), 500, 7)
    stages = 256 * 8 * 12 + 64 * 16 * 2 * 12
    assert packed_activations(sizes, WORKS[0], 4)["vision encoder"] == 2 * 4 * (stages + 3 * 64 * 64)


@pytest.mark.parametrize(("images", "expected"), [(42, 126 * 500 * 8), (43, 4 * 500 * 128)])
def test_of_more_words_than_the_width_the_gradient_is_kept_instead(images: int, expected: int) -> None:
    work = replace(WORKS[0], images=images)
    assert packed_activations(SIZES, work, 4)["MLM scores"] == expected
    assert official_activations(SIZES, work, 4)["MLM scores"] == images * 3 * 500 * 8


def test_a_step_in_chunks_keeps_two_gradients_of_each_group() -> None:
    assert features(SIZES, WORKS[1], 4) == {"features' gradients": 2 * 8 * 32 * 4}
    assert features(SIZES, WORKS[2], 4) == {"features' gradients": 0}


def test_a_master_copy_is_kept_of_what_is_not_whole_in_fp32() -> None:
    assert states(1000, 0, 8, 4) == {"weights": 4000, "gradients": 4000, "optimizer": 8000}
    assert states(1000, 0, 8, 2)["optimizer"] == 12_000
    assert states(1000, 1, 8, 4)["optimizer"] == 12_000 / 8
