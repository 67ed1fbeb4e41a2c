"""Scores and metrics from real photos and official files, through the library and the command line."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from official_files import COCO_CC_SLICES, linked

import relvlm
from relvlm import cli
from relvlm.errors import UserError
from relvlm.evals import cli as eval_cli
from relvlm.evals.figures.main_table import ModelRows, as_markdown, model_rows
from relvlm.evals.run import Selection, evaluate, evaluate_suite, rescore
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.model import RelVLM


@pytest.mark.parametrize(("task", "pairs"), [("vsr", 14), ("valse", 32), ("sugarcrepe", 296)])
def test_real_photos_and_official_rows(
    shared: Path, tmp_path: Path, model: RelVLM, task: str, pairs: int
) -> None:
    slices, images = shared / "data/benchmarks/coco_cc_slices", shared / "data/coco_cc/images"
    annotations = linked(slices, COCO_CC_SLICES, tmp_path / "slices")
    found = evaluate(model, model.tokenizer, task, annotations, images, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert found["n_pairs"] == len(rows) == pairs
    assert found == json.loads((tmp_path / "metrics.json").read_text())
    assert len({round(row["score"], 7) for row in rows}) > pairs // 3
    again = rescore(task, tmp_path / "scores.jsonl", annotations)
    assert again == {name: found[name] for name in again}


def test_suite_scores_every_task_and_its_scores_give_the_same_metrics(
    suite: Path, tmp_path: Path, model: RelVLM
) -> None:
    results = evaluate_suite(model, model.tokenizer, suite, tmp_path / "out")
    assert list(results) == ["vsr", "valse", "svo", "sugarcrepe", "paragraphs", "coco"]
    for task, found in results.items():
        folder = {"svo": "svo/svo_probes.csv"}.get(task, task)
        again = rescore(task, tmp_path / "out" / task / "scores.jsonl", suite / folder)
        assert again == {name: found[name] for name in again}


def test_missing_images_are_refused_then_listed(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    (suite / "images/3.jpg").unlink()
    arguments = (model, model.tokenizer, "vsr", suite / "vsr/dev.jsonl", suite / "images", tmp_path / "out")
    with pytest.raises(UserError, match=r"1 images missing: 3\.jpg"):
        evaluate(*arguments)
    found = evaluate(*arguments, selection=Selection(available=True))
    assert (found["missing_images"], found["images_missing"], found["n"]) == (["3.jpg"], 1, 11)
    assert (found["scored"], found["protocol"]["images_missing"]) == ("available", 1)
    arguments = (model, model.tokenizer, "coco", suite / "coco", suite / "images", tmp_path / "out")
    found = evaluate(*arguments, selection=Selection(available=True))
    assert (found["n_images"], found["n_texts"]) == (11, 22)


def test_every_result_names_its_protocol(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    for task, found in evaluate_suite(
        model, model.tokenizer, suite, tmp_path, selection=Selection(k=4)
    ).items():
        protocol = found["protocol"]
        assert (
            protocol["rule"] and protocol["rule"] == rescore(task, tmp_path / task / "scores.jsonl")["rule"]
        )
        assert (protocol["max_words"], protocol["max_tokens"], protocol["images_missing"]) == (40, 64, 0)
        lines = (tmp_path / task / "scores.jsonl").read_text().splitlines()
        assert protocol["n_pairs"] == len(lines)
        assert protocol.get("k") == (4 if task in ("coco", "paragraphs") else None)


def test_retrieval_is_scored_without_overlapping_images_too(
    suite: Path, tmp_path: Path, model: RelVLM
) -> None:
    chosen = Selection(overlap=("3", "5", "77"))
    arguments = (
        model,
        model.tokenizer,
        "paragraphs",
        suite / "paragraphs",
        suite / "images",
        tmp_path / "out",
    )
    found = evaluate(*arguments, selection=chosen)
    assert (found["n_images"], found["without_overlap"]["n_images"]) == (12, 10)
    assert "without_overlap" not in evaluate(*arguments)


def test_limit_takes_the_first_of_each_file(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    found = evaluate(
        model,
        model.tokenizer,
        "vsr",
        suite / "vsr",
        suite / "images",
        tmp_path / "out",
        selection=Selection(limit=2),
    )
    assert {name: part["n"] for name, part in found["by_split"].items()} == {"dev": 2, "test": 2}


def vsr_figures(*splits: str) -> dict:
    """Metrics of a VSR evaluation whose accuracy is 100 in every split and 40 in all."""
    part = {"interval95": [0, 100], "calibrated_at_median": 50.0, "calibrated_at_median_interval95": [0, 100]}
    by_split = {name: part | {"overall": 100.0, "n": 1} for name in splits}
    return part | {"task": "vsr", "overall": 40.0, "n": 9, "by_split": by_split}


@pytest.mark.parametrize(
    ("splits", "columns"),
    [
        (("dev", "test"), {"VSR dev": 100.0, "VSR test": 100.0}),
        (("random_dev", "random_test", "random_train"), {"VSR dev": 100.0, "VSR test": 100.0}),
        (("random_dev", "zeroshot_test"), {"VSR": 40.0}),
        (("random_test", "zeroshot_test"), {"VSR": 40.0}),
    ],
)
def test_vsr_files_of_several_releases_are_one_column(splits: tuple[str, ...], columns: dict) -> None:
    cells = model_rows("a", {"vsr": vsr_figures(*splits)}).cells
    assert {t: c.value for t, c in cells.items() if "calibrated" not in t} == columns
    assert all(title in as_markdown(ModelRows("a", cells)) for title in columns)


def test_diverged_model_is_refused(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    with torch.no_grad():
        model.image_projection.weight.fill_(1.0)
        for parameter in model.itm_head.parameters():
            parameter.fill_(float("nan"))
    for task, name in (("vsr", "vsr"), ("coco", "coco")):
        with pytest.raises(UserError, match="diverged"):
            evaluate(model, model.tokenizer, task, suite / name, suite / "images", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run_cli(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    eval_cli.add_arguments(parser)
    eval_cli.main(parser.parse_args(arguments))


def test_command_line_evaluates_and_rescores(
    suite: Path, tmp_path: Path, model: RelVLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(relvlm, "load", lambda path: model, raising=False)
    where = ["--annotations", str(suite / "vsr/dev.jsonl"), "--images", str(suite / "images")]
    run_cli("--checkpoint", "c", "--task", "vsr", *where, "--out", str(tmp_path / "out"), "--max-words", "2")
    printed = json.loads(capsys.readouterr().out)
    assert printed["protocol"]["max_words"] == 2
    run_cli("score", "--task", "vsr", "--scores", str(tmp_path / "out/scores.jsonl"))
    assert json.loads(capsys.readouterr().out)["overall"] == printed["overall"]
    run_cli("--checkpoint", "c", "--suite", str(suite), "--out", str(tmp_path / "all"), "--k", "3")
    assert "VSR test" in capsys.readouterr().out


def test_command_line_scores_another_ones_model(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "constant_model.py").write_text(
        "import torch\n"
        "class build:\n"
        "    def encode_image(self, pixels): return pixels.mean((1, 2, 3))\n"
        "    def encode_text(self, texts): return [torch.zeros(1)] * len(texts)\n"
        "    def match(self, images, texts, image, text): return images[image]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    where = ["--annotations", str(suite / "svo/svo_probes.csv"), "--images", str(suite / "images")]
    model = ["--model", "py:constant_model:build", "--task", "svo"]
    run_cli(*model, *where, "--out", str(tmp_path / "out"))
    assert json.loads(capsys.readouterr().out)["score"] == "similarity"


@pytest.mark.parametrize("models", [[], ["--checkpoint", "a", "--model", "hf:b"]])
def test_command_line_wants_one_model(models: list[str]) -> None:
    with pytest.raises(UserError, match="one of --checkpoint, --model, --all-checkpoints"):
        run_cli(*models, "--task", "vsr")


def test_command_line_error_is_one_message_and_exit_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scores = tmp_path / "none.jsonl"
    monkeypatch.setattr(sys, "argv", ["relvlm", "eval", "score", "--task", "vsr", "--scores", str(scores)])
    with pytest.raises(SystemExit) as exit_status:
        cli.main()
    assert exit_status.value.code == 2
    assert capsys.readouterr().err == f"error: {scores}: no such file\n"


def test_unknown_device_is_refused(model: RelVLM) -> None:
    with pytest.raises(UserError, match="--device"):
        evaluate(
            model,
            model.tokenizer,
            "vsr",
            Path("a"),
            Path("b"),
            Path("c"),
            options=ScoreOptions(device="tpu9"),
        )


def test_empty_suite_is_refused(tmp_path: Path, model: RelVLM) -> None:
    with pytest.raises(UserError, match="none of"):
        evaluate_suite(model, model.tokenizer, tmp_path, tmp_path / "out")
