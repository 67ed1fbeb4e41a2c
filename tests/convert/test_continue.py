"""An official checkpoint is converted, trained on with relations, and evaluated, by the commands alone."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

import relvlm
from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.convert import to_official
from relvlm.data.text import Tokenizer
from relvlm.model import RelVLM
from relvlm.pretraining.step import Pretraining

ROOT = Path(__file__).resolve().parents[2]
ALBEF = ModelConfig(
    image_size=32, embed_dim=16, localisation=False, relations=False, negatives="official",
    vision=ViTConfig(width=64, layers=1, heads=1, patch_size=8),
    text=TextConfig(layers=1, heads=1, width=64, max_positions=128), fusion=FusionConfig(layers=1, heads=1),
    momentum=MomentumConfig(enabled=True, queue=64),
)  # fmt: skip


def command(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "relvlm.cli", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_from_an_official_file_to_a_trained_and_scored_model(relworld, tiny, tmp_path):
    vocab, source, start = relworld / "vocab.txt", tmp_path / "albef.pth", tmp_path / "start"
    torch.manual_seed(0)
    step = Pretraining(RelVLM(ALBEF, Tokenizer(vocab).vocab_size, 0))
    official = to_official(step.model, "albef", step.teacher.state_dict())
    torch.save({"model": official, "epoch": 29}, source)
    command("convert", "albef", str(source), str(start), "--vocab", str(vocab))

    related = replace(ALBEF, relations=True, mrc_hidden=16)
    model = f"model={yaml.safe_dump(asdict(related), default_flow_style=True, width=10_000).strip()}"
    ratio = "data.ratio={captions: 1, entities: 0, mrc: 1, vsg: 1}"
    out = tmp_path / "run"
    command(
        "train",
        *tiny,
        model,
        ratio,
        f"init={{checkpoint: {start}}}",
        f"out={out}",
        "steps=2",
        "optim.lr=1e-9",
    )
    report = json.loads((out / "init.json").read_text())
    assert all(name.startswith("mrc_head.") for name in report["new"]) and "teacher" in report["loaded"]
    trained = relvlm.load(out)
    assert trained.step == 2 and trained.mrc_head is not None
    torch.testing.assert_close(trained.image_projection.weight, official["vision_proj.weight"], atol=1e-6, rtol=0)

    task = ["--task", "vsr", "--annotations", str(relworld / "benchmarks/vsr"), "--limit", "8"]
    images = ["--images", str(relworld / "benchmarks/images"), "--out", str(tmp_path / "scores")]
    command("eval", "--checkpoint", str(start), *task, *images)
    assert (tmp_path / "scores/metrics.json").exists()
