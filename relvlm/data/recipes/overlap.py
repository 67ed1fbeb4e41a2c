"""Which images of training sets are those of test sets, across the id spaces of COCO, Visual Genome and Flickr."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from relvlm import storage
from relvlm.data.image_ids import image_id, unpadded
from relvlm.data.sources.json_stream import list_items
from relvlm.data.sources.raw import load_json
from relvlm.data.sources.shard_task import write_whole
from relvlm.errors import UserError

EPILOG = """example:
  relvlm data overlap --coco dataset_coco.json --flickr30k dataset_flickr30k.json --vsr vsr/random_2022 \\
      --sugarcrepe sugarcrepe --paragraphs paragraphs --whatsup whatsup \\
      --image-data vg/image_data.json --coco-images annotations/captions_val2014.json --out overlap.txt
  relvlm data build visual_genome ... --overlap overlap.txt --out data/vg
"""
FORMS = {"coco": "val2014/{}.jpg", "visual_genome": "VG_100K/{}.jpg", "flickr": "flickr30k-images/{}.jpg"}
HELD_OUT = ("val", "test")  # Karpathy's splits that are evaluated on
_PHOTO = re.compile(r"/(\d+)_[0-9a-f]+(?:_\w)?\.jpg$")


class Image(NamedTuple):
    """An image by its id in a dataset's own count."""

    dataset: str
    id: str


def karpathy(path: Path, dataset: str) -> Iterator[Image]:
    """Validation and test images of a Karpathy file."""
    for record in load_json(path, dict)["images"]:
        if record["split"] in HELD_OUT:
            yield Image(dataset, image_id(record["filename"]).id)


def vsr(path: Path) -> Iterator[Image]:
    """COCO photos of the JSONL files in a folder, but for those of training."""
    for file in _files(path, "*.jsonl"):
        if "train" not in file.name:
            for line in file.read_text(encoding="utf-8").splitlines():
                yield Image("coco", image_id(json.loads(line)["image"]).id)


def sugarcrepe(path: Path) -> Iterator[Image]:
    """COCO photos of the JSON files in a folder."""
    for file in _files(path, "*.json"):
        for record in load_json(file, dict).values():
            yield Image("coco", image_id(record["filename"]).id)


def paragraphs(path: Path) -> Iterator[Image]:
    """Visual Genome photos of the validation and test split."""
    for split in HELD_OUT:
        for number in load_json(path / f"{split}_split.json", list):
            yield Image("visual_genome", image_id(number).id)


def whatsup(path: Path) -> Iterator[Image]:
    """COCO's and Visual Genome's photos, of files in either case; those taken for the benchmark are nobody else's."""
    for dataset, start in (("coco", "[cC][oO][cC][oO]"), ("visual_genome", "[vV][gG]")):
        for file in _files(path, f"{start}_*.json"):
            for record in load_json(file, list):
                yield Image(dataset, image_id(record[0]).id)


def cola(path: Path) -> Iterator[Image]:
    """Visual Genome photos of the multi-object file: the last part of each address."""
    for file in _files(path, "*.json"):
        for record in load_json(file, list):
            for address in (record[0], record[2]):
                yield Image("visual_genome", image_id(address.rpartition("/")[2]).id)


def refcoco(path: Path) -> Iterator[Image]:
    """COCO photos of MDETR's files in a folder, but for those of training."""
    for file in _files(path, "*.json"):
        if "train" not in file.name:
            for record in load_json(file, dict)["images"]:
                yield Image("coco", image_id(record["file_name"]).id)


def _files(path: Path, pattern: str) -> list[Path]:
    found = [path] if path.is_file() else [file for file in storage.files_below(path) if file.match(pattern)]
    if not found:
        raise UserError(f"{path}: no {pattern} in it (check the path)")
    return found


READERS: dict[str, tuple[str, Callable[[Path], Iterator[Image]]]] = {
    "coco": ("dataset_coco.json of Karpathy", lambda path: karpathy(path, "coco")),
    "flickr30k": ("dataset_flickr30k.json of Karpathy", lambda path: karpathy(path, "flickr")),
    "vsr": ("folder of its *.jsonl", vsr),
    "sugarcrepe": ("folder of its seven files", sugarcrepe),
    "paragraphs": ("folder of Stanford Paragraphs' *_split.json", paragraphs),
    "whatsup": ("folder of What'sUp's coco_*.json and vg_*.json", whatsup),
    "cola": ("COLA's multi-object file", cola),
    "refcoco": ("folder of MDETR's finetune_refcoco*.json", refcoco),
}


def held_out(benchmarks: dict[str, Path]) -> dict[str, set[Image]]:
    """The images of each benchmark; raises UserError naming the file at fault."""
    found = {}
    for name, path in benchmarks.items():
        try:
            found[name] = set(READERS[name][1](path))
        except UserError:
            raise
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: not {name}'s form: {type(error).__name__} {error} (check --{name})") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror} (check --{name})") from error
        if not found[name]:
            raise UserError(f"{path}: no image in it (check --{name})")
    return found


def twins_of_visual_genome(image_data: Path) -> Iterator[tuple[Image, ...]]:
    """The names of each image that has several: of `image_data.json`, with its `coco_id` and `flickr_id`."""
    for record in list_items(image_data):
        if type(record) is not dict or "image_id" not in record:
            continue  # the builder counts it
        others = (("coco", record.get("coco_id")), ("flickr", record.get("flickr_id")))
        named = [Image(dataset, unpadded(str(other))) for dataset, other in others if other is not None]
        if named:
            yield Image("visual_genome", unpadded(str(record["image_id"]))), *named


def twins_of_coco(captions: Path) -> Iterator[tuple[Image, ...]]:
    """COCO's images with their ids at Flickr, of the `flickr_url` in a captions or instances file."""
    for record in load_json(captions, dict)["images"]:
        match = _PHOTO.search(record.get("flickr_url") or "")
        if match:
            yield Image("coco", unpadded(str(record["id"]))), Image("flickr", match[1])


def _twins(file: Path, read: Callable[[Path], Iterator[tuple[Image, ...]]], what: str) -> list[tuple[Image, ...]]:
    """What `read` finds; raises UserError where that is nothing: of another file, no test image would have a twin."""
    try:
        found = list(read(file))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no list of images with {what}: {type(error).__name__} {error}") from error
    if not found:
        raise UserError(f"{file}: no image with {what}")
    return found


def with_twins(images: set[Image], twins: Iterable[tuple[Image, ...]]) -> set[Image]:
    """`images` and every other name of them; names that lead on to further names are followed."""
    groups = list(twins)
    found, before = set(images), -1
    while len(found) != before:
        before = len(found)
        found.update(name for group in groups if not found.isdisjoint(group) for name in group)
    return found


def write_overlap(out: Path, benchmarks: dict[str, Path], image_data: Path | None, coco: list[Path]) -> list[str]:
    """Write the list for `--overlap`; returns lines of counts. Raises UserError."""
    if not benchmarks:
        raise UserError(f"no benchmark given (one or more of {', '.join('--' + name for name in READERS)})")
    if out.is_dir():
        raise UserError(f"{out}: is a folder (--out: the list's file)")
    storage.check_folder(out.parent, "--out")
    by_name = held_out(benchmarks)
    twins = [group for file in coco for group in _twins(file, twins_of_coco, "a flickr_url (is it COCO's?)")]
    if image_data is not None:
        twins += _twins(image_data, twins_of_visual_genome, "a coco_id or flickr_id (is it image_data.json?)")
    direct = set().union(*by_name.values())
    images = with_twins(direct, twins)
    with storage.writing(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, "".join(f"{FORMS[image.dataset].format(image.id)}\n" for image in sorted(images)))
    stated, all_ = (Counter(image.dataset for image in some) for some in (direct, images))
    lines = [f"{name}: {len(found)} images" for name, found in by_name.items()]
    return lines + [f"{name}: {stated[name]} by id, {all_[name] - stated[name]} by another id" for name in FORMS]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data overlap`."""
    parser.description = "List the images of test sets, by every id they have, for `relvlm data build ... --overlap`."
    for name, (what, _) in READERS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=what)
    parser.add_argument(
        "--image-data", type=Path, metavar="FILE", help="Visual Genome's image_data.json: its coco_id and flickr_id"
    )
    parser.add_argument(
        "--coco-images", type=Path, nargs="+", default=[], metavar="FILE", help="COCO annotations: their flickr_url"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the list, a file's name a line")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    benchmarks = {name: getattr(args, name) for name in READERS if getattr(args, name) is not None}
    for line in write_overlap(args.out, benchmarks, args.image_data, args.coco_images):
        print(line)
    return 0
