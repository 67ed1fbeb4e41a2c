"""Images and texts to retrieve from: Karpathy's JSON, ALBEF's JSON list, Stanford Paragraphs with its split file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from relvlm.data.image_ids import images_named
from relvlm.errors import UserError
from relvlm.evals.files import Row, read_json, require


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
        """The gallery without the images of these names or ids, however they are spelt."""
        return self.without(images_named(self.images, names, "--overlap"))

    def first(self, limit: int) -> Gallery:
        """The gallery of the first `limit` images."""
        return self.without(self.images[limit:])


def read(path: Path, split: str = "test") -> Gallery:
    """Gallery of one split, the format told by the file's content; `split` is ignored by ALBEF's lists."""
    tree = read_json(path)
    if isinstance(tree, dict) and "images" in tree:
        return _karpathy(tree["images"], path, split)
    if not isinstance(tree, list) or not tree or not isinstance(tree[0], dict):
        raise UserError(f"{path}: neither Karpathy's nor ALBEF's nor Stanford Paragraphs' format")
    if "paragraph" in tree[0]:
        return _paragraphs(tree, path, split)
    return _albef(tree, path)


def read_splits(path: Path) -> set[str]:
    """The splits of a file that tells them apart; none of ALBEF's lists."""
    tree = read_json(path)
    if isinstance(tree, dict) and "images" in tree:
        return {str(record.get("split")) for record in tree["images"]}
    if isinstance(tree, list) and tree and isinstance(tree[0], dict) and "paragraph" in tree[0]:
        return {file.stem.removesuffix("_split") for file in path.parent.glob("*_split.json")}
    return set()


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
        raise UserError(f"{path}: image_id {image} of {split}_split.json has no paragraph (give both of one set)")
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
