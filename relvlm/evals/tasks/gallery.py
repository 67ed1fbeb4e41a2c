"""Images and texts to retrieve from: Karpathy's JSON, ALBEF's JSON list, Stanford Paragraphs with its split file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relvlm.errors import UserError
from relvlm.evals.files import Row, read_json
from relvlm.evals.tasks.records import Record, records_of
from relvlm.evals.tasks.shapes import file_shape, in_words, tree_shape

KARPATHY, ALBEF, PARAGRAPHS = KINDS = ("Karpathy", "ALBEF retrieval", "Stanford Paragraphs")
FIELDS = ("filename", "filepath", "split", "sentences")
# Names that Karpathy's files give their data set, and what that one's photos are called in ALBEF's.
DATASETS = {"coco": r"COCO_(train|val|test)2014_\d{12}", "flickr30k": r"^flickr30k[-_]images/", "flickr8k": ""}


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


def read(path: Path, split: str = "test", kinds: Sequence[str] = KINDS, task: str = "") -> Gallery:
    """Gallery of one split, the format told by the file's content; `split` is ignored by ALBEF's lists.

    Raises UserError for a format that is none of `kinds`, and for a file of another data set than the `task`'s.
    """
    tree = _tree(path, kinds)
    kind = _kind(tree, path, kinds)
    if kind == KARPATHY:
        return _karpathy(tree, path, split, task)
    return _paragraphs(tree, path, split) if kind == PARAGRAPHS else _albef(tree, path, task)


def read_splits(path: Path) -> set[str]:
    """The splits of a file that tells them apart; none of ALBEF's lists."""
    tree = read_json(path)
    if isinstance(tree, dict) and isinstance(tree.get("images"), list):
        return {record.text("split") for record in records_of(tree["images"], path, KARPATHY, FIELDS, "images")}
    if isinstance(tree, list) and tree and isinstance(tree[0], dict) and "paragraph" in tree[0]:
        return {file.stem.removesuffix("_split") for file in path.parent.glob("*_split.json")}
    return set()


def _tree(path: Path, kinds: Sequence[str]) -> Any:
    try:
        return read_json(path)
    except UserError:  # the lines of another benchmark, perhaps
        found = file_shape(path)
        if found and found.kind not in kinds:
            raise UserError(f"{path}: this is no {' or '.join(kinds)} but {in_words(found)}") from None
        raise


def _kind(tree: Any, path: Path, kinds: Sequence[str]) -> str:
    """Which of `kinds` it is."""
    found = tree_shape(tree)
    if found and found.kind not in kinds:
        raise UserError(f"{path}: this is no {' or '.join(kinds)} but {in_words(found)}")
    if isinstance(tree, dict) and "images" in tree:
        likely = KARPATHY
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        likely = PARAGRAPHS if "paragraph" in tree[0] else ALBEF
    else:
        raise UserError(f"{path}: neither Karpathy's nor ALBEF's nor Stanford Paragraphs' format")
    if likely not in kinds:
        raise UserError(f"{path}: this is no {' or '.join(kinds)} file")
    return likely


def _karpathy(tree: Row, path: Path, split: str, task: str) -> Gallery:
    dataset = tree.get("dataset")
    if task and dataset in DATASETS and dataset != task:
        raise UserError(f"{path}: dataset: {dataset}: not that of {task} (take the file of {task})")
    names: list[str] = []
    texts: list[tuple[str, int]] = []
    for record in records_of(tree["images"], path, KARPATHY, FIELDS, "images"):
        if record.text("split") == split:
            texts += [(sentence.text("raw"), len(names)) for sentence in record.records("sentences")]
            folder = record.image("filepath") if record.has("filepath") and record.value("filepath") != "" else None
            names.append("/".join(filter(None, (folder, record.image("filename")))))
    return _checked(names, texts, path, split)


def _albef(tree: Any, path: Path, task: str) -> Gallery:
    names: list[str] = []
    texts: list[tuple[str, int]] = []
    for record in records_of(tree, path, ALBEF, ("image", "caption")):
        captions = record.texts("caption") if isinstance(record.value("caption"), list) else [record.text("caption")]
        texts += [(caption, len(names)) for caption in captions]
        names.append(record.image("image"))
        _check_data_set(record, names[-1], task)
    return _checked(names, texts, path, "all")


def _check_data_set(record: Record, name: str, task: str) -> None:
    """By the photos' names, as ALBEF's files of the two have them."""
    of = next((dataset for dataset, pattern in DATASETS.items() if pattern and re.search(pattern, name)), task)
    if task and of != task:
        raise record.error("image", f"{name}: a photo of {of} (take --task {of}, or the file of {task})")


def _paragraphs(tree: Any, path: Path, split: str) -> Gallery:
    """Images of the split; the few images with several paragraphs keep them all."""
    place = _split_ids(path.with_name(f"{split}_split.json"))
    texts = []
    for record in records_of(tree, path, PARAGRAPHS, ("image_id", "paragraph")):
        image = record.image_id("image_id")
        if image in place:
            texts.append((record.text("paragraph"), place[image]))
    without = set(range(len(place))) - {i for _, i in texts}
    if without:
        image = list(place)[min(without)]
        raise UserError(f"{path}: image_id {image} of {split}_split.json has no paragraph (give both of one set)")
    return _checked(list(place), texts, path, split)


def _split_ids(path: Path) -> dict[str, int]:
    """The place of each image id of a split file."""
    wanted = read_json(path)
    if not isinstance(wanted, list) or not wanted:
        raise UserError(f"{path}: expected a list of image ids")
    ids = Record({f"[{i}]": image for i, image in enumerate(wanted)}, str(path), "split")
    place = {ids.image_id(f"[{i}]"): i for i in range(len(wanted))}
    if len(place) != len(wanted):
        raise UserError(f"{path}: an image id occurs twice (remove one)")
    return place


def _checked(names: list[str], texts: list[tuple[str, int]], path: Path, split: str) -> Gallery:
    if not names:
        raise UserError(f"{path}: split {split!r}: no images (give another --split)")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {name}: occurs {times} times (list each image once)")
    return _gallery(tuple(names), texts)


def _gallery(names: tuple[str, ...], texts: list[tuple[str, int]]) -> Gallery:
    return Gallery(names, tuple(t for t, _ in texts), tuple(i for _, i in texts))
