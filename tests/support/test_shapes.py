"""Batches have the shapes that they are named for, and what must be done for them is counted right."""

from dataclasses import replace

import pytest
import torch

from support.shapes import FULL, RECIPE, Shape, as_trained, make_batch, toy

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [*FULL, RECIPE[1]], ids=lambda shape: shape.name)
def test_boxes_have_the_sides_asked_for(shape: Shape) -> None:
    batch = make_batch(toy(shape), CPU)
    boxed = torch.arange(len(batch.lengths)) % batch.shape.groups < batch.shape.regions
    x0, y0, x1, y1 = batch.regions.box[boxed].T
    for low, high, size in ((x0, x1, shape.grid[1]), (y0, y1, shape.grid[0])):
        sides = high - low
        assert low.min() >= 0 and high.max() <= size
        assert (sides >= shape.sides[0] * size - 1).all() and (sides <= shape.sides[1] * size + 1).all()
    whole = batch.regions.box[~boxed]
    assert (whole == torch.tensor([0, 0, shape.grid[1], shape.grid[0]])).all()


def test_what_must_be_done_is_counted() -> None:
    batch = make_batch(replace(toy(FULL[0]), images=1, regions=2), CPU)
    x0, y0, x1, y1 = batch.regions.box.T
    keys = (x1 - x0) * (y1 - y0) + 1
    assert batch.flops() == 4 * 32 * int((batch.lengths * keys).sum())
    assert batch.bytes(4) == 4 * 32 * 2 * (int(batch.lengths.sum()) + 197)


def test_as_trained_a_region_sees_its_mean_token_and_a_whole_image_its_prefix() -> None:
    regions = make_batch(as_trained(toy(RECIPE[1])), CPU).regions
    whole = (regions.box == torch.tensor([0, 0, 14, 14])).all(1)
    assert torch.equal(regions.mean, ~whole) and torch.equal(regions.prefix, whole)
    assert as_trained(RECIPE[0]).options == "dropout" and as_trained(RECIPE[1]).options == "mean + dropout"


def test_the_recipe_s_shapes_hold_the_recipe_s_queries() -> None:
    """On one GPU of 8; counted in runs of the step with made batches."""
    queries = {s.name: int(make_batch(s, CPU).lengths.sum()) for s in RECIPE}
    wanted = {"captions": 7076, "entities": 3172, "mrc": 651, "vsg": 3136}
    assert queries == {name: pytest.approx(count, rel=0.05) for name, count in wanted.items()}
