"""The benchmark of region attention: all ways agree at its shapes, and it refuses to time what is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

CPU = torch.device("cpu")
LIMITS = {"flops_per_s": 1e11, "bytes_per_s": 1e10}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))


def small(shape):
    return replace(shape, images=2, heads=2, width=16)


def shapes():
    from support.shapes import SHAPES

    return [small(shape) for shape in SHAPES["full"]]


def test_every_way_agrees_at_every_shape():
    import mrc_kernel
    from mrc_ways import Masked, Replicated, Way
    from support.shapes import make_batch

    for shape in shapes():
        batch = make_batch(shape, CPU)
        mrc_kernel.check(batch, [Way(batch), Replicated(batch), Masked(batch)], CPU, torch.float32)


def test_boxes_have_the_sides_asked_for():
    from support.shapes import make_batch

    for shape in shapes():
        x0, y0, x1, y1 = make_batch(shape, CPU).regions.box.T
        for low, high, size in ((x0, x1, shape.grid[1]), (y0, y1, shape.grid[0])):
            sides = high - low
            assert low.min() >= 0 and high.max() <= size
            assert (sides >= shape.sides[0] * size - 1).all() and (sides <= shape.sides[1] * size + 1).all()


def test_what_must_be_done_is_counted():
    from support.shapes import make_batch

    batch = make_batch(replace(shapes()[0], images=1, regions=2), CPU)
    x0, y0, x1, y1 = batch.regions.box.T
    keys = (x1 - x0) * (y1 - y0) + 1
    assert batch.flops() == 4 * 32 * int((batch.lengths * keys).sum())
    assert batch.bytes(4) == 4 * 32 * 2 * (int(batch.lengths.sum()) + 197)


@pytest.mark.parametrize("part", ["out", "dv"])
def test_nothing_is_timed_where_a_way_is_wrong(monkeypatch, part):
    import mrc_kernel
    from mrc_ways import Way

    plain = Way.attend

    def wrong(self, q, k, v):
        return plain(self, q, k, v) * 1.001 if part == "out" else plain(self, q, k, v.detach() + 0 * v)

    monkeypatch.setattr(Way, "attend", wrong)
    monkeypatch.setattr(mrc_kernel, "interleaved", lambda *_: pytest.fail("timed"))
    with pytest.raises(SystemExit, match=f"ours: {part} is off"):
        mrc_kernel.measure(shapes()[0], CPU, torch.float32, 1, False, LIMITS)


def test_a_measurement_is_json_and_a_table():
    import mrc_kernel
    from mrc_report import markdown

    row = mrc_kernel.measure(shapes()[0], CPU, torch.float32, 1, False, LIMITS)
    assert json.loads(json.dumps(row))["branch"]["replicate"]["peak_ratio"] > 1
    result = {"command": "c", "commit": "", "device": "d", "threads": 1, "dtype": "fp32", "torch": "2"}
    table = markdown(result | {"machine": LIMITS, "shapes": [row]})
    assert table.count("\n|") == 2 + 9 and "keys and values once per image" in table


def test_peak_memory_counts_what_was_freed_again_and_nothing_else():
    from measuring import peak_bytes

    kept = []

    def run():
        kept.append(torch.ones(1 << 18))
        x = torch.ones(1 << 20)
        y = x + 1
        del x
        kept.append(y[:1].clone())

    assert 8 << 20 <= peak_bytes(run, CPU) < 9 << 20
