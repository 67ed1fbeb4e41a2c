"""The knobs of a world."""

import pytest

from relvlm.errors import UserError
from relvlm.relworld.config import world_config


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"shapes": 99}, "shapes: 99"),
        ({"max_objects": 2, "min_objects": 4}, "max_objects"),
        ({"graph_fraction": 0.6, "entity_fraction": 0.6}, "graph_fraction"),
        ({"shapez": 3}, "shapez"),
        ({"predicates": ("under",)}, "under"),
    ],
)
def test_a_wrong_knob_is_one_clear_error(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        world_config("full", **knobs)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="full, mini"):
        world_config("tiny")
