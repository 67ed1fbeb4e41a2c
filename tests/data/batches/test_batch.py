import numpy as np
import pytest
import torch

from relvlm.data.batches.batch import Batch, Group, Section, View, assemble, distinct_texts
from relvlm.data.batches.regions import Region, whole_region
from relvlm.data.batches.transforms import CLIP_MEAN, CLIP_STD

WHOLE = whole_region(32, 8)
PART = Region((1, 0, 3, 2), (0.5, 0.25, 0.4, 0.5))


def group(ids, key, region, positions=()):
    masked = [4 if i in positions else token for i, token in enumerate(ids)]
    return Group(ids, key, region, masked, list(positions), [ids[p] for p in positions])


def view(key, groups, triplets=(), kind="entities"):
    return View(np.full((32, 32, 3), key, np.uint8), key, {kind: groups}, triplets)


FIRST = [group([2, 7, 8, 3], 70, PART, [1, 2]), group([2, 9, 3], 71, WHOLE, [1])]
SECOND = [group([2, 9, 9, 3], 72, WHOLE), group([2, 6, 3], 73, PART, [1])]
LABELS = [group([2, 7, 8, 3], 70, PART), group([2, 9, 3], 71, WHOLE)]


@pytest.fixture
def batch():
    return assemble("entities", "coco", [view(10, FIRST), view(11, SECOND)], (4, 4))


def test_texts_are_packed_group_by_group(batch):
    assert batch.text_ids.tolist() == [2, 7, 8, 3, 2, 9, 3, 2, 9, 9, 3, 2, 6, 3]
    assert batch.regions.offsets.tolist() == [0, 4, 7, 11, 14]
    assert batch.text_key.tolist() == [70, 71, 72, 73]


def test_groups_name_their_image_and_box(batch):
    assert batch.images == 2
    assert batch.image_key.tolist() == [10, 11]
    assert batch.regions.image.tolist() == [0, 0, 1, 1]
    assert batch.regions.box.tolist() == [[1, 0, 3, 2], [0, 0, 4, 4], [0, 0, 4, 4], [1, 0, 3, 2]]
    assert batch.whole.tolist() == batch.regions.prefix.tolist() == [False, True, True, False]
    assert batch.regions.mean.tolist() == [True, False, False, True]
    assert batch.target_box[0].tolist() == pytest.approx([0.5, 0.25, 0.4, 0.5])


def test_masked_rows_count_in_packed_tokens(batch):
    assert batch.mlm_row.tolist() == [1, 2, 5, 12]
    assert batch.mlm_label.tolist() == [7, 8, 9, 6]
    assert batch.mlm_ids[batch.mlm_row].tolist() == [4, 4, 4, 4]
    kept = torch.ones(len(batch.text_ids), dtype=torch.bool)
    kept[batch.mlm_row] = False
    assert torch.equal(batch.mlm_ids[kept], batch.text_ids[kept])


def test_triplets_name_groups_of_the_batch():
    views = [view(10, FIRST, [(0, 1, 5)], "mrc"), view(11, SECOND, [(1, 0, 6), (0, 1, 2)], "mrc")]
    batch = assemble("mrc", "coco", views, (4, 4))
    assert batch.subject.tolist() == [0, 3, 2]
    assert batch.object.tolist() == [1, 2, 3]
    assert batch.relation.tolist() == [5, 6, 2]
    assert len(batch.mlm_ids) == len(batch.mlm_row) == 0


def test_a_joint_batch_has_a_section_for_each_kind_and_its_photos_once():
    caption = group([2, 5, 5, 3], 74, WHOLE, [2])
    views = [
        View(np.zeros((32, 32, 3), np.uint8), key, {"mrc": LABELS, "captions": [caption], "entities": parts}, triplets)
        for key, parts, triplets in ((10, FIRST, [(0, 1, 5)]), (11, SECOND, [(1, 0, 6)]))
    ]  # fmt: skip
    weights = {"captions": 1.0, "entities": 2.0, "mrc": 0.5, "vsg": 0.0}
    batch = assemble("joint", "coco", views, (4, 4), weights)
    assert (batch.images, batch.aligned) == (2, 6)
    assert batch.text_key.tolist() == [74, 74, 70, 71, 72, 73, 70, 71, 70, 71]
    assert batch.regions.image.tolist() == [0, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert batch.region.tolist() == [2, 5, 6, 8]
    x0, y0, x1, y1 = batch.regions.box[batch.region].unbind(1)
    assert batch.region_patches == ((x1 - x0) * (y1 - y0)).sum()
    assert batch.sections == (
        Section("captions", slice(0, 2), slice(0, 2), slice(0, 0), 1.0),
        Section("entities", slice(2, 6), slice(2, 6), slice(0, 2), 2.0),
        Section("mrc", slice(6, 10), slice(6, 6), slice(2, 4), 0.5),
    )
    assert (batch.subject.tolist(), batch.object.tolist()) == ([6, 9], [7, 8])
    assert len(batch.mlm_ids) == int(batch.regions.offsets[6])
    assert batch.mlm_ids[batch.mlm_row].tolist() == [4] * 6


def test_dtypes_and_empty_parts():
    batch = assemble("captions", "coco", [view(1, [group([2, 3], 5, WHOLE)])], (4, 4))
    expected = {
        torch.uint8: ("pixels",),
        torch.float32: ("target_box",),
        torch.bool: ("whole",),
        torch.int64: (
            "image_key",
            "text_ids",
            "text_key",
            "mlm_ids",
            "mlm_row",
            "mlm_label",
            "subject",
            "relation",
        ),
    }
    for dtype, names in expected.items():
        assert {name: getattr(batch, name).dtype for name in names} == dict.fromkeys(names, dtype)
    regions = batch.regions
    assert {x.dtype for x in (regions.offsets, regions.image, regions.box)} == {torch.int32}
    assert regions.mean.dtype == torch.bool and regions.grid == (4, 4)
    assert batch.pixels.shape == (1, 3, 32, 32)
    assert batch.mlm_row.shape == batch.mlm_label.shape == batch.object.shape == (0,)


def test_to_moves_every_tensor(batch):
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert (moved.kind, moved.dataset) == ("entities", "coco")
    assert all(v.is_meta for v in vars(moved).values() if isinstance(v, torch.Tensor))


def test_pixels_are_normalised_where_they_go_to_and_once(batch):
    moved = batch.to("cpu")
    assert moved.pixels.dtype == torch.float32 and moved.pixels.is_contiguous()
    assert moved.pixels[1, 2, 0, 0].item() == pytest.approx((11 / 255 - CLIP_MEAN[2]) / CLIP_STD[2], abs=1e-6)
    assert torch.equal(moved.to("cpu").pixels, moved.pixels)


def test_normalised_bytes_are_the_floats_that_workers_used_to_make():
    bytes_BHWC = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    views = [View(pixels, n, {"captions": [group([2, 3], 5, WHOLE)]}) for n, pixels in enumerate(bytes_BHWC)]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    floats = torch.from_numpy(bytes_BHWC.transpose(0, 3, 1, 2).copy()).to(torch.float32)
    expected = floats.mul_(1 / (255 * std)).sub_(mean / std)
    assert torch.equal(assemble("captions", "coco", views, (4, 4)).to("cpu").pixels, expected)


def test_equal_texts_are_named_once_in_the_order_they_come():
    found = distinct_texts([7, 8, 7, 9], [0, 2, 5, 7, 8])
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 7]
    assert found.cu.tolist() == [0, 2, 5, 6]
    assert found.of_group.tolist() == [0, 1, 0, 2]


def test_a_batch_of_one_kind_is_one_section_of_all_that_it_holds(batch):
    (section,) = batch.sections
    assert (section.kind, section.groups) == ("entities", slice(0, 4))
    assert (section.masked, section.regions) == (slice(0, len(batch.mlm_row)), slice(0, len(batch.region)))
