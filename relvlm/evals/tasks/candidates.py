"""Scored (image, text) candidates of retrieval, and the ranks of the right ones among them.

Legend: I images, X texts, C candidate pairs.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.files import Row, require
from relvlm.evals.tasks.gallery import Gallery
from relvlm.evals.tasks.score_rows import check_score

FLAGS = ("label", "tr", "ir")
MOST = 2**31  # images, and texts
Way = Literal["TR", "IR"]  # text retrieval (of an image's texts), image retrieval (of a text's image)


@dataclass(frozen=True)
class Candidates:
    """C scored pairs; `tr`, `ir`: among the k texts of its image, the k images of its text."""

    image: np.ndarray  # (C,) int64
    text: np.ndarray  # (C,) int64
    score: np.ndarray  # (C,) float64, ITM match logit
    match: np.ndarray  # (C,) bool
    tr: np.ndarray  # (C,) bool
    ir: np.ndarray  # (C,) bool

    def of(self, way: Way) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, score and match of the candidates of one way."""
        query, chosen = (self.image, self.tr) if way == "TR" else (self.text, self.ir)
        return query[chosen], self.score[chosen], self.match[chosen]


def nearest(similarity_IX: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, texts (C,) to re-score and their flags `tr`, `ir`: top k of each row, top k of each column."""
    images, texts = similarity_IX.shape
    by_image = similarity_IX.topk(min(k, texts), dim=1).indices
    by_text = similarity_IX.topk(min(k, images), dim=0).indices
    tr = torch.arange(images)[:, None] * texts + by_image
    ir = by_text * texts + torch.arange(texts)[None, :]
    pair = torch.cat([tr.flatten(), ir.flatten()]).unique()
    return pair // texts, pair % texts, torch.isin(pair, tr.flatten()), torch.isin(pair, ir.flatten())


def ranks(found: Candidates, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """Queries, ascending, and the rank (0 = first) of each one's best match; one beyond all where it has none.

    Among equal scores the match counts as last.
    """
    query, score, match = found.of(way)
    names, place = np.unique(query, return_inverse=True)
    best = np.full(len(names), -np.inf)
    np.maximum.at(best, place[match], score[match])
    above = (score >= best[place]) & ~match  # a tie with a wrong candidate is lost
    found_at = np.bincount(place[above], minlength=len(names))
    return names, np.where(np.isfinite(best), found_at, np.iinfo(np.int64).max)


def ranked(found: Candidates) -> list[np.ndarray]:
    """Places, among the candidates, of each image's texts, the best first, in the order of `ranks`.

    Among equal scores a wrong text comes first.
    """
    place = np.flatnonzero(found.tr)
    order = place[np.lexsort((found.match[place], -found.score[place], found.image[place]))]
    _, starts = np.unique(found.image[order], return_index=True)
    return np.split(order, starts[1:])


def lines(found: Candidates, gallery: Gallery) -> Iterator[str]:
    """Lines of scores.jsonl: `image` and `text` are places in the gallery, `name` the image's."""
    columns = (found.image, found.text, found.score, found.match, found.tr, found.ir)
    for image, text, score, match, tr, ir in zip(*(c.tolist() for c in columns), strict=True):
        row = {
            "image": image,
            "text": text,
            "score": score,
            "label": int(match),
            "tr": int(tr),
            "ir": int(ir),
        }
        yield json.dumps({**row, "name": gallery.images[image]})


def from_rows(rows: Iterable[Row], where: str) -> Candidates:
    """Candidates of the lines of scores.jsonl, of which there may be millions.

    Raises UserError for a line that is no retrieval score, for a score that is not finite, for a pair given twice, and
    for an image or a text without a candidate, which would be in no recall.
    """
    whole = {name: array("q") for name in ("image", "text", "label", "tr", "ir")}
    score = array("d")
    for i, row in enumerate(rows, 1):
        require(row, (*whole, "score"), f"{where}: line {i}", "retrieval score")
        check_score(row["score"], f"{where}: line {i}")
        score.append(row["score"])
        for name, column in whole.items():
            column.append(_whole(row[name], 2 if name in FLAGS else MOST, f"{where}: line {i}: {name}"))
    if not score:
        raise UserError(f"{where}: no scores in it")
    columns = {name: np.array(column) for name, column in whole.items()}
    image, text = columns["image"], columns["text"]
    _, first, times = np.unique(image * (int(text.max()) + 1) + text, return_index=True, return_counts=True)
    if (times > 1).any():
        place = first[times > 1][0]
        raise UserError(
            f"{where}: image {image[place]}, text {text[place]}: scored {times.max()} times (score each pair once)"
        )
    match, tr, ir = (columns[name].astype(bool) for name in FLAGS)
    for query, flag, places, chosen in (("image", "tr", image, tr), ("text", "ir", text, ir)):
        if (without := np.setdiff1d(places, places[chosen])).size:
            raise UserError(f"{where}: {query} {without[0]}: {flag} is 1 in none of its lines (is the file whole?)")
    return Candidates(image, text, np.array(score), match, tr, ir)


def _whole(value: Any, end: int, where: str) -> int:
    if not isinstance(value, int) or not 0 <= value < end:
        raise UserError(f"{where}: {value!r} is no whole number below {end} (places in the gallery, flags of 0 or 1)")
    return int(value)


def check_gallery(found: Candidates, gallery: Gallery, where: str) -> None:
    """Raises UserError where a score file and the annotations are not of the same images and texts."""
    for name, column, size in (
        ("images", found.image, len(gallery.images)),
        ("texts", found.text, len(gallery.texts)),
    ):
        if len(np.unique(column)) != size or column.max() >= size or column.min() < 0:
            raise UserError(f"{where}: {name}: not the {size} of the annotations (give those that were scored)")
    if (found.match != (np.array(gallery.image_of)[found.text] == found.image)).any():
        raise UserError(f"{where}: label: contradicts the annotations (give those that were scored)")
