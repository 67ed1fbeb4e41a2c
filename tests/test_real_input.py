"""Genuine photographs and annotation through the commands a user types: build, relate, train, evaluate, report."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest
from support.official_files import COCO_CC_SLICES, linked

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
STEPS = 100
KINDS = {"captions": "itm", "entities": "bbox", "mrc": "mrc", "vsg": "itm"}

pytestmark = pytest.mark.slow


def relvlm(*arguments: str | Path) -> str:
    """Standard output of `relvlm ARGUMENTS`, which must succeed."""
    command = [sys.executable, "-m", "relvlm.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def graphs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shard set of the COCO photographs with captions, boxes and the relations derived from them."""
    photos, folder = tmp_path_factory.mktemp("coco_cc"), shared / "data/coco_cc"
    annotations = folder / "annotations"
    relvlm(
        *("data", "build", "coco", "--images", folder / "images", "--out", photos / "photos"),
        *("--captions", annotations / "captions.json", "--instances", annotations / "instances.json"),
        *("--max-side", 160),
    )
    sides = ("--predicates", "left of", "right of", "far from")
    relvlm("data", "relate", photos / "photos", photos / "graphs", *sides)
    return photos / "graphs"


@pytest.fixture(scope="module")
def run(shared: Path, graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a smaller model than the config's; mostly on MRC batches, which are the slowest to learn from."""
    out = tmp_path_factory.mktemp("run") / "coco_cc"
    data = [f"data.{kind}=[{{path: {graphs}}}]" for kind in ("captions", "entities", "graphs")]
    relvlm(
        *("train", "--config", ROOT / "configs/mini/coco_cc.yaml", f"out={out}", f"steps={STEPS}"),
        *data,
        f"data.vocab={shared / 'data/bert_vocab/vocab.txt'}",
        f"data.relations={graphs / 'relations.txt'}",
        "data.ratio={captions: 1, entities: 0.5, mrc: 3, vsg: 0.5}",
        "data.batch={captions: 16, entities: 16, mrc: 32, vsg: 8}",
        *("model.image_size=48", "model.vision.width=64", "model.text.width=64", "optim.warmup_steps=10"),
        "optim.lr=2e-3",
    )
    return out


def losses(run: Path, column: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def test_relations_of_the_photos_are_those_the_boxes_decide(graphs):
    manifest = json.loads((graphs / "manifest.json").read_text())
    assert manifest["totals"]["samples"] == 136 and manifest["totals"]["relations"] > 300
    assert (graphs / "relations.txt").read_text().split("\n")[:3] == ["far from", "left of", "right of"]


def test_every_kind_of_batch_is_drawn_from_the_one_set(run):
    drawn = {kind: losses(run, f"{kind}/{name}") for kind, name in KINDS.items()}
    assert sum(map(len, drawn.values())) == STEPS and all(drawn.values())


@pytest.mark.parametrize(("column", "share"), [("captions/mlm", 0.8), ("vsg/mlm", 0.75), ("mrc/mrc", 0.75)])
def test_losses_fall_clearly(run, column, share):
    values = losses(run, column)
    assert mean(values[-5:]) < share * mean(values[:3])


@pytest.mark.parametrize("task", ["vsr", "valse", "sugarcrepe"])
def test_real_rows_are_scored(run, shared, tmp_path, task):
    data = shared / "data"
    annotations = linked(data / "benchmarks/coco_cc_slices", COCO_CC_SLICES, tmp_path / "slices")
    printed = relvlm(
        *("eval", "--checkpoint", run, "--task", task, "--out", tmp_path),
        *("--annotations", annotations, "--images", data / "coco_cc/images"),
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert json.loads(printed)["overall"] == metrics["overall"]
    assert 0 <= metrics["overall"] <= 100
    scores = [json.loads(line)["score"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert len(set(scores)) > len(scores) / 2, "the scores must depend on photo and text"


def test_genuine_visual_genome_is_parsed_without_photos(shared, tmp_path):
    folder = shared / "data/vg"
    relvlm(
        *("data", "build", "visual_genome", "--parse-only", "--out", tmp_path / "vg"),
        *("--relationships", folder / "relationships.json", "--attributes", folder / "attributes.json"),
    )
    samples = [json.loads(line) for line in (tmp_path / "vg/samples.jsonl").read_text().splitlines()]
    assert [s["image_id"] for s in samples] == ["1", "2", "3"]
    assert "on" in (tmp_path / "vg/relations.txt").read_text().splitlines()
    assert any(entity["attributes"] for sample in samples for entity in sample["entities"])
