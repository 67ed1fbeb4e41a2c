"""Cross-validation over real photographs: each fold has shard sets without its photos, and benchmarks about them."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from relvlm import storage
from relvlm.data.shards.manifest import MANIFEST
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import coco
from relvlm.data.tools import relate
from relvlm.errors import UserError
from relvlm.paths import Parser
from relvlm.study.plan import Folds, Plan

log = logging.getLogger(__name__)
Row = dict[str, Any]


def build_folds(plan: Plan) -> None:
    """Those of the plan's seeds that are not there, `fold_I` for seed I; a photo is held out in one fold of all.

    Each has the shard sets `photos` and `graphs` of the other photos, and `benchmarks` of its own: retrieval by caption
    (coco), SugarCrepe's rows, and for any two things beside each other whether it is `a left of b` or `b left of a`
    (choice). Raises UserError for a seed without a fold, folds that were made otherwise, and no files of SugarCrepe.
    """
    for photos in plan.folds:
        if beyond := [seed for seed in plan.seeds if seed >= photos.count]:
            raise UserError(f"seeds: {beyond}: folds are numbered from 0 to {photos.count - 1} (give these)")
        if not _sugarcrepe(photos):
            raise UserError(f"{photos.sugarcrepe}: holds no sugarcrepe_*.json (give folds.sugarcrepe another folder)")
        _describe(photos)
        samples = _samples(photos)
        for fold in plan.seeds:
            out = Path(photos.path) / f"fold_{fold}"
            if not (out / "benchmarks/images").exists():
                log.info("%s: is built", out)
                held_out = samples[fold :: photos.count]
                _training(photos, out, held_out)
                _benchmarks(photos, out, held_out)


def _sugarcrepe(photos: Folds) -> list[Path]:
    return sorted(Path(photos.sugarcrepe).glob("sugarcrepe_*.json"))


def _describe(photos: Folds) -> None:
    description, made_from = Path(photos.path) / "folds.json", json.dumps(asdict(photos), indent=1) + "\n"
    if description.exists() and description.read_text() != made_from:
        raise UserError(f"{description}: made otherwise than the plan says (remove {photos.path} to build it anew)")
    description.parent.mkdir(parents=True, exist_ok=True)
    storage.write_whole(description, made_from)


def _samples(photos: Folds) -> list[tuple[str, Sample]]:
    """Every photo's file name and what is known of it, in a fixed order that says nothing of the photo."""
    out = Path(photos.path) / "all"
    _related(photos, out)
    shards = ShardSet(out / "graphs")
    names = _names(photos)
    found = [(names[sample.image_id], sample) for sample in (shards.read(i).sample for i in range(len(shards)))]
    Random(0).shuffle(found)
    return found


def _names(photos: Folds) -> dict[str, str]:
    listed = [json.loads(Path(file).read_text())["images"] for file in (photos.captions, photos.instances)]
    return {str(image["id"]): image["file_name"] for images in listed for image in images}


def _training(photos: Folds, out: Path, held_out: Sequence[tuple[str, Sample]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    storage.write_whole(out / "held_out.txt", "".join(f"{name}\n" for name, _ in held_out))
    _related(photos, out, "--exclude", str(out / "held_out.txt"))


def _related(photos: Folds, out: Path, *flags: str) -> None:
    files = ("--captions", photos.captions, "--instances", photos.instances, "--images", photos.images)
    if not (out / "photos" / MANIFEST).exists():
        _run(coco, *files, "--max-side", "160", "--out", str(out / "photos"), *flags)
    if not (out / "graphs" / MANIFEST).exists():
        _run(relate, str(out / "photos"), str(out / "graphs"))


def _run(command: Any, *flags: str) -> None:
    parser = Parser(command.__name__)
    command.add_arguments(parser)
    args: argparse.Namespace = parser.parse_args(flags)
    if command.main(args):
        raise UserError(f"{' '.join(flags)}: not built")


def _benchmarks(photos: Folds, out: Path, held_out: Sequence[tuple[str, Sample]]) -> None:
    """The photos last: where they are, all is. A few photos may have nothing of a kind: then its file is left out."""
    gallery = list(_gallery(held_out))
    files = {
        "coco/karpathy.json": json.dumps({"dataset": "coco", "images": gallery}, indent=1) if gallery else "",
        "choice/left_of.jsonl": "".join(json.dumps(row) + "\n" for row in _questions(held_out)),
    }
    names = {name for name, _ in held_out}
    for file in _sugarcrepe(photos):
        rows = {k: row for k, row in json.loads(file.read_text()).items() if row["filename"] in names}
        files[f"sugarcrepe/{file.name}"] = json.dumps(rows, indent=1) if rows else ""
    for name, text in files.items():
        if text:
            path = out / "benchmarks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_whole(path, text)
    (out / "benchmarks/images").symlink_to(Path(photos.images).resolve())


def _gallery(held_out: Sequence[tuple[str, Sample]]) -> Iterator[Row]:
    """In the layout of Karpathy's dataset_coco.json."""
    for number, (name, sample) in enumerate(held_out):
        sentences = [{"raw": text, "imgid": number} for text in sample.captions]
        if sentences:
            yield {"filename": name, "split": "test", "imgid": number, "sentences": sentences}


def _questions(held_out: Sequence[tuple[str, Sample]]) -> Iterator[Row]:
    """One for each relation between labels that the boxes decide for all of their things alike."""
    for name, sample in held_out:
        labels, places = {entity.id: entity.label for entity in sample.entities}, Random(name)
        found = relate.derive(sample)
        said = dict.fromkeys((labels[r.subject], r.predicate, labels[r.object]) for r in found)
        mirrored = {(b, relate.MIRROR[predicate], a) for a, predicate, b in said}
        for a, predicate, b in said:
            if (b, predicate, a) not in said.keys() | mirrored:
                options, answer = [f"{a} {predicate} {b}", f"{b} {predicate} {a}"], places.randrange(2)
                yield {"image": name, "options": options[::-1] if answer else options, "answer": answer}
