"""Foils of existence, number and counting."""

from random import Random

import pytest
from support.worlds import FULL, fingerprint, scenes

from relvlm.relworld.config import world_config
from relvlm.relworld.counting import counting_adversarial, counting_hard, counting_small, existence, plurals
from relvlm.relworld.scene import Background, Look, Scene, Thing

CONFIG = world_config("full", shapes=3)  # circle, square, triangle


def scene(*shapes: str) -> Scene:
    things = tuple(Thing(Look(shape, "red"), (0, 0, 9, 9)) for shape in shapes)
    return Scene(64, things, Background("white"))


def texts(make, shown: Scene) -> set[tuple[str, str]]:
    """(caption, foil) of all that is ever made of the scene."""
    made = [make(CONFIG, shown, Random(seed)) for seed in range(200)]
    return {(foil["caption"], foil["foil"]) for foil in made if foil}


TWO = scene("circle", "circle", "square")
SOME = ["There are circles in the picture.", "There are no circles in the picture."]
SQUARES = ["There are squares in the picture.", "There are no squares in the picture."]
NONE = ["There are no triangles in the picture.", "There are triangles in the picture."]


def test_existence_is_of_some_or_none() -> None:
    assert texts(existence, TWO) == {tuple(SOME), tuple(SQUARES), tuple(NONE)}
    classes = {(f["caption"][10:12] == "no", f["classes"], f["classes_foil"]) for f in made(existence)}
    assert classes == {(True, 0, 1), (False, 1, 0)}


def made(make) -> list:
    return [foil for foil in (make(CONFIG, TWO, Random(seed)) for seed in range(100)) if foil]


def test_plurals_are_of_one_or_several() -> None:
    assert texts(plurals, TWO) == {
        ("A number of circles in the picture.", "Exactly one circle in the picture."),
        ("Exactly one square in the picture.", "A number of squares in the picture."),
    }
    assert {(f["classes"], f["classes_foil"]) for f in made(plurals)} == {("circles", "circle"), ("square", "squares")}


def numbers(make, shown: Scene) -> set[tuple[int, int]]:
    found = [make(CONFIG, shown, Random(seed)) for seed in range(300)]
    return {(foil["classes"], foil["classes_foil"]) for foil in found if foil}


def test_a_number_is_against_any_other_up_to_the_most_objects() -> None:
    assert numbers(counting_hard, scene("circle", "circle")) == {
        *((2, n) for n in (0, 1, 3, 4, 5)),
        *((0, n) for n in (1, 2, 3, 4, 5)),
    }
    assert ("There are exactly 2 circles.", "There is exactly 1 circle.") in texts(counting_hard, TWO)


def test_small_numbers_go_to_three() -> None:
    assert numbers(counting_small, scene(*["circle"] * 3)) == {(3, 0), (3, 1), (3, 2), (0, 1), (0, 2), (0, 3)}
    assert numbers(counting_small, scene(*["circle"] * 4)) == {(0, 1), (0, 2), (0, 3)}


def test_adversarial_numbers_are_smaller_than_the_true_one_of_two_or_more() -> None:
    assert numbers(counting_adversarial, TWO) == {(2, 0), (2, 1)}


@pytest.mark.parametrize(
    ("maker", "expected"),
    [
        (existence, "684ed615be40"),
        (plurals, "64c80f6576ef"),
        (counting_hard, "95af7a0d5aa0"),
        (counting_small, "89c60d2501a6"),
        (counting_adversarial, "f913f4b0c324"),
    ],
)
def test_the_same_scenes_make_the_same_foils_in_every_version(maker, expected: str) -> None:
    rng = Random(0)
    assert fingerprint([maker(FULL, shown, rng) for shown in scenes(FULL, 40)]) == expected
