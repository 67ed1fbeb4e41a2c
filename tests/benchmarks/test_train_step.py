"""The training step's benchmark on a model of toy size: every column of its tables, both sides and the options."""

import dropping
import pytest
import torch
from toys import NOISY, toy_pretraining
from train_report import print_row, print_waterfall
from train_step import measure, waterfall

from relvlm.plan.flops import Sizes
from relvlm.plan.workload import Workload
from relvlm.pretraining.step import Pretraining

CAPTIONS = Workload("captions", 4, 1, 6, 16, masked=2)
JOINT = [CAPTIONS, Workload("mrc", 4, 3, 4, 16, relations=2, encodes=False)]
HOW = torch.device("cpu"), torch.float32, 1


@pytest.fixture(scope="module")
def step() -> Pretraining:
    return toy_pretraining(NOISY)


def test_a_step_with_dropped_patches_stands_beside_the_exact_one(step, capsys):
    row = {"size": "toy", "mfu": 0.5, **measure(step, Sizes(NOISY, 50, 7), [CAPTIONS], *HOW, keep=0.5)}
    assert row["not_exact"]["flops"] < row["flops"] and row["not_exact"]["kept_bytes"] < row["kept_bytes"]
    assert step.model.vision.config.patch_keep == 1
    print_row(row, header=True)
    dropping.print_table([row])
    table = capsys.readouterr().out
    assert "| toy | captions | 4 |" in table and "patch_keep 0.5" in table


def test_a_joint_step_is_measured_against_its_kinds_one_by_one(step):
    row = measure(step, Sizes(NOISY, 50, 7), JOINT, *HOW)
    assert (row["kind"], row["images"]) == ("joint", 4)
    assert row["flop_ratio"] > 1 and 0 < row["memory_ratio"] < 1


def test_the_waterfall_begins_with_the_official_way_and_ends_with_all_savings(step, capsys):
    found = waterfall(step, [CAPTIONS], *HOW)
    assert [row["with"] for row in found[:3]] == ["official", "fused AdamW", "no padding"]
    assert found[-1]["kept_bytes"] < found[0]["kept_bytes"]
    print_waterfall({"size": "toy", "kind": "captions", "waterfall": found})
    assert capsys.readouterr().out.count("\n") == 3 + len(found)
