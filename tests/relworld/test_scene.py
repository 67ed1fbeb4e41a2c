"""What is true of a scene: boxes, relations and their inverses."""

from collections import Counter

import numpy as np
import pytest
from support.worlds import FULL, MINI, scenes

from relvlm.relworld.bank import Bank
from relvlm.relworld.config import PRESETS, WorldConfig
from relvlm.relworld.foil_files import scene_pool
from relvlm.relworld.language import name
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Scene, facts, truth
from relvlm.relworld.shapes import shape_mask, solid_mask


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_boxes_are_tight_and_inside_the_image(preset: str) -> None:
    for scene in scenes(PRESETS[preset], 60):
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= scene.size and 0 <= y0 < y1 <= scene.size
            alpha = shape_mask(thing.look.shape, thing.side)
            assert alpha.size == (x1 - x0, y1 - y0)
            assert alpha.getbbox() == (0, 0, x1 - x0, y1 - y0)


@pytest.mark.parametrize("predicate", PREDICATES)
def test_a_wanted_relation_holds(predicate: str) -> None:
    for scene in scenes(FULL, 15, predicate=predicate):
        assert scene.main[1] == predicate
        assert scene.main in facts(FULL, scene)


def centre(scene: Scene, index: int) -> tuple[float, float]:
    x0, y0, x1, y1 = scene.things[index].box
    return (x0 + x1) / 2, (y0 + y1) / 2


def test_directions_are_those_of_the_centres_and_clearly_dominate() -> None:
    axis = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
    checked = Counter[str]()
    for scene in scenes(FULL, 150):
        for i, predicate, j in facts(FULL, scene):
            if predicate in axis:
                along, sign = axis[predicate]
                delta = [b - a for a, b in zip(centre(scene, i), centre(scene, j), strict=True)]
                assert sign * delta[along] > 1.5 * abs(delta[1 - along])
                checked[predicate] += 1
    assert set(checked) == set(axis)


def mask_in_image(scene: Scene, index: int) -> np.ndarray:
    thing = scene.things[index]
    canvas = np.zeros((scene.size, scene.size), bool)
    canvas[thing.box[1] : thing.box[3], thing.box[0] : thing.box[2]] = solid_mask(thing.look.shape, thing.side)
    return canvas


@pytest.mark.parametrize("predicate", ["on", "touching"])
def test_shapes_in_contact_meet_and_not_only_their_boxes(predicate: str) -> None:
    for scene in scenes(FULL, 40, predicate=predicate):
        i, _, j = scene.main
        common = mask_in_image(scene, i) & mask_in_image(scene, j)
        assert common.any()
        assert common.sum() < 0.3 * min(mask_in_image(scene, i).sum(), mask_in_image(scene, j).sum())


def test_what_is_inside_lies_within_its_container_and_stays_visible() -> None:
    for scene in scenes(FULL, 60, predicate="inside"):
        i, _, j = scene.main
        inner, outer = mask_in_image(scene, i), mask_in_image(scene, j)
        assert (inner & outer).sum() > 0.75 * inner.sum()
        assert i > j  # drawn later


def test_the_one_in_front_covers_a_part_of_the_one_behind() -> None:
    for scene in scenes(FULL, 40, predicate="in front of"):
        i, _, j = scene.main
        assert i > j
        a, b = scene.things[i].box, scene.things[j].box
        assert min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_a_predicate_and_its_inverse_agree(config: WorldConfig) -> None:
    for scene in scenes(config, 60):
        for i, predicate, j in facts(config, scene):
            inverse = PREDICATES[predicate].inverse
            if inverse:
                assert (j, inverse, i) in facts(config, scene)
                if inverse != predicate:
                    assert truth(scene, i, inverse, j) is False


def test_kinds_are_unique_within_a_scene() -> None:
    for scene in scenes(FULL, 60):
        names = [name(t.look) for t in scene.things]
        assert len(set(names)) == len(names)


def test_facts_name_predicates_in_use(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    for _, scene in scene_pool(bank)[:40]:
        assert {fact[1] for fact in facts(config, scene)} <= set(config.predicates)
