"""Examples of an evaluation as a reader wants them: images, texts, scores, right or wrong, what is tested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.evals.files import Row, read_json, read_jsonl
from relvlm.evals.scoring.photos import CropBox
from relvlm.evals.tasks import aro, svo, vsr
from relvlm.evals.tasks.contrast import Contrast, contrasts

PER_SIDE = 12


@dataclass(frozen=True)
class Shown:
    """One example: image names, (description, text, score) lines, whether the model is right, piece, what it tests.

    `box`: the part of the images that was scored.
    """

    images: tuple[str, ...]
    lines: tuple[tuple[str, str, float], ...]
    right: bool
    piece: str
    what: str
    box: CropBox | None = None


def examples_of(folder: Path) -> list[Shown]:
    """All examples of a folder of results."""
    return examples(read_json(folder / "metrics.json")["task"], read_jsonl(folder / "scores.jsonl"), folder)


def examples(task: str, rows: Iterable[Row], folder: Path) -> list[Shown]:
    """All examples of a scores file, in its order."""
    if task in ("coco", "flickr30k", "paragraphs"):
        return _retrieval(rows, read_json(folder / "gallery.json")["texts"])
    held = list(rows)
    if task == "vsr":
        return [_vsr(row) for row in held]
    if task in ("valse", "sugarcrepe"):
        group, endings = ("instrument", ("c", "f")) if task == "valse" else ("piece", ("c", "n"))
        return [_texts(pair) for pair in contrasts(held, group, endings)]
    if task == "svo":
        return [_images(pair) for pair in contrasts(held, None, ("p", "n"))]
    return _winoground(held) if task == "winoground" else _aro(held)


def choose(shown: Sequence[Shown], per_side: int = PER_SIDE) -> list[Shown]:
    """Of each piece at most `per_side` right and `per_side` wrong ones, spread evenly over the file; 0: all."""
    if not per_side:
        return list(shown)
    sides: dict[tuple[str, bool], list[Shown]] = defaultdict(list)
    for each in shown:
        sides[each.piece, each.right].append(each)
    return [each for side in sides.values() for each in _spread(side, per_side)]


def _vsr(row: Row) -> Shown:
    truth = "true" if row["label"] == 1 else "false"
    right = (row["score"] >= 0.5) == (row["label"] == 1)
    category = vsr.CATEGORY.get(row["relation"], "unallocated")
    line = (f"{truth}:", row["text"], row["score"])
    return Shown((row["image"],), (line,), right, category, row["relation"])


def _texts(pair: Contrast) -> Shown:
    right, wrong = pair.right, pair.wrong
    lines = (("caption:", right["text"], right["score"]), ("foil:", wrong["text"], wrong["score"]))
    piece = right.get("instrument") or right.get("piece") or ""
    return Shown((right["image"],), lines, pair.won, piece, "")


def _images(pair: Contrast) -> Shown:
    right, wrong = pair.right, pair.wrong
    lines = (
        ("left image:", right["text"], right["score"]),
        ("right image:", "the same text", wrong["score"]),
    )
    what = f"left {right.get('pos_triplet', '')}, right {right.get('neg_triplet', '')}"
    piece = svo.bucket(right, "scores")
    return Shown((right["image"], wrong["image"]), lines, pair.won, piece, what)


def _winoground(rows: Sequence[Row]) -> list[Shown]:
    quads: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        identity, _, cell = row["label"].partition("_")
        quads[identity][cell] = row
    return [_quad(quad) for quad in quads.values()]


def _quad(quad: dict[str, Row]) -> Shown:
    names = {"c0_i0": "left:", "c0_i1": "right:", "c1_i0": "left:", "c1_i1": "right:"}
    s = {cell: quad[cell]["score"] for cell in names}
    text = s["c0_i0"] > s["c1_i0"] and s["c1_i1"] > s["c0_i1"]
    image = s["c0_i0"] > s["c0_i1"] and s["c1_i1"] > s["c1_i0"]
    lines = tuple((name, quad[cell]["text"], s[cell]) for cell, name in names.items())
    what = f"text {'right' if text else 'wrong'}, image {'right' if image else 'wrong'}"
    images = (quad["c0_i0"]["image"], quad["c0_i1"]["image"])
    return Shown(images, lines, text and image, quad["c0_i0"].get("collapsed_tag", ""), what)


def _aro(rows: Sequence[Row]) -> list[Shown]:
    texts: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        texts[row["piece"], row["label"].rpartition("_")[0]].append(row)
    shown = []
    for first, won in aro.outcomes(rows):
        options = texts[first["piece"], first["label"].rpartition("_")[0]]
        lines = tuple(
            ("foil:" if i else "caption:", row["text"], row["score"]) for i, row in enumerate(options)
        )
        box = tuple(first["box"]) if "box" in first else None
        shown.append(Shown((first["image"],), lines, won, first["piece"], str(first.get("kind", "")), box))
    return shown


def _retrieval(rows: Iterable[Row], texts: Sequence[str]) -> list[Shown]:
    """Each image with the text ranked first and, where that is wrong, its best own one. Rows are seen once."""
    first: dict[int, Row] = {}
    own: dict[int, Row] = {}
    for row in rows:
        if row["tr"]:
            image = row["image"]
            if image not in first or _order(row) > _order(first[image]):
                first[image] = row
            if row["label"] and (image not in own or row["score"] > own[image]["score"]):
                own[image] = row
    return [_ranked(row, own.get(image), texts) for image, row in first.items()]


def _order(row: Row) -> tuple[float, int]:
    return row["score"], -row["label"]  # a tie with a wrong text is lost


def _ranked(first: Row, own: Row | None, texts: Sequence[str]) -> Shown:
    lines = [("first:", texts[first["text"]], first["score"])]
    if own is not None and own is not first:
        lines.append(("its own:", texts[own["text"]], own["score"]))
    return Shown((first["name"],), tuple(lines), bool(first["label"]), "TR@1", "text of an image")


def _spread(shown: Sequence[Shown], number: int) -> list[Shown]:
    if len(shown) <= number:
        return list(shown)
    return [shown[i * len(shown) // number] for i in range(number)]
