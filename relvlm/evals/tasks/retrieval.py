"""Image-text retrieval: the k nearest by cosine are re-scored by the ITM match logit (ALBEF's protocol).

Files: Karpathy JSON, ALBEF's JSON list, Stanford Paragraphs with its split file.
Legend: I images, X texts, C candidate pairs.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.figures import shares as m
from relvlm.evals.files import Row, read_json, require
from relvlm.evals.tasks.task import check_score

K = {"coco": 256, "flickr30k": 128, "paragraphs": 128}
RECALLS = (1, 5, 10)
RULE = "the k nearest by cosine re-scored by the ITM match logit, others not found; recall at 1, 5, 10"


@dataclass(frozen=True)
class Gallery:
    """Images by the annotation's name, texts, and for each text its image's place in `images`."""

    images: tuple[str, ...]
    texts: tuple[str, ...]
    image_of: tuple[int, ...]

    def without(self, missing: Iterable[str]) -> Gallery:
        """The gallery without these images and their texts."""
        gone = set(missing)
        kept = [i for i, name in enumerate(self.images) if name not in gone]
        place = {old: new for new, old in enumerate(kept)}
        texts = [(text, place[i]) for text, i in zip(self.texts, self.image_of, strict=True) if i in place]
        return _gallery(tuple(self.images[i] for i in kept), texts)

    def without_named(self, names: Iterable[str]) -> Gallery:
        """The gallery without the images of these names, or of these ids (the name without folder and suffix)."""
        gone = set(names)
        return self.without(n for n in self.images if n in gone or Path(n).stem in gone)

    def first(self, limit: int) -> Gallery:
        """The gallery of the first `limit` images."""
        return self.without(self.images[limit:])


@dataclass(frozen=True)
class Candidates:
    """C scored pairs; `tr`, `ir`: among the k texts of its image, the k images of its text."""

    image: np.ndarray  # (C,) int64
    text: np.ndarray  # (C,) int64
    score: np.ndarray  # (C,) float64, ITM match logit
    match: np.ndarray  # (C,) bool
    tr: np.ndarray  # (C,) bool
    ir: np.ndarray  # (C,) bool


def load(task: str, annotations: Path, split: str = "test") -> Gallery:
    """Gallery of one split, the format told by the file's content; `split` is ignored by ALBEF's lists."""
    path = _main_file(task, annotations)
    tree = read_json(path)
    if isinstance(tree, dict) and "images" in tree:
        return _karpathy(tree["images"], path, split)
    if not isinstance(tree, list) or not tree or not isinstance(tree[0], dict):
        raise UserError(f"{path}: neither Karpathy's nor ALBEF's nor Stanford Paragraphs' format")
    if "paragraph" in tree[0]:
        return _paragraphs(tree, path, split)
    return _albef(tree, path)


def splits(task: str, annotations: Path) -> set[str]:
    """The splits of a file that tells them apart; none of ALBEF's lists."""
    path = _main_file(task, annotations)
    tree = read_json(path)
    if isinstance(tree, dict) and "images" in tree:
        return {str(record.get("split")) for record in tree["images"]}
    if isinstance(tree, list) and tree and "paragraph" in tree[0]:
        return {file.stem.removesuffix("_split") for file in path.parent.glob("*_split.json")}
    return set()


def candidates(similarity_IX: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, texts (C,) to re-score and their flags `tr`, `ir`: top k of each row, top k of each column."""
    images, texts = similarity_IX.shape
    by_image = similarity_IX.topk(min(k, texts), dim=1).indices
    by_text = similarity_IX.topk(min(k, images), dim=0).indices
    tr = torch.arange(images)[:, None] * texts + by_image
    ir = by_text * texts + torch.arange(texts)[None, :]
    pair = torch.cat([tr.flatten(), ir.flatten()]).unique()
    return pair // texts, pair % texts, torch.isin(pair, tr.flatten()), torch.isin(pair, ir.flatten())


def metrics(found: Candidates) -> Row:
    """Recall at 1, 5, 10 of text (TR) and image (IR) retrieval, in percent; overall is the mean of the six.

    A match that is no candidate is not found. Among equal scores the match counts as last.
    """
    figures: Row = {}
    images, texts = len(np.unique(found.image)), len(np.unique(found.text))
    for name, query, chosen in (("TR", found.image, found.tr), ("IR", found.text, found.ir)):
        ranks = _ranks(query[chosen], found.score[chosen], found.match[chosen])
        for r in RECALLS:
            hits = int((ranks < r).sum())
            figures[f"{name}@{r}"] = m.percent(hits, len(ranks))
            figures.setdefault("intervals95", {})[f"{name}@{r}"] = list(m.wilson(hits, len(ranks)))
    recalls = [figures[f"{name}@{r}"] for name in ("TR", "IR") for r in RECALLS]
    chance = {f"{name}@{r}": _chance(r, n) for name, n in (("TR", texts), ("IR", images)) for r in RECALLS}
    chance |= {f"TR@{r}": _chance(r, texts, texts / images) for r in RECALLS}
    head = {"overall": sum(recalls) / len(recalls), "n_images": images, "n_texts": texts}
    return {**head, **figures, "n_pairs": len(found.score), "chance": chance}


def ranks(found: Candidates, way: Literal["tr", "ir"]) -> dict[int, int]:
    """Rank (0 = first) of each image's best text, or of each text's image; one beyond all where it was no candidate."""
    query, chosen = (found.image, found.tr) if way == "tr" else (found.text, found.ir)
    names = np.unique(query[chosen])
    values = _ranks(query[chosen], found.score[chosen], found.match[chosen])
    return dict(zip(names.tolist(), values.tolist(), strict=True))


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

    Raises UserError for a line that is no retrieval score, for a score that is not finite, for a pair given twice.
    """
    whole = {name: array("q") for name in ("image", "text", "label", "tr", "ir")}
    score = array("d")
    for i, row in enumerate(rows, 1):
        require(row, (*whole, "score"), f"{where}: line {i}", "retrieval score")
        check_score(row["score"], f"{where}: line {i}")
        score.append(row["score"])
        for name, column in whole.items():
            column.append(_whole(row[name], f"{where}: line {i}: {name}"))
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
    flags = (columns[name].astype(bool) for name in ("label", "tr", "ir"))
    return Candidates(image, text, np.array(score), *flags)


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int):
        raise UserError(f"{where}: {value!r} is no whole number (places in the gallery, and flags of 0 or 1)")
    return int(value)


def check_gallery(found: Candidates, gallery: Gallery, where: str) -> None:
    """Raises UserError where a score file and the annotations are not of the same images and texts."""
    for name, column, size in (
        ("images", found.image, len(gallery.images)),
        ("texts", found.text, len(gallery.texts)),
    ):
        if len(np.unique(column)) != size or column.max() >= size or column.min() < 0:
            raise UserError(
                f"{where}: {name}: not the {size} of the annotations (give those that were scored)"
            )
    if (found.match != (np.array(gallery.image_of)[found.text] == found.image)).any():
        raise UserError(f"{where}: label: contradicts the annotations (give those that were scored)")


def _ranks(query: np.ndarray, score: np.ndarray, match: np.ndarray) -> np.ndarray:
    """Rank (0 = first) of each query's best match among its candidates; one beyond all where it has none."""
    names, place = np.unique(query, return_inverse=True)
    best = np.full(len(names), -np.inf)
    np.maximum.at(best, place[match], score[match])
    above = (score >= best[place]) & ~match  # a tie with a wrong candidate is lost
    ranks = np.bincount(place[above], minlength=len(names))
    return np.where(np.isfinite(best), ranks, np.iinfo(np.int64).max)


def _chance(r: int, n: int, right: float = 1.0) -> float:
    """Percent of random rankings of `n` with one of about `right` matches in the first `r`."""
    wrong = 1.0
    for i in range(min(r, n)):
        wrong *= max(0.0, (n - right - i) / (n - i))
    return 100 * (1 - wrong)


def _main_file(task: str, annotations: Path) -> Path:
    """The file itself, or of a folder the one with the task's official name."""
    if not annotations.is_dir():
        return annotations
    names = {"paragraphs": "paragraphs_v1.json", "coco": "karpathy.json", "flickr30k": "karpathy.json"}
    official = {"coco": "dataset_coco.json", "flickr30k": "dataset_flickr30k.json"}
    for name in (names[task], official.get(task)):
        if name and (annotations / name).is_file():
            return annotations / name
    raise UserError(f"{annotations}: no {names[task]} in this folder (give the annotation file)")


def _karpathy(records: list[Row], path: Path, split: str) -> Gallery:
    names: list[str] = []
    texts: list[tuple[str, int]] = []
    for number, record in enumerate(records):
        require(record, ("filename", "split", "sentences"), f"{path}: images[{number}]", "Karpathy")
        if record["split"] == split:
            texts += [(str(sentence["raw"]), len(names)) for sentence in record["sentences"]]
            names.append("/".join(filter(None, (record.get("filepath"), record["filename"]))))
    return _checked(names, texts, path, split)


def _albef(records: list[Row], path: Path) -> Gallery:
    names: list[str] = []
    texts: list[tuple[str, int]] = []
    for number, record in enumerate(records):
        require(record, ("image", "caption"), f"{path}: [{number}]", "ALBEF retrieval")
        captions = record["caption"] if isinstance(record["caption"], list) else [record["caption"]]
        texts += [(str(caption), len(names)) for caption in captions]
        names.append(str(record["image"]))
    return _checked(names, texts, path, "all")


def _paragraphs(records: list[Row], path: Path, split: str) -> Gallery:
    """Images of the split; the few images with several paragraphs keep them all."""
    wanted = read_json(path.with_name(f"{split}_split.json"))
    place = {str(image): i for i, image in enumerate(wanted)}
    if len(place) != len(wanted):
        raise UserError(f"{path.with_name(f'{split}_split.json')}: an image id occurs twice (remove one)")
    texts = []
    for number, record in enumerate(records):
        require(record, ("image_id", "paragraph"), f"{path}: [{number}]", "Stanford Paragraphs")
        if str(record["image_id"]) in place:
            texts.append((str(record["paragraph"]), place[str(record["image_id"])]))
    without = set(range(len(place))) - {i for _, i in texts}
    if without:
        image = list(place)[min(without)]
        raise UserError(
            f"{path}: image_id {image} of {split}_split.json has no paragraph (give both of one set)"
        )
    return _checked(list(place), texts, path, split)


def _checked(names: list[str], texts: list[tuple[str, int]], path: Path, split: str) -> Gallery:
    if not names:
        raise UserError(f"{path}: split {split!r}: no images (give another --split)")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {name}: occurs {times} times (list each image once)")
    return _gallery(tuple(names), texts)


def _gallery(names: tuple[str, ...], texts: list[tuple[str, int]]) -> Gallery:
    return Gallery(names, tuple(t for t, _ in texts), tuple(i for _, i in texts))
