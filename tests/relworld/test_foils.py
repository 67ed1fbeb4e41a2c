"""Foils that differ from a true sentence by a relation, a thing or a colour."""

from random import Random

import pytest
from support.worlds import FULL, MINI, fingerprint, holds, scenes

from relvlm.relworld import foils
from relvlm.relworld.lexicon import ACTIONS
from relvlm.relworld.scene import Background, Look, Scene, Thing

BOXES = ((2, 20, 16, 34), (40, 20, 54, 34))


def scene(first: Look, second: Look) -> Scene:
    return Scene(64, (Thing(first, BOXES[0]), Thing(second, BOXES[1])), Background("white"), main=(0, "left of", 1))


def made(maker, shown: Scene, config=MINI) -> list[foils.Foil]:
    return [foil for foil in (maker(config, shown, Random(seed)) for seed in range(60)) if foil]


RED_CIRCLE, BLUE_SQUARE = Look("circle", "red"), Look("square", "blue")
SHOWN = scene(RED_CIRCLE, BLUE_SQUARE)
CAPTION = "The red circle is left of the blue square."


@pytest.mark.parametrize(
    ("maker", "foil"),
    [
        (foils.relations, "The red circle is right of the blue square."),
        (foils.swap_obj, "The blue square is left of the red circle."),
        (foils.swap_att, "The blue circle is left of the red square."),
        (foils.replace_att, "The green circle is left of the blue square."),
        (foils.replace_att, "The red circle is left of the yellow square."),
        (foils.replace_obj, "The red triangle is left of the blue square."),
        (foils.replace_obj, "The red circle is left of the blue circle."),
    ],
)
def test_one_thing_is_changed_in_what_the_main_fact_says(maker, foil: str) -> None:
    found = made(maker, SHOWN)
    assert {f["caption"] for f in found} == {CAPTION}
    assert foil in {f["foil"] for f in found}
    assert all(holds(MINI, SHOWN, str(f["foil"])) is False for f in found)


def test_half_of_the_relations_are_the_inverse() -> None:
    found = [f["classes_foil"] for f in made(foils.relations, SHOWN)]
    assert 0.5 < found.count("right of") / len(found) < 0.85


def test_colours_are_exchanged_only_where_that_is_false() -> None:
    assert not made(foils.swap_att, scene(RED_CIRCLE, Look("square", "red")))
    assert not made(foils.swap_att, scene(RED_CIRCLE, Look("circle", "blue")))


def test_what_the_scene_shows_is_no_replacement() -> None:
    shown = scene(RED_CIRCLE, Look("circle", "green"))
    assert {f["classes_foil"] for f in made(foils.replace_att, shown)} == {"blue", "yellow"}
    assert {f["classes_foil"] for f in made(foils.add_att, shown)} == {"blue", "yellow"}
    assert {f["classes_foil"] for f in made(foils.foil_it, shown)} == {"square", "triangle"}


def test_what_is_added_is_not_there() -> None:
    found = made(foils.add_obj, SHOWN)
    assert {f["caption"] for f in found} == {"There is a red circle and a blue square."}
    assert "There is a red circle and a green circle and a blue square." in {f["foil"] for f in found}
    assert not {"red circle", "blue square"} & {f["classes_foil"] for f in found}


def test_replaced_relations_are_actions_at_times() -> None:
    acted = scenes(FULL, 1, predicate="pushing")[0]
    found = [foil["classes"] in ACTIONS for foil in made(foils.replace_rel, acted, FULL)]
    assert 0.2 < sum(found) / len(found) < 0.65


MAKERS = {name: getattr(foils, name) for name in ("replace_rel", "swap_obj", "swap_att", "replace_att", "replace_obj")}
MAKERS |= {
    name: getattr(foils, name) for name in ("add_att", "add_obj", "foil_it", "actant_swap", "action_replacement")
}


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_the_same_scenes_make_the_same_foils_in_every_version(config) -> None:
    rng = Random(0)
    found = {name: [maker(config, shown, rng) for shown in scenes(config, 40)] for name, maker in MAKERS.items()}
    assert fingerprint(found) == {5: "4ec894014246", 2: "e2e6d5d12719"}[config.max_objects]
