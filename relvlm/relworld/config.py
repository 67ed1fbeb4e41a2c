"""The difficulty knobs, two presets, and which combinations the training sets never show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from itertools import combinations
from typing import Any

from relvlm.errors import UserError
from relvlm.relworld.lexicon import BACKGROUNDS, COLOURS, PATTERNS, PREDICATES, SHAPES, TEXTURES

Kind = tuple[str, str]  # (colour, shape)


@dataclass(frozen=True)
class WorldConfig:
    """How hard the world is; the defaults are the preset `full`."""

    image_size: int = 64
    shapes: int = len(SHAPES)
    colours: int = len(COLOURS)
    textures: int = len(TEXTURES)
    backgrounds: int = len(BACKGROUNDS)
    patterns: int = len(PATTERNS)
    min_objects: int = 2
    max_objects: int = 5
    min_side: float = 0.17
    max_side: float = 0.34
    predicates: tuple[str, ...] = tuple(PREDICATES)
    action_share: float = 0.45
    tail: float = 0.0
    occlusion: float = 0.15
    held_out_share: float = 0.03
    mirrored_share: float = 0.5
    swapped_share: float = 0.5
    relation_noise: float = 0.0
    caption_relations: float = 0.06
    caption_noise: float = 0.05
    size_words: bool = True
    phrases: int = 1
    graph_fraction: float = 0.2
    entity_fraction: float = 0.3
    paragraph_siblings: int = 1
    benchmark_pairs: int = 1000

    def __post_init__(self) -> None:
        _check(self)

    @property
    def shape_names(self) -> tuple[str, ...]:
        """The shapes in use."""
        return SHAPES[: self.shapes]

    @property
    def colour_names(self) -> tuple[str, ...]:
        """The colours in use."""
        return tuple(COLOURS)[: self.colours]

    @property
    def background_names(self) -> tuple[str, ...]:
        """The background colours in use."""
        return tuple(BACKGROUNDS)[: self.backgrounds]

    @cached_property
    def spatial(self) -> tuple[str, ...]:
        """The predicates in use that positions decide."""
        return tuple(p for p in self.predicates if not PREDICATES[p].action)

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """The predicates in use that marks depict."""
        return tuple(p for p in self.predicates if PREDICATES[p].action)


_RANGES = {
    "image_size": (24, 512),
    "shapes": (2, len(SHAPES)),
    "colours": (2, len(COLOURS)),
    "textures": (1, len(TEXTURES)),
    "backgrounds": (1, len(BACKGROUNDS)),
    "patterns": (1, len(PATTERNS)),
    "min_objects": (2, 8),
    "max_objects": (2, 8),
    "min_side": (0.1, 0.5),
    "max_side": (0.1, 0.6),
    "action_share": (0, 1),
    "tail": (0, 4),
    "occlusion": (0, 1),
    "held_out_share": (0, 0.3),
    "mirrored_share": (0, 1),
    "swapped_share": (0, 1),
    "relation_noise": (0, 1),
    "caption_relations": (0, 1),
    "caption_noise": (0, 1),
    "phrases": (0, 4),
    "graph_fraction": (0.001, 0.9),
    "entity_fraction": (0.001, 0.9),
    "paragraph_siblings": (1, 10),
    "benchmark_pairs": (40, 1_000_000),
}


def _check(config: WorldConfig) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise UserError(f"relworld: {name}: {value} is not between {low} and {high}")
    if config.max_objects < config.min_objects:
        raise UserError(f"relworld: max_objects: {config.max_objects} is below min_objects {config.min_objects}")
    if config.shapes * config.colours <= config.max_objects:  # in an image no kind is there twice, and one is absent
        raise UserError(
            f"relworld: max_objects: {config.max_objects} need more kinds than the {config.shapes * config.colours} of "
            f"{config.shapes} shapes and {config.colours} colours (fewer objects, or more shapes or colours)"
        )
    if config.max_side < config.min_side:
        raise UserError(f"relworld: max_side: {config.max_side} is below min_side {config.min_side}")
    if config.graph_fraction + config.entity_fraction >= 1:
        raise UserError("relworld: graph_fraction + entity_fraction: leave nothing for captions (keep the sum < 1)")
    unknown = set(config.predicates) - set(PREDICATES)
    if unknown:
        raise UserError(f"relworld: predicates: unknown {sorted(unknown)} (known: {', '.join(PREDICATES)})")


MINI = WorldConfig(
    image_size=32,
    shapes=3,
    colours=4,
    textures=1,
    backgrounds=2,
    patterns=1,
    max_objects=2,
    min_side=0.26,
    max_side=0.38,
    predicates=("left of", "right of", "above", "below", "pushing", "pulling"),
    action_share=0.2,
    occlusion=0.0,
    held_out_share=0.1,
    mirrored_share=0.25,
    swapped_share=0.2,
    caption_relations=0.25,
    size_words=False,
    phrases=0,
)
PRESETS: dict[str, WorldConfig] = {
    "full": WorldConfig(),
    "mini": MINI,
    "small": replace(MINI, max_objects=3, min_side=0.2, max_side=0.32, paragraph_siblings=2),
}


def world_config(preset: str, **knobs: Any) -> WorldConfig:
    """The preset with every knob that is not None put in its place; UserError for an unknown name."""
    if preset not in PRESETS:
        raise UserError(f"relworld: preset: {preset!r} is none of {', '.join(PRESETS)}")
    known = {f.name for f in fields(WorldConfig)}
    unknown = sorted(set(knobs) - known)
    if unknown:
        raise UserError(f"relworld: {unknown[0]}: no such knob (knobs: {', '.join(sorted(known))})")
    return replace(PRESETS[preset], **{k: v for k, v in knobs.items() if v is not None})


def all_kinds(config: WorldConfig) -> list[Kind]:
    """Every (colour, shape) of the world."""
    return [(c, s) for c in config.colour_names for s in config.shape_names]


def _draw(first: Kind, family: str, second: Kind) -> float:
    text = "|".join((*first, family, *second))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


@cache
def held_out(config: WorldConfig) -> frozenset[tuple[frozenset[Kind], str]]:
    """(unordered pair of kinds, family) that training never shows.

    Decided by a hash of the words, not by the seed: worlds of two seeds hold out the same combinations, so one may
    be evaluated on the other's benchmarks.
    """
    families = sorted({PREDICATES[p].family for p in config.predicates})
    pairs = combinations(sorted(all_kinds(config)), 2)
    share = config.held_out_share
    return frozenset((frozenset((a, b)), f) for a, b in pairs for f in families if _draw(a, f, b) < share)


def is_held_out(config: WorldConfig, subject: Kind, predicate: str, obj: Kind) -> bool:
    """Whether training must not show this triplet."""
    return (frozenset((subject, obj)), PREDICATES[predicate].family) in held_out(config)
