"""What a batch costs by its own texts and boxes: the plan's formulas where all are of the mean size."""

from dataclasses import replace

import pytest
import torch
from support.batches import joint_of, made_batch

from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.batches.batch import Distinct
from relvlm.plan.flops import Sizes, encoders, teacher, trained
from relvlm.plan.spent import step_flops, workloads_of
from relvlm.plan.workload import Workload

MODEL = ModelConfig(
    image_size=64,
    vision=ViTConfig(width=48, layers=2, heads=4, patch_size=16),
    text=TextConfig(layers=2, heads=4, width=64, max_positions=64),
    fusion=FusionConfig(layers=3, heads=4),
    mrc_hidden=96,
)
SIZES = Sizes(MODEL, 90, 7)
WORKS = [
    Workload("captions", 3, 1, 9, 9, masked=2),
    Workload("entities", 2, 3, 5, 5, masked=1, boxes=3),
    Workload("mrc", 2, 3, 5, 5, relations=2),
]


def batch_of(work: Workload, seen: float = 1.0):
    """With texts of the mean length."""
    batch = made_batch(work, 64, 4, 90, 7)
    patches = round(seen * 16 * len(batch.region))
    return replace(batch, text_ids=torch.zeros(int(work.images * work.groups * work.tokens)), region_patches=patches)


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
def test_a_batch_is_counted_as_the_workload_that_it_was_made_from(work):
    (found,) = workloads_of(batch_of(work))
    assert replace(found, padded=work.padded, beside_boxes=False) == work
    assert step_flops(SIZES, [batch_of(work)]) == sum(trained(SIZES, [work]).values())


def test_of_boxes_their_share_of_the_patches_is_seen():
    assert workloads_of(batch_of(WORKS[2], seen=0.25))[0].seen == 0.25
    mixed = batch_of(WORKS[1], seen=0.5)
    half = replace(mixed, region=mixed.region[:3], region_patches=24)  # of six groups, three see whole images
    (work,) = workloads_of(half)
    assert (work.seen, work.boxes) == (0.75, 1.5)


def test_what_is_not_counted_on_the_host_is_taken_as_whole():
    assert workloads_of(replace(batch_of(WORKS[2], seen=0.25), region_patches=None))[0].seen == 1


def test_equal_texts_are_encoded_once():
    batch = batch_of(WORKS[0])
    two = Distinct(torch.arange(18), torch.tensor([0, 9, 18]), torch.tensor([0, 1, 1]))
    fewer = replace(batch, distinct=two)
    text = encoders(SIZES, WORKS[0])["encoders beforehand"]
    assert workloads_of(fewer)[0].distinct == 2 / 3
    saved = step_flops(SIZES, [batch]) - step_flops(SIZES, [fewer])
    assert 0 < saved < 3 * text / 4


def test_sections_of_a_joint_batch_share_its_images():
    works = workloads_of(joint_of([batch_of(WORKS[1]), batch_of(WORKS[2])]))
    assert [(w.kind, w.encodes, w.images, w.groups) for w in works] == [("entities", True, 2, 3), ("mrc", False, 2, 3)]


def test_chunks_are_encoded_twice_and_a_teacher_counts():
    batch = batch_of(WORKS[0])
    once, chunked = 2 * step_flops(SIZES, [batch]), step_flops(SIZES, [batch, batch])
    assert chunked - once == pytest.approx(2 * sum(encoders(SIZES, WORKS[0]).values()))
    taught = Sizes(replace(MODEL, momentum=MomentumConfig(enabled=True)), 90, 7)
    more = step_flops(taught, [batch]) - step_flops(SIZES, [batch])
    assert more == pytest.approx(sum(teacher(taught, WORKS[0], padded=False).values()))


def test_images_count_as_large_as_they_are():
    small = replace(batch_of(WORKS[0]), pixels=torch.zeros(3, 3, 32, 32))
    assert step_flops(SIZES, [small]) == step_flops(Sizes(replace(MODEL, image_size=32), 90, 7), [small])
    assert step_flops(SIZES, [small]) < step_flops(SIZES, [batch_of(WORKS[0])])
