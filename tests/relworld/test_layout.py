"""Where things stand before anybody knows what they are."""

from random import Random

import pytest
from support.worlds import FULL, MINI, fingerprint

from relvlm.relworld.config import world_config
from relvlm.relworld.layout import Layout, dress, sample_layout
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Background, Look

WHITE = Background("white")
LOOKS = (Look("triangle", "red"), Look("moon", "blue"), Look("star", "green"), Look("cross", "pink"))


def layouts(config, predicate: str, count: int) -> list[Layout | None]:
    return [sample_layout(config, Random(f"{predicate}/{seed}"), predicate, count) for seed in range(30)]


@pytest.mark.parametrize(
    ("config", "count", "expected"),
    [
        (MINI, 2, "0f48da5e5fc0"),
        (FULL, 2, "8e744b8973cc"),
        (FULL, 4, "77e55e8d00d8"),
        (world_config("full", occlusion=1.0), 4, "11bbaf332c78"),
    ],
    ids=["mini", "two", "four", "covered"],
)
def test_the_same_arguments_make_the_same_layouts_in_every_version(config, count: int, expected: str) -> None:
    assert fingerprint([layouts(config, predicate, count) for predicate in PREDICATES]) == expected


def test_the_same_looks_settle_at_the_same_places_in_every_version() -> None:
    things = [
        dress(64, layout, looks, WHITE).things
        for predicate in ("on", "touching", "inside", "contains", "near")
        for layout in layouts(FULL, predicate, 2)
        for looks in (LOOKS[:2], LOOKS[1:3], LOOKS[2:])
        if layout
    ]
    assert fingerprint(things) == "31e0b4d63de5"


@pytest.mark.parametrize("predicate", PREDICATES)
def test_everything_keeps_a_pixel_from_the_edge_and_clear_of_the_marks(predicate: str) -> None:
    for layout in filter(None, layouts(FULL, predicate, 3)):
        for x0, y0, x1, y1 in layout.boxes:
            assert 1 <= x0 < x1 <= 63 and 1 <= y0 < y1 <= 63
        x0, y0, x1, y1 = layout.boxes[2]
        clear = layout.keep_clear
        assert (
            clear == (0, 0, 0, 0)
            or x1 + 3 <= clear[0]
            or clear[2] + 3 <= x0
            or y1 + 3 <= clear[1]
            or clear[3] + 3 <= y0
        )
