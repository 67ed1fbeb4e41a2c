"""Image-text retrieval: the k nearest by cosine are re-scored by the ITM match logit (ALBEF's protocol)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from relvlm.errors import UserError
from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Cell, Column, both
from relvlm.evals.figures.outcomes import Counts, Derived, Outcomes, tabulate
from relvlm.evals.files import Row, read_jsonl, read_object
from relvlm.evals.images import DataSet
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks.candidates import (
    Candidates,
    Way,
    check_gallery,
    from_rows,
    lines,
    nearest,
    ranked,
    ranks,
)
from relvlm.evals.tasks.gallery import ALBEF, KARPATHY, Gallery, read, read_splits
from relvlm.evals.tasks.photos import check_photos, usable_photos
from relvlm.evals.tasks.records import Record
from relvlm.evals.tasks.task import Card, Scored, Selection, is_dev

RECALLS = (1, 5, 10)
WAYS: tuple[Way, Way] = ("TR", "IR")
FIGURES = tuple(f"{way}@{r}" for way in WAYS for r in RECALLS)
GALLERY = "gallery.json"  # in a folder of results
NEAREST = 3  # texts of an image in the error browser


@dataclass(frozen=True)
class RetrievalTask:
    """`k`: candidates of each query that are re-scored. `files`: names of its annotations in a folder.

    `title`: what its columns are called, one for each recall in `shown`; `coarse`: whether its recalls at 1 enter the
    Pareto front. `kinds`: the formats of its annotations. `data_sets`: those that its photos are of.
    """

    name: str
    k: int
    files: tuple[str, ...]
    title: str
    shown: tuple[str, ...]
    place: int
    coarse: bool = False
    kinds: tuple[str, ...] = (KARPATHY, ALBEF)
    data_sets: tuple[DataSet, ...] = ()
    rule: str = "the k nearest by cosine re-scored by the ITM match logit, others not found; recall at 1, 5, 10"

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            *self._columns(self.title, self.place, self.coarse),
            *self._columns(f"{self.title} dev", self.place + 100),
        )

    def _columns(self, title: str, place: int, coarse: bool = False) -> Iterator[Column]:
        for recall in self.shown:
            main = recall.endswith("@1")
            yield Column(f"{title} {recall}", place, "coarse" if main and coarse else None, main)

    def load(self, annotations: Path, split: str = "test") -> Gallery:
        """Gallery of one split of a file, or of the file in a folder that has one of the task's names."""
        return read(self._file(annotations), split, self.kinds, self.name)

    def lacks(self, scorer: Scorer) -> str:
        return ""

    def splits(self, annotations: Path) -> set[str]:
        return read_splits(self._file(annotations))

    def check(self, annotations: Path, images: Path, selection: Selection) -> None:
        check_photos(images, self._selected(annotations, selection).images, selection.available, self.data_sets)

    def score(self, scorer: Scorer, annotations: Path, images: Path, selection: Selection) -> Scored:
        """The candidates; once more without the overlapping images, where there are any."""
        gallery = self._selected(annotations, selection)
        wanted = [(name, None) for name in gallery.images]
        photos = usable_photos(scorer, images, wanted, selection.available, self.data_sets)
        gallery = gallery.without(photos.unusable)
        k = selection.k or self.k
        found, kind = _candidates(scorer, gallery, photos.paths, k)
        context = {"k": k, "split": selection.split, "texts_cut": scorer.cut(gallery.texts), "score": kind}
        result = {**figures(found), "rule": self.rule, **context, **photos.figures()}
        rest = gallery.without_named(selection.overlap)
        if selection.overlap:
            result["overlapping_images"] = len(gallery.images) - len(rest.images)
        if 0 < len(rest.images) < len(gallery.images):
            result["without_overlap"] = figures(_candidates(scorer, rest, photos.paths, k)[0])
        files = {GALLERY: {"images": gallery.images, "texts": gallery.texts}, **photos.files()}
        return Scored(result, lines(found, gallery), outcomes(found, gallery.image_of), files)

    def rescore(self, scores: Path, annotations: Path | None) -> Row:
        found = from_rows(read_jsonl(scores), str(scores))
        if annotations is not None:
            check_gallery(found, self.load(annotations), str(scores))
        return {**figures(found), "rule": self.rule}

    def outcomes(self, scores: Path) -> Outcomes:
        return outcomes(from_rows(read_jsonl(scores), str(scores)))

    def cards(self, folder: Path) -> list[Card]:
        scores, gallery = (
            folder / "scores.jsonl",
            Record(read_object(folder / GALLERY), str(folder / GALLERY), "gallery"),
        )
        found, images, texts = (
            from_rows(read_jsonl(scores), str(scores)),
            gallery.texts("images"),
            gallery.texts("texts"),
        )
        if found.image.max() >= len(images) or found.text.max() >= len(texts):
            raise UserError(f"{scores}: more images or texts than in {GALLERY} beside it (evaluate again)")
        return cards(found, images, texts)

    def cells(self, figures: Row) -> dict[str, Cell]:
        title = self.title + (" dev" if is_dev(figures) else "")
        sizes = {"TR": figures["n_images"], "IR": figures["n_texts"]}
        return {
            f"{title} {s}": Cell(
                figures[s],
                both(figures["intervals95"][s]),
                figures["chance"][s],
                sizes[s.partition("@")[0]],
                s,
            )
            for s in self.shown
        }

    def _selected(self, annotations: Path, selection: Selection) -> Gallery:
        gallery = self.load(annotations, selection.split)
        return gallery.first(selection.limit) if selection.limit else gallery

    def _file(self, annotations: Path) -> Path:
        if not annotations.is_dir():
            return annotations
        for name in self.files:
            if (annotations / name).is_file():
                return annotations / name
        raise UserError(f"{annotations}: no {self.files[0]} in this folder (give the annotation file)")


def figures(found: Candidates) -> Row:
    """Recall at 1, 5, 10 of text (TR) and image (IR) retrieval, in percent; overall is the mean of the six.

    A match that is no candidate is not found. Among equal scores the match counts as last.
    """
    images, texts = len(np.unique(found.image)), len(np.unique(found.text))
    hits = {name: counts for way in WAYS for name, counts in _hits(found, way).items()}
    recalls = {name: shares.percent(*counts) for name, counts in hits.items()}
    k = {way: int(np.bincount(found.of(way)[0]).max()) for way in WAYS}
    chance = {f"TR@{r}": _chance(min(r, k["TR"]), texts, texts / images) for r in RECALLS}
    chance |= {f"IR@{r}": _chance(min(r, k["IR"]), images) for r in RECALLS}
    first, *others = FIGURES
    return {
        "overall": sum(recalls.values()) / len(recalls),
        "n_images": images,
        "n_texts": texts,
        first: recalls[first],
        "intervals95": {name: list(shares.wilson(*counts)) for name, counts in hits.items()},
        **{name: recalls[name] for name in others},
        "n_pairs": len(found.score),
        "chance": chance,
    }


def outcomes(found: Candidates, image_of: Sequence[int] = ()) -> Outcomes:
    """A unit is an image: its own query, and those of its texts, which stand or fall together.

    `image_of`: the image of each text. Scores alone tell it of those that were scored with theirs; without it, each
    other text is a unit of its own.
    """
    derived: Derived = {"overall": ("mean", FIGURES)}
    return tabulate(_units(found, image_of), derived)


def cards(found: Candidates, images: Sequence[str], texts: Sequence[str]) -> list[Card]:
    """Each image with its nearest texts and, where none of these is its own, its best own one and the rank of it."""
    result = []
    for places in ranked(found):
        own = np.flatnonzero(found.match[places])
        shown = list(range(min(NEAREST, len(places))))
        shown += [int(rank) for rank in own[:1] if rank >= NEAREST]
        own_texts = {texts[found.text[at]] for at in places[own[:1]]}
        lines = [_card_line(found, places, rank, own_texts, texts) for rank in shown]
        name = images[found.image[places[0]]]
        result.append(Card((name,), tuple(lines), bool(found.match[places[0]]), "TR@1", "text of an image"))
    return result


def _card_line(
    found: Candidates, places: np.ndarray, rank: int, own_texts: set[str], texts: Sequence[str]
) -> tuple[str, str, float]:
    """The protocol knows a text by its image: an equal one of another image is wrong, and the reader must see why."""
    at = places[rank]
    text, kind = texts[found.text[at]], "first" if rank == 0 else f"rank {rank + 1}"
    if found.match[at]:
        kind += ", its own"
    elif text in own_texts:
        kind += " (the same text, of another image: wrong by the protocol)"
    return f"{kind}:", text, found.score[at].item()


def _candidates(scorer: Scorer, gallery: Gallery, files: Mapping[str, Path], k: int) -> tuple[Candidates, str]:
    """The scored candidates of a gallery; every pair where the model has no features to choose them by."""
    paths = [files[name] for name in gallery.images]
    if scorer.matcher.has_features:
        similarity_IX = scorer.image_features(paths) @ scorer.text_features(gallery.texts).T
    else:
        similarity_IX, k = torch.zeros(len(paths), len(gallery.texts)), max(len(paths), len(gallery.texts))
    image, text, tr, ir = nearest(similarity_IX, k)
    logits = scorer.match_logits(paths, gallery.texts, image, text)
    if not bool(torch.isfinite(logits).all()):
        raise UserError("retrieval scores: not finite (has the model diverged? take an earlier checkpoint)")
    match = np.array(gallery.image_of)[text.numpy()] == image.numpy()
    score = (logits[:, 1] if logits.dim() == 2 else logits).double().numpy()
    found = Candidates(image.numpy(), text.numpy(), score, match, tr.numpy(), ir.numpy())
    return found, "match logit" if logits.dim() == 2 else "similarity"


def _units(found: Candidates, image_of: Sequence[int]) -> Iterator[tuple[str, Counts]]:
    """Per image, how many of its queries find a match among the first r."""
    matched = zip(found.text[found.match].tolist(), found.image[found.match].tolist(), strict=True)
    own = dict(enumerate(image_of) if image_of else matched)
    by_image = {str(image): rank for image, rank in zip(*(x.tolist() for x in ranks(found, "TR")), strict=True)}
    by_text: dict[str, list[int]] = defaultdict(list)
    for text, rank in zip(*(column.tolist() for column in ranks(found, "IR")), strict=True):
        by_text[str(own[text]) if text in own else f"text {text}"].append(rank)
    for unit in dict.fromkeys((*by_image, *by_text)):
        counts: dict[str, tuple[float, float]] = {}
        for r in RECALLS:
            if unit in by_image:
                counts[f"TR@{r}"] = (float(by_image[unit] < r), 1.0)
            if unit in by_text:
                counts[f"IR@{r}"] = (float(sum(x < r for x in by_text[unit])), float(len(by_text[unit])))
        yield unit, counts


def _hits(found: Candidates, way: Way) -> dict[str, tuple[int, int]]:
    """Of each recall: the queries whose match is among the first r, and all."""
    _, rank = ranks(found, way)
    return {f"{way}@{r}": (int((rank < r).sum()), len(rank)) for r in RECALLS}


def _chance(r: int, n: int, right: float = 1.0) -> float:
    """Percent of random rankings of `n` with one of about `right` matches in the first `r`."""
    wrong = 1.0
    for i in range(min(r, n)):
        wrong *= max(0.0, (n - right - i) / (n - i))
    return 100 * (1 - wrong)
