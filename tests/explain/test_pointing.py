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
from relvlm.explain.pointing import Pointing, _of_labels, figures, inside, point, pointings
from relvlm.explain.reading import read_text


def test_a_patch_counts_by_the_share_that_boxes_cover() -> None:
    assert inside([(0.0, 0.0, 0.5, 0.5)], (2, 2)).tolist() == [1, 0, 0, 0]
    assert inside([(0.25, 0.0, 0.75, 1.0)], (2, 2)).tolist() == [0.5, 0.5, 0.5, 0.5]
    assert inside([(0.0, 0.0, 1.0, 0.5), (0.0, 0.0, 0.5, 1.0)], (2, 2)).tolist() == [1, 1, 1, 0]  # once, not twice


def test_rows_come_first_on_a_grid_that_is_not_square() -> None:
    assert inside([(0.0, 0.5, 1.0, 1.0)], (2, 3)).tolist() == [0, 0, 0, 1, 1, 1]


def test_share_of_heat_and_area() -> None:
    share, hit, area = point(torch.tensor([3.0, 1.0, -9.0, 0.0]), [(0.0, 0.0, 0.5, 0.5)], (2, 2))
    assert (share, hit, area) == (0.75, True, 0.25)


@pytest.mark.parametrize(("x0", "hit"), [(0.25, True), (0.2501, False)])
def test_a_hit_is_the_centre_of_the_warmest_patch_in_a_box(x0: float, hit: bool) -> None:
    heat_N = torch.tensor([2.0, 1.0, 0.0, 0.0])
    assert point(heat_N, [(x0, 0.0, 1.0, 1.0)], (2, 2))[1] == hit
    assert point(heat_N, [(x0, 0.5, 1.0, 1.0), (0.0, 0.0, 0.3, 0.3)], (2, 2))[1]  # any of the boxes


def test_any_box_of_the_label_is_right(tmp_path: Path) -> None:
    entities = (
        Entity("a", "dog", (0, 0, 20, 30)),
        Entity("b", "dog", (20, 0, 40, 30)),
        Entity("c", "man", (0, 0, 4, 3)),
    )
    model = reader(tmp_path)
    tokens_SD = model.encode_image(eval_transform(32)(noise(0))[None]).detach()[0]
    dog, man = _of_labels(model, tokens_SD, Sample("1", 40, 30, entities=entities))
    assert (dog.label, dog.area, dog.hit) == ("dog", 1.0, True)
    assert dog.heat_inside == pytest.approx(1)
    expected = point(heat(model, tokens_SD, read_text(model, "man")).whole_N, [(0, 0, 0.1, 0.1)], (4, 4))
    assert (man.heat_inside, man.hit, man.area) == expected


def test_figures_are_means_in_percent_by_role() -> None:
    found = [Pointing("1", "label", "a", "a", 0.5, True, 0.25), Pointing("2", "label", "a", "a", 1.0, False, 0.75)]
    found.append(Pointing("2", "subject", "a on b", "a", 0.125, True, 0.5))
    assert figures(found) == {
        "label": {"heat_inside": 75, "hits": 50, "chance": 50, "n": 2},
        "subject": {"heat_inside": 12.5, "hits": 100, "chance": 50, "n": 1},
    }


@pytest.mark.parametrize(("limit", "photos"), [(0, 4), (3, 3), (9, 4)])
def test_labels_and_triplets_of_a_shard_set(tmp_path: Path, limit: int, photos: int) -> None:
    faults: list[str] = []
    found = list(pointings(reader(tmp_path), ShardSet(write_toys(tmp_path / "set", 4)), limit, faults))
    rows = [(each.role, each.text, each.label) for each in found]
    dog, cat = ("label", "dog", "dog"), ("label", "cat", "cat")
    triplet = [("subject", "dog near cat", "dog"), ("object", "dog near cat", "cat")]
    assert rows == [dog, cat, *triplet] * photos and not faults
    assert all(each.area == pytest.approx(1 / 3, abs=0.02) for each in found if each.label == "dog")


def test_a_damaged_photo_is_left_out_and_named(tmp_path: Path) -> None:
    members = [("a.png", b"no image"), ("a.json", b'{"schema": 1, "image_id": "1", "width": 8, "height": 6}')]
    members += [("b.png", toy_photo(1)), ("b.json", b'{"schema": 1, "image_id": "2", "width": 8, "height": 6}')]
    faults: list[str] = []
    assert list(pointings(reader(tmp_path), shard_set(tmp_path / "set", members, 2), 0, faults)) == []
    assert len(faults) == 1 and "a" in faults[0]
