"""Which benchmark a file is of, by the fields of its records: the error for a file of another one names the task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Records of one benchmark have all of `fields`. `tasks`: those that score it; none where there is none."""

    kind: str
    fields: frozenset[str]
    tasks: tuple[str, ...] = ()
    only: frozenset[str] | None = None  # and no other field than these


def _shape(kind: str, fields: str, *tasks: str, only: str = "") -> Shape:
    return Shape(kind, frozenset(fields.split()), tasks, frozenset(only.split()) or None)


RETRIEVAL = ("coco", "flickr30k")
# The first that fits counts, so the richer of two comes first.
SHAPES = (
    _shape("SugarCrepe++", "filename caption caption2 negative_caption", "sugarcrepe_pp"),
    _shape("SugarCrepe", "filename caption negative_caption", "sugarcrepe"),
    _shape("VALSE", "image_file caption foil", "valse"),
    _shape("ARO", "image_path true_caption false_caption", "aro"),
    _shape("ARO", "image caption_options", "aro"),
    _shape("What'sUp", "image_path caption_options", "whatsup"),
    _shape("NegBench", "image_path caption_0 caption_1 correct_answer", "negbench"),
    _shape("choice", "image options answer", "choice"),
    _shape("VSR", "image caption label relation", "vsr"),
    _shape("SVO-Probes", "sentence pos_image_id neg_image_id", "svo"),
    _shape("SVO-Probes", "caption pos_image neg_image", "svo"),
    _shape("Winoground", "caption_0 caption_1 image_0 image_1", "winoground"),
    _shape("ColorSwap", "caption_1 caption_2 image_1 image_2", "colorswap"),
    _shape("VisMin", "text_0 text_1 image_0 image_1", "vismin"),
    _shape("Stanford Paragraphs", "image_id paragraph", "paragraphs"),
    _shape("Karpathy", "filename split sentences", *RETRIEVAL),
    _shape("RefCOCO", "file_name height width caption", "refcoco"),
    _shape("COCO annotation", "file_name height width"),
    _shape("COCO annotation", "id image_id caption"),
    _shape("scores", "label score"),
    _shape("ALBEF retrieval", "image caption", *RETRIEVAL, only="image caption image_id dataset"),
)
# Of lists, which have no fields.
COLA, CHECKLIST = _shape("COLA", "", "cola"), _shape("VL-CheckList", "", "vl_checklist")
SPLIT, WHATSUP = _shape("split", ""), _shape("What'sUp", "", "whatsup")
LEAST = 3  # fewer numbers than these are no split file


@lru_cache(maxsize=256)
def shape_of(fields: frozenset[str]) -> Shape | None:
    """Of records with these fields."""
    fitting = (s for s in SHAPES if s.fields <= fields and (s.only is None or fields <= s.only))
    return next(fitting, None)


def other_shape(fields: frozenset[str], kind: str) -> str | None:
    """What records with these fields are, in words, where that is known and not `kind`."""
    found = shape_of(fields)
    return in_words(found) if found and found.kind != kind else None


def file_shape(path: Path) -> Shape | None:
    """Of a JSON, JSONL or CSV file; None where it is none that is known."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tree_shape(_parsed(text))
    except (OSError, ValueError, RecursionError):  # what is wrong with it, its reader says
        return None


def in_words(shape: Shape) -> str:
    """`a VALSE file (take --task valse)`."""
    task = f"take --task {' or '.join(shape.tasks)}" if shape.tasks else "no task here scores it"
    article = "an" if shape.kind[0] in "A" else "a"
    return f"{article} {shape.kind} file ({task})"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        first = next((line for line in text.split("\n") if line.strip()), "")
    return json.loads(first) if first.startswith("{") else {name: None for name in first.strip().split(",")}


def tree_shape(tree: Any) -> Shape | None:
    """Of the first record, which may lie in a list, or under a key."""
    if isinstance(tree, dict):
        fields = frozenset(tree)
        nested = tree["images"] if isinstance(tree.get("images"), list) else list(tree.values())
        return shape_of(fields) or (tree_shape(nested[:1]) if nested and isinstance(nested[0], dict) else None)
    if not isinstance(tree, list) or not tree:
        return None
    first = tree[0]
    if isinstance(first, dict):
        return shape_of(frozenset(first))
    return _list_shape(tree, first)


def _list_shape(tree: list[Any], first: Any) -> Shape | None:
    if len(tree) > LEAST and all(isinstance(x, int) for x in tree):
        return SPLIT
    if not isinstance(first, list):
        return None
    texts = [isinstance(x, str) for x in first]
    if len(first) == 4 and all(texts):
        return COLA
    if len(first) == 3 and all(texts[1:]):
        return WHATSUP
    return CHECKLIST if len(first) == 2 and isinstance(first[1], dict) else None
