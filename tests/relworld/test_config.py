"""The knobs of a world."""

import pytest
from support.worlds import fingerprint

from relvlm.errors import UserError
from relvlm.relworld.config import PRESETS, all_kinds, held_out, is_held_out, world_config
from relvlm.relworld.lexicon import PREDICATES

SHARES = ("action_share", "occlusion", "mirrored_share", "swapped_share", "caption_relations", "caption_noise")
LIMITS = {
    "image_size": (24, 512),
    "shapes": (2, 10),
    "colours": (2, 8),
    "textures": (1, 4),
    "backgrounds": (1, 4),
    "patterns": (1, 3),
    "min_objects": (2, 8),
    "max_objects": (2, 8),
    "held_out_share": (0, 0.3),
    "phrases": (0, 4),
    "graph_fraction": (0.001, 0.9),
    "entity_fraction": (0.001, 0.9),
    "benchmark_pairs": (40, 1_000_000),
    **dict.fromkeys(SHARES, (0, 1)),
}


@pytest.mark.parametrize(("knob", "limits"), LIMITS.items())
def test_a_knob_goes_from_its_least_to_its_greatest_value(knob: str, limits: tuple[float, float]) -> None:
    others = {"graph_fraction": 0.01, "entity_fraction": 0.01, "min_objects": 2, "max_objects": 8}
    step = 1 if type(limits[1]) is int and knob not in SHARES else 0.001
    for limit, beyond in zip(limits, (limits[0] - step, limits[1] + step), strict=True):
        assert getattr(world_config("full", **(others | {knob: limit})), knob) == limit
        with pytest.raises(UserError, match=f"{knob}: {beyond} is not between {limits[0]} and {limits[1]}"):
            world_config("full", **(others | {knob: beyond}))


def test_the_presets_are_what_published_worlds_were_made_with() -> None:
    assert fingerprint(sorted(PRESETS.items())) == "83bf9ffb89ac"


def test_a_world_needs_images_for_captions_alone() -> None:
    assert world_config("full", graph_fraction=0.5, entity_fraction=0.49)
    with pytest.raises(UserError, match="leave nothing for captions"):
        world_config("full", graph_fraction=0.5, entity_fraction=0.5)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_world_holds_out_its_share_and_the_same_in_every_version(preset: str) -> None:
    config = PRESETS[preset]
    kinds, families = len(all_kinds(config)), len({PREDICATES[p].family for p in config.predicates})
    found = held_out(config)
    assert len(found) == pytest.approx(config.held_out_share * families * kinds * (kinds - 1) / 2, rel=0.2)
    assert (
        fingerprint(sorted((sorted(pair), family) for pair, family in found))
        == {"full": "5598aa990540", "mini": "7d0d1b1375ac", "small": "7d0d1b1375ac"}[preset]
    )


def test_a_combination_is_held_out_both_ways_and_with_its_inverse() -> None:
    config = PRESETS["mini"]
    pair, _ = next(found for found in held_out(config) if found[1] == "horizontal")
    first, second = pair
    for subject, obj in ((first, second), (second, first)):
        assert is_held_out(config, subject, "left of", obj) and is_held_out(config, subject, "right of", obj)


def test_predicates_are_spatial_or_actions() -> None:
    config = PRESETS["mini"]
    assert (config.spatial, config.actions) == (("left of", "right of", "above", "below"), ("pushing", "pulling"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"shapes": 99}, "shapes: 99"),
        ({"max_objects": 2, "min_objects": 4}, "max_objects"),
        ({"shapes": 2, "colours": 2, "max_objects": 4}, "max_objects: 4 need more kinds than the 4 of 2 shapes"),
        ({"graph_fraction": 0.6, "entity_fraction": 0.6}, "graph_fraction"),
        ({"shapez": 3}, "shapez"),
        ({"predicates": ("under",)}, "under"),
    ],
)
def test_a_wrong_knob_is_one_clear_error(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        world_config("full", **knobs)


def test_one_kind_more_than_an_image_shows_is_enough() -> None:
    assert world_config("full", shapes=2, colours=2, max_objects=3).max_objects == 3


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="full, mini"):
        world_config("tiny")
