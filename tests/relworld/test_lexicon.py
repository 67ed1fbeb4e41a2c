"""The words of the world, and the colours they stand for."""

from colorsys import rgb_to_hsv
from itertools import combinations

import pytest
from support.worlds import fingerprint

from relvlm.relworld.lexicon import BACKGROUNDS, COLOURS, LEFT_OPEN, PLURALS, PREDICATES

HUES = {"red": 0, "orange": 30, "yellow": 52, "green": 131, "cyan": 189, "blue": 229, "purple": 279, "pink": 330}


def test_published_colours_stay_as_they_are() -> None:
    assert fingerprint((COLOURS, BACKGROUNDS)) == "e50cc36b11c4"


@pytest.mark.parametrize(("colour", "hue"), HUES.items())
def test_a_colour_has_the_hue_of_its_name(colour: str, hue: int) -> None:
    assert rgb_to_hsv(*(channel / 255 for channel in COLOURS[colour]))[0] * 360 == pytest.approx(hue, abs=3)


def test_colours_and_backgrounds_can_be_told_apart() -> None:
    for one, other in combinations([*COLOURS.values(), *BACKGROUNDS.values()], 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 50


def test_plurals() -> None:
    assert (PLURALS["star"], PLURALS["cross"]) == ("stars", "crosses")


def test_inverses_are_mutual_and_of_one_family() -> None:
    for predicate in PREDICATES.values():
        if predicate.inverse:
            inverse = PREDICATES[predicate.inverse]
            assert (inverse.inverse, inverse.family) == (predicate.name, predicate.family)


def test_only_actions_leave_something_open() -> None:
    assert all(PREDICATES[action].action for action in LEFT_OPEN)
