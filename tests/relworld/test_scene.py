"""What is true of a scene: boxes, relations and their inverses."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from support.worlds import FULL, MINI, scenes

from relvlm.relworld.bank import Bank
from relvlm.relworld.config import PRESETS, WorldConfig
from relvlm.relworld.foil_files import scene_pool
from relvlm.relworld.language import name
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Background, Look, Scene, Thing, facts, truth
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


def box(x: float, y: float, side: int) -> tuple[int, int, int, int]:
    return int(x), int(y), int(x) + side, int(y) + side


def pair(first: tuple[int, int, int, int], second: tuple[int, int, int, int], size: int = 100, **more) -> Scene:
    looks = (Look("square", "red"), Look("circle", "blue"))
    things = tuple(Thing(look, box) for look, box in zip(looks, (first, second), strict=True))
    return Scene(size, things, Background("white"), **more)


MEET = {"contacts": frozenset({(0, 1)})}


@pytest.mark.parametrize(
    ("predicate", "scene", "expected"),
    [
        # Ahead is 1.6 times aside, or nothing is said; level with it is not ahead at all.
        ("left of", pair(box(0, 0, 20), box(32, 20, 20), 128), True),
        ("left of", pair(box(0, 0, 20), box(31, 20, 20)), None),
        ("left of", pair(box(0, 0, 20), box(0, 40, 20)), False),
        ("left of", pair(box(0, 0, 20), box(1, 40, 20)), None),
        ("right of", pair(box(32, 20, 20), box(0, 0, 20), 128), True),
        ("right of", pair(box(0, 0, 20), box(0, 40, 20)), False),
        ("above", pair(box(0, 0, 20), box(20, 32, 20), 128), True),
        ("above", pair(box(0, 0, 20), box(20, 31, 20)), None),
        ("below", pair(box(20, 32, 20), box(0, 0, 20), 128), True),
        ("below", pair(box(0, 0, 20), box(40, 0, 20)), False),
        # Ahead of a wide thing's centre, and not past its edge.
        ("left of", pair(box(20, 20, 10), box(10, 30, 40)), None),
        ("left of", pair(box(0, 0, 20), box(20, 0, 20)), True),
        ("left of", pair(box(0, 0, 20), box(19, 0, 20)), None),
        ("left of", pair(box(0, 0, 20), box(19, 0, 20), **MEET), True),
        ("left of", pair(box(0, 0, 20), box(19, 0, 20), contacts=frozenset({(1, 0)})), True),
        ("above", pair(box(0, 0, 20), box(0, 20, 20)), True),
        ("above", pair(box(0, 0, 20), box(0, 19, 20)), None),
        # What one covers is neither beside it nor clear of it.
        ("in front of", pair(box(0, 0, 20), box(10, 10, 20)), False),
        ("behind", pair(box(0, 0, 20), box(10, 10, 20)), True),
        ("in front of", pair(box(0, 0, 20), box(20, 0, 20)), None),
        ("behind", pair(box(0, 0, 20), box(0, 20, 20)), None),
        ("in front of", pair(box(0, 0, 20), box(15, 0, 20), **MEET), None),
        ("in front of", pair(box(0, 0, 40), box(10, 10, 10), nested=frozenset({(1, 0)})), None),
        ("behind", pair(box(10, 10, 10), box(0, 0, 40), nested=frozenset({(0, 1)})), None),
        ("inside", pair(box(0, 0, 40), box(10, 10, 10), nested=frozenset({(1, 0)})), False),
        ("contains", pair(box(0, 0, 40), box(10, 10, 10), nested=frozenset({(1, 0)})), True),
        ("inside", pair(box(10, 10, 10), box(0, 0, 40), nested=frozenset({(0, 1)})), True),
        ("contains", pair(box(10, 10, 10), box(0, 0, 40), nested=frozenset({(0, 1)})), False),
        ("inside", pair(box(0, 0, 20), box(10, 10, 20)), None),
        ("contains", pair(box(0, 0, 20), box(10, 10, 20)), None),
        ("inside", pair(box(0, 0, 20), box(30, 0, 20)), False),
        ("contains", pair(box(0, 0, 20), box(30, 0, 20)), False),
        # A gap of 6 is no touch, a smaller one is anybody's guess.
        ("touching", pair(box(0, 0, 20), box(26, 0, 20)), False),
        ("touching", pair(box(0, 0, 20), box(25, 0, 20)), None),
        ("touching", pair(box(0, 0, 20), box(20, 0, 20), **MEET), True),
        ("on", pair(box(0, 0, 20), box(9, 20, 20), **MEET), True),
        ("on", pair(box(0, 0, 20), box(10, 20, 20), **MEET), False),
        ("on", pair(box(0, 20, 20), box(0, 0, 20), **MEET), False),
        ("on", pair(box(0, 0, 20), box(20, 0, 20), **MEET), False),
        ("on", pair(box(0, 0, 20), box(0, 26, 20)), False),
        ("on", pair(box(0, 0, 20), box(0, 25, 20)), None),
        ("on", pair(box(0, 0, 20), box(10, 10, 20)), None),
        ("near", pair(box(0, 0, 20), box(32, 0, 20)), True),
        ("near", pair(box(0, 0, 20), box(33, 0, 20)), None),
        ("near", pair(box(0, 0, 20), box(49, 0, 20)), None),
        ("near", pair(box(0, 0, 20), box(50, 0, 20)), False),
        ("near", pair(box(0, 0, 20), box(20, 0, 20), **MEET), None),
        ("near", pair(box(0, 0, 20), box(10, 0, 20)), None),
        ("far from", pair(box(0, 0, 20), box(62, 0, 20)), True),
        ("far from", pair(box(0, 0, 20), box(61, 0, 20)), None),
        ("far from", pair(box(0, 0, 20), box(41, 0, 20)), None),
        ("far from", pair(box(0, 0, 20), box(40, 0, 20)), False),
        ("far from", pair(box(0, 0, 20), box(45, 54, 20)), True),  # as the crow flies, 25 and 34
        # An action leaves open what it looks like, and only between its own two things.
        ("facing", pair(box(0, 0, 20), box(50, 0, 20), actions=((0, "pointing at", 1),)), None),
        ("facing", pair(box(0, 0, 20), box(50, 0, 20), actions=((1, "pointing at", 0),)), False),
        ("facing away from", pair(box(0, 0, 20), box(50, 0, 20), actions=((1, "chasing", 0),)), None),
        ("facing", pair(box(0, 0, 20), box(50, 0, 20), actions=((0, "facing", 1),)), True),
    ],
)
def test_what_is_said_of_a_pair_changes_at_its_edge(predicate: str, scene: Scene, expected: bool | None) -> None:
    assert truth(scene, 0, predicate, 1) is expected


def test_small_is_under_a_fifth_and_large_over_three_tenths() -> None:
    words = [pair(box(0, 0, side), box(0, 0, 1)).size_word(0) for side in (20, 21, 30, 31)]
    assert words == ["small", None, None, "large"]


def test_facts_are_what_is_true_in_order() -> None:
    for scene in scenes(FULL, 40):
        every = [(i, p, j) for i, j in permutations(range(len(scene.things)), 2) for p in FULL.predicates]
        true = [fact for fact in every if truth(scene, *fact) is True]
        assert sorted(facts(FULL, scene)) == sorted(true)
        assert [fact[::2] for fact in facts(FULL, scene)] == [fact[::2] for fact in true]


def test_a_thing_has_a_side_and_a_centre() -> None:
    thing = Thing(Look("star", "red"), (2, 4, 12, 14))
    assert (thing.side, thing.centre, thing.look.kind) == (10, (7.0, 9.0), ("red", "star"))
