"""The training step's benchmark on a model of toy size: every column of its tables, both sides and the options."""

import dropping
import pytest
import torch
from train_report import print_row, print_waterfall
from train_step import measure, waterfall

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.model import RelVLM
from relvlm.plan.flops import Sizes
from relvlm.plan.workload import Workload

MODEL = ModelConfig(
    image_size=32,
    embed_dim=16,
    vision=ViTConfig(width=32, layers=2, heads=2, patch_size=8),
    text=TextConfig(layers=2, heads=2, width=32, max_positions=16),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=24,
)
CAPTIONS = Workload("captions", 4, 1, 6, 16, masked=2)
JOINT = [CAPTIONS, Workload("mrc", 4, 3, 4, 16, relations=2, encodes=False)]
HOW = torch.device("cpu"), torch.float32, 1


@pytest.fixture(scope="module")
def model() -> RelVLM:
    torch.manual_seed(0)
    return RelVLM(MODEL, 50, 7)


def test_a_step_with_dropped_patches_stands_beside_the_exact_one(model, capsys):
    row = {"size": "toy", "mfu": 0.5, **measure(model, Sizes(MODEL, 50, 7), [CAPTIONS], *HOW, keep=0.5)}
    assert row["not_exact"]["flops"] < row["flops"] and row["not_exact"]["kept_bytes"] < row["kept_bytes"]
    assert model.vision.config.patch_keep == 1
    print_row(row, header=True)
    dropping.print_table([row])
    table = capsys.readouterr().out
    assert "| toy | captions | 4 |" in table and "patch_keep 0.5" in table


def test_a_joint_step_is_measured_against_its_kinds_one_by_one(model):
    row = measure(model, Sizes(MODEL, 50, 7), JOINT, *HOW)
    assert (row["kind"], row["images"]) == ("joint", 4)
    assert row["flop_ratio"] > 1 and 0 < row["memory_ratio"] < 1


def test_the_waterfall_begins_with_the_official_way_and_ends_with_all_savings(model, capsys):
    steps = waterfall(model, [CAPTIONS], *HOW)
    assert [step["with"] for step in steps[:3]] == ["official", "fused AdamW", "no padding"]
    assert steps[-1]["kept_bytes"] < steps[0]["kept_bytes"]
    print_waterfall({"size": "toy", "kind": "captions", "waterfall": steps})
    assert capsys.readouterr().out.count("\n") == 3 + len(steps)
