"""Published per-example scores must give the published metrics, to 0.01 on every figure."""

import json
from pathlib import Path

import pytest
from support.official_files import VALSE, linked

from relvlm.evals.evaluate import rescore

VSR = [(model, split) for model in ("albef_4m", "x-vlm_4m") for split in ("dev", "test")]
MODELS = ("albef_4m", "x-vlm_4m")


def expected(shared: Path) -> dict:
    return json.loads((shared / "reference/expected_metrics.json").read_text())


def assert_equal_figures(found: dict, wanted: dict) -> None:
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(("model", "split"), VSR)
@pytest.mark.parametrize("annotated", [False, True])
def test_vsr_equals_published(shared: Path, model: str, split: str, annotated: bool) -> None:
    annotations = shared / f"data/benchmarks/vsr/random_2022/{split}.jsonl" if annotated else None
    found = rescore("vsr", shared / f"reference/outputs/vsr_{model}_{split}.jsonl", annotations)
    assert_equal_figures(found, expected(shared)["VSR_random"][model][split])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("annotated", [False, True])
def test_valse_equals_published(shared: Path, tmp_path: Path, model: str, annotated: bool) -> None:
    official = linked(shared / "data/benchmarks/valse", VALSE, tmp_path / "valse")
    annotations = official if annotated else None
    found = rescore("valse", shared / f"reference/outputs/valse_{model}.jsonl", annotations)
    assert_equal_figures(found, expected(shared)["VALSE"][model])
    assert found["n"] == 7702


@pytest.mark.parametrize("model", MODELS)
def test_winoground_equals_published(shared: Path, model: str) -> None:
    found = rescore("winoground", shared / f"reference/outputs/winoground_{model}.jsonl")
    assert_equal_figures(found, expected(shared)["Winoground"][model]["overall"])
    assert found["overall"] == found["group"]
