"""Images that one core loads in a second of its time, by kind of batch, beside Pillow's limit and open_clip's pipeline.

    python benchmarks/loader.py --photos ../shared/data/coco_cc
    python benchmarks/loader.py --peer PYTHON        # an interpreter with open_clip 3.3 and webdataset 0.2.86

Photos come as they are and with 256 pixels on their longer side; shards are in the page cache. All sides run in turn on
one pinned core, in CPU time, `repeats` times; figures are medians, ratios medians of those within a repeat. `limit`
makes a random crop of 224 x 224 of a photo in memory with Pillow, as torchvision's transforms do. `by Pillow` is what
the loader does without simplejpeg. `outside` is all but decoding and resizing: records, texts, masks, batches.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from measuring import commit, machine, output_file
from PIL import Image

from relvlm.config.schema import DataConfig, DatasetConfig, KindCounts, KindRatios
from relvlm.data import decoders
from relvlm.data.batches import views
from relvlm.data.batches.loader import build_loader
from relvlm.data.batches.streams import open_streams
from relvlm.data.batches.transforms import random_crop
from relvlm.data.shards.store import ShardSet, write_shards
from relvlm.data.sources.shrink import shrink
from relvlm.data.tools.relate import MIRROR, relate_sample

SIZE, BATCH, MIN_AREA = 224, 32, 0.5
LOADER = ("captions", "entities", "mrc", "vsg")
AIMS = {"captions": 1.3, "entities": 1.0, "mrc": 1.0, "vsg": 1.0, "randaugment": 0.8}
Load = Callable[[int], None]  # so many images


def sets(photos: Path, folder: Path, side: int | None) -> dict[str, Path]:
    """A shard set of the photos that have captions, and relations by their boxes; the same as a tar for the peer."""
    from relvlm.data.sources import coco

    files = (photos / "annotations" / f"{name}.json" for name in ("captions", "instances"))
    coco.build(*files, photos / "images", folder / "whole")
    whole = ShardSet(folder / "whole")
    found = []
    for index in range(len(whole)):
        record = whole.read(index)
        image, sample = shrink(record.image, record.sample, side)
        found.append((record.key, image, relate_sample(sample)))
    usable = [(key, image, s) for key, image, s in found if s.captions and s.relations]
    write_shards(folder / "set", usable, source="coco", builder_args={})
    return {"set": folder / "set", "peer": _webdataset(folder / "peer.tar", usable)}


def _webdataset(path: Path, records: list[Any]) -> Path:
    from webdataset import TarWriter

    with TarWriter(str(path), encoder=False) as writer:
        for key, image, sample in records:
            writer.write({"__key__": key, "jpg": image, "txt": sample.captions[0].encode()})
    return path


def config_of(path: Path, kind: str, folder: Path, vocab: Path, **changes: Any) -> DataConfig:
    relations = folder / "relations.txt"
    relations.write_text("".join(f"{predicate}\n" for predicate in MIRROR))
    data = [DatasetConfig(str(path))]
    batch = KindCounts(captions=BATCH, entities=4 * BATCH, mrc=BATCH, vsg=BATCH)
    return DataConfig(
        vocab=str(vocab), relations=str(relations), captions=data, entities=data, graphs=data, batch=batch,
        ratio=KindRatios(**{kind: 1.0}), crop_scale=MIN_AREA, **changes,
    )  # fmt: skip


def loader_side(config: DataConfig) -> Load:
    """The loader of `relvlm train` in this process."""
    loader = build_loader(config, *open_streams(config), image_size=SIZE, patch_size=16, seed=0)

    def load(images: int) -> None:
        while images > 0:
            images -= sum(chunk.images for chunk in next(loader))

    return load


def limit_side(path: Path) -> Load:
    """Decode, crop and resize with Pillow, and nothing else."""
    shards, rng = ShardSet(path), Random(0)
    files = [shards.read(index).image for index in range(len(shards))]
    turn = itertools.cycle(files)

    def load(images: int) -> None:
        for _ in range(images):
            image = Image.open(io.BytesIO(next(turn))).convert("RGB")
            crop = random_crop(*image.size, MIN_AREA, rng)
            np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=crop))

    return load


def patched(load: Load, target: Any, name: str, value: Any) -> Load:
    """`load` with something else in a module's place."""

    def changed(images: int) -> None:
        with mock.patch.object(target, name, value):
            load(images)

    return changed


@contextlib.contextmanager
def peer_side(python: str, path: Path) -> Iterator[Load]:
    """open_clip's pipeline in its own interpreter, which says how long it took; this process waits."""
    script = Path(__file__).with_name("loader_open_clip.py")
    child = subprocess.Popen(
        [python, str(script), str(path), str(SIZE), str(BATCH)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    seconds = {"last": 0.0}

    def load(images: int) -> None:
        print(images, file=child.stdin, flush=True)
        seconds["last"] = float(child.stdout.readline())

    load.told = seconds  # type: ignore[attr-defined]
    yield load
    child.stdin.close()
    child.wait()


def measure(sides: dict[str, Load], images: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of an image, by side, one figure a repeat."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):  # the first to warm up
        for name, load in sides.items():
            began = time.process_time()
            load(images)
            took = getattr(load, "told", {}).get("last") or time.process_time() - began
            if repeat:
                times[name].append(took / images)
    return times


def sides_of(made: dict[str, Path], folder: Path, vocab: Path) -> dict[str, Load]:
    path, captions = made["set"], config_of(made["set"], "captions", folder, vocab)
    square = np.zeros((SIZE, SIZE, 3), np.uint8)
    sides = {"limit": limit_side(path)}
    sides |= {kind: loader_side(config_of(path, kind, folder, vocab)) for kind in LOADER}
    augmented = replace(captions, randaugment=True)
    sides["randaugment"] = loader_side(augmented)
    sides["randaugment, geometry"] = loader_side(replace(augmented, randaugment_geometry=True))
    sides["captions by Pillow"] = patched(loader_side(captions), decoders, "has_simplejpeg", lambda: False)
    sides["outside"] = patched(loader_side(captions), views, "resize_square", lambda *_: square)
    return sides


def rows_of(times: dict[str, list[float]], photos: str) -> list[dict[str, Any]]:
    def ratio(name: str, to: str) -> float | None:
        return median(a / b for a, b in zip(times[to], times[name], strict=True)) if to in times else None

    return [
        {
            "photos": photos,
            "side": name,
            "per_second": 1 / median(seconds),
            "microseconds": 1e6 * median(seconds),
            "of_limit": ratio(name, "limit"),
            "of_open_clip": ratio(name, "open_clip"),
        }
        for name, seconds in times.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| photos | side | images a CPU second | us an image | x limit | x open_clip |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = [f"{row[key]:.2f}" if row[key] else "" for key in ("of_limit", "of_open_clip")]
        lines.append(
            f"| {row['photos']} | {row['side']} | {row['per_second']:.0f} | {row['microseconds']:.0f} | "
            f"{' | '.join(ratios)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("RELVLM_TEST_DATA", "../shared")) / "data"
    parser.add_argument("--photos", type=Path, default=data / "coco_cc", help="images/ and annotations/ of COCO's form")
    parser.add_argument("--vocab", type=Path, default=data / "bert_vocab" / "vocab.txt")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has open_clip")
    parser.add_argument("--sizes", nargs="+", default=["256", "full"], choices=["256", "full"])
    parser.add_argument("--images", type=int, default=128, help="of a turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=output_file)
    args = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    decoder = "simplejpeg" if decoders.has_simplejpeg() else "Pillow (no simplejpeg)"
    print(f"{machine(torch.device('cpu'))}, commit {commit()}, JPEGs by {decoder}", file=sys.stderr)
    rows = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            made = sets(args.photos, folder, None if size == "full" else int(size))
            sides = sides_of(made, folder, args.vocab)
            if args.peer:
                sides["open_clip"] = stack.enter_context(peer_side(args.peer, made["peer"]))
            rows += rows_of(measure(sides, args.images, args.repeats), size)
    print(table(rows), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
