"""The pointing game: shares, hits and chance by hand, and over a shard set."""

from pathlib import Path

import pytest
import torch
from support.readers import noise, reader
from support.shards import shard_set, toy_photo, write_toys

from relvlm.data.batches.transforms import eval_transform
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.shards.store import ShardSet
from relvlm.explain.heat import heat
from relvlm.explain.pointing import Example, Pointing, _of_labels, figures, inside, point, pointings
from relvlm.explain.reading import read_text


def test_a_patch_counts_by_the_share_that_boxes_cover() -> None:
    assert inside([(0.0, 0.0, 0.5, 0.5)], (2, 2)).tolist() == [1, 0, 0, 0]
    assert inside([(0.25, 0.0, 0.75, 1.0)], (2, 2)).tolist() == [0.5, 0.5, 0.5, 0.5]
    assert inside([(0.0, 0.0, 1.0, 0.5), (0.0, 0.0, 0.5, 1.0)], (2, 2)).tolist() == [1, 1, 1, 0]  # once, not twice


def test_rows_come_first_on_a_grid_that_is_not_square() -> None:
    assert inside([(0.0, 0.5, 1.0, 1.0)], (2, 3)).tolist() == [0, 0, 0, 1, 1, 1]


def test_share_of_heat_and_area() -> None:
    found = point(torch.tensor([3.0, 1.0, -9.0, 0.0]), [(0.0, 0.0, 0.5, 0.5)], (2, 2))
    assert found == Pointing(0.75, True, 0.25, 0.75, True, 0.25)


@pytest.mark.parametrize(("x1", "touched", "area"), [(0.5, 0.75, 0.25), (0.6, 1.0, 0.5)])
def test_a_patch_that_a_box_touches_counts_whole_beside_its_share(x1: float, touched: float, area: float) -> None:
    found = point(torch.tensor([3.0, 1.0, 0.0, 0.0]), [(0.25, 0.0, x1, 0.5)], (2, 2))
    assert found.touched_heat == touched and found.touched_area == area
    assert found.heat < found.touched_heat and found.area < found.touched_area


@pytest.mark.parametrize(("x0", "hit"), [(0.25, True), (0.2501, False)])
def test_a_hit_is_the_centre_of_the_warmest_patch_in_a_box(x0: float, hit: bool) -> None:
    heat_N = torch.tensor([2.0, 1.0, 0.0, 0.0])
    assert point(heat_N, [(x0, 0.0, 1.0, 1.0)], (2, 2)).hit == hit
    assert point(heat_N, [(x0, 0.5, 1.0, 1.0), (0.0, 0.0, 0.3, 0.3)], (2, 2)).hit  # any of the boxes


def test_any_box_of_the_label_is_right(tmp_path: Path) -> None:
    entities = (
        Entity("a", "dog", (0, 0, 20, 30)),
        Entity("b", "dog", (20, 0, 40, 30)),
        Entity("c", "man", (0, 0, 4, 3)),
    )
    model = reader(tmp_path)
    tokens_SD = model.encode_image(eval_transform(32)(noise(0))[None]).detach()[0]
    dog, man = _of_labels(model, tokens_SD, Sample("1", 40, 30, entities=entities))
    assert (dog.label, dog.pointing.area, dog.pointing.hit) == ("dog", 1.0, True)
    assert dog.pointing.heat == pytest.approx(1)
    expected = point(heat(model, tokens_SD, read_text(model, "man")).whole_N, [(0, 0, 0.1, 0.1)], (4, 4))
    assert man.pointing == expected


def test_figures_are_means_in_percent_by_role() -> None:
    first, second = Pointing(0.5, True, 0.25, 0.75, True, 0.5), Pointing(1.0, False, 0.75, 1.0, True, 1.0)
    found = [Example("1", "label", "a", "a", first), Example("2", "label", "a", "a", second)]
    found.append(Example("2", "subject", "a on b", "a", first))
    label = {"heat": 75, "hit": 50, "area": 50, "touched_heat": 87.5, "touched_hit": 100, "touched_area": 75, "n": 2}
    assert figures(found)["label"] == label
    assert (figures(found)["subject"]["heat"], figures(found)["subject"]["n"]) == (50, 1)


@pytest.mark.parametrize(("limit", "photos"), [(0, 4), (3, 3), (9, 4)])
def test_labels_and_triplets_of_a_shard_set(tmp_path: Path, limit: int, photos: int) -> None:
    faults: list[str] = []
    found = list(pointings(reader(tmp_path), ShardSet(write_toys(tmp_path / "set", 4)), limit, faults))
    rows = [(each.role, each.text, each.label) for each in found]
    dog, cat = ("label", "dog", "dog"), ("label", "cat", "cat")
    triplet = [("subject", "dog near cat", "dog"), ("object", "dog near cat", "cat")]
    assert rows == [dog, cat, *triplet] * photos and not faults
    assert all(each.pointing.area == pytest.approx(1 / 3, abs=0.02) for each in found if each.label == "dog")


def test_a_damaged_photo_is_left_out_and_named(tmp_path: Path) -> None:
    members = [("a.png", b"no image"), ("a.json", b'{"schema": 1, "image_id": "1", "width": 8, "height": 6}')]
    members += [("b.png", toy_photo(1)), ("b.json", b'{"schema": 1, "image_id": "2", "width": 8, "height": 6}')]
    faults: list[str] = []
    assert list(pointings(reader(tmp_path), shard_set(tmp_path / "set", members, 2), 0, faults)) == []
    assert len(faults) == 1 and "a" in faults[0]
