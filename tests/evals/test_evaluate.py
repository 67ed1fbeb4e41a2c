"""Scores and metrics from real photos and official files; a suite, its missing images, its protocol."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.official_files import COCO_CC_SLICES, linked

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate, evaluate_suite, rescore, score_source, suite_sources
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.evals.tasks.task import Selection
from relvlm.model import RelVLM


@pytest.mark.parametrize(("task", "pairs"), [("vsr", 14), ("valse", 32), ("sugarcrepe", 296)])
def test_real_photos_and_official_rows(shared: Path, tmp_path: Path, model: RelVLM, task: str, pairs: int) -> None:
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
    arguments = (model, model.tokenizer, "coco", suite / "coco", suite / "images", tmp_path / "coco")
    found = evaluate(*arguments, selection=Selection(available=True))
    assert (found["n_images"], found["n_texts"]) == (11, 22)


def test_every_result_names_its_protocol(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    for task, found in evaluate_suite(model, model.tokenizer, suite, tmp_path, selection=Selection(k=4)).items():
        protocol = found["protocol"]
        assert protocol["rule"] and protocol["rule"] == rescore(task, tmp_path / task / "scores.jsonl")["rule"]
        assert (protocol["max_words"], protocol["max_tokens"], protocol["images_missing"]) == (40, 64, 0)
        lines = (tmp_path / task / "scores.jsonl").read_text().splitlines()
        assert protocol["n_pairs"] == len(lines)
        assert protocol.get("k") == (4 if task in ("coco", "paragraphs") else None)


def test_retrieval_is_scored_without_overlapping_images_too(suite: Path, tmp_path: Path, model: RelVLM) -> None:
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


def test_diverged_model_is_refused(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    with torch.no_grad():
        model.image_projection.weight.fill_(1.0)
        for parameter in model.itm_head.parameters():
            parameter.fill_(float("nan"))
    for task, name in (("vsr", "vsr"), ("coco", "coco")):
        with pytest.raises(UserError, match="diverged"):
            evaluate(model, model.tokenizer, task, suite / name, suite / "images", tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


def test_with_dev_the_val_splits_are_sources_too(suite: Path) -> None:
    def names(dev: bool) -> list[tuple[str, str, str]]:
        return [(s.name, s.task, s.selection.split) for s in suite_sources(suite, Selection(), dev)]

    test = [(name, name, "test") for name in ("vsr", "valse", "svo", "sugarcrepe", "paragraphs", "coco")]
    assert names(dev=False) == names(dev=True) == test
    (suite / "paragraphs/val_split.json").write_text("[0]")
    assert names(dev=False) == test
    assert names(dev=True) == [*test, ("paragraphs_dev", "paragraphs", "val")]


def test_what_a_result_was_made_from_is_written_with_it(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    (source,) = (s for s in suite_sources(suite, Selection()) if s.name == "svo")
    found = score_source(Scorer(model, model.tokenizer), source, tmp_path, {"checkpoint": "a"})
    assert found["made_from"] == {"checkpoint": "a"}
    assert found == json.loads((tmp_path / "metrics.json").read_text())
    assert {path.name for path in tmp_path.glob("*.*")} >= {"metrics.json", "scores.jsonl", "outcomes.npz"}
    assert "made_from" not in score_source(Scorer(model, model.tokenizer), source, tmp_path)


def test_only_the_first_process_writes(
    suite: Path, tmp_path: Path, model: RelVLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relvlm.evals.evaluate.rank", lambda: 1)
    evaluate(model, model.tokenizer, "svo", suite / "svo", suite / "images", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_models_results_do_not_stay_beside_a_suites(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    evaluate_suite(model, model.tokenizer, suite, tmp_path / "out")
    for task in ("vsr", "valse", "svo", "sugarcrepe", "paragraphs"):
        shutil.rmtree(suite / task)
    evaluate_suite(model, model.tokenizer, suite, tmp_path / "out")  # the same weights
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(UserError, match=r"metrics\.json: of another model"):
        evaluate_suite(model, model.tokenizer, suite, tmp_path / "out")


def test_another_tasks_results_are_not_replaced(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    for task, file in (("vsr", "vsr/dev.jsonl"), ("vsr", "vsr/dev.jsonl")):  # the same task's are
        evaluate(model, model.tokenizer, task, suite / file, suite / "images", tmp_path / "out")
    before = (tmp_path / "out/metrics.json").read_bytes()
    with pytest.raises(UserError, match=r"metrics\.json: of vsr, which valse would replace"):
        evaluate(model, model.tokenizer, "valse", suite / "valse", suite / "images", tmp_path / "out")
    assert (tmp_path / "out/metrics.json").read_bytes() == before


def test_an_interrupted_evaluation_is_no_result(suite: Path, tmp_path: Path, model: RelVLM, monkeypatch) -> None:
    arguments = (model, model.tokenizer, "vsr", suite / "vsr/dev.jsonl", suite / "images", tmp_path / "out")
    evaluate(*arguments)
    monkeypatch.setattr("relvlm.evals.figures.outcomes.save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(*arguments)
    assert not (tmp_path / "out/metrics.json").exists()


def test_a_listing_of_photos_does_not_outlive_its_evaluation(suite: Path, tmp_path: Path, model: RelVLM) -> None:
    photo = suite / "images/3.jpg"
    photo.rename(tmp_path / "3.jpg")
    arguments = (model, model.tokenizer, "vsr", suite / "vsr/dev.jsonl", suite / "images", tmp_path / "out")
    evaluate(*arguments, selection=Selection(available=True))
    assert (tmp_path / "out/images.json").exists()
    (tmp_path / "3.jpg").rename(photo)
    evaluate(*arguments)
    assert not (tmp_path / "out/images.json").exists()


@pytest.mark.parametrize("fault", ["photo", "annotations"])
def test_what_is_wrong_with_any_task_is_said_before_the_first_is_scored(
    suite: Path, tmp_path: Path, model: RelVLM, fault: str
) -> None:
    if fault == "photo":
        (suite / "images/11.jpg").unlink()
    else:
        (suite / "coco/karpathy.json").write_text("{")
    wanted = {"photo": r"images missing: 11\.jpg", "annotations": r"karpathy\.json: not JSON"}[fault]
    with pytest.raises(UserError, match=wanted):
        evaluate_suite(model, model.tokenizer, suite, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if fault == "photo":
        found = evaluate_suite(model, model.tokenizer, suite, tmp_path / "out", selection=Selection(available=True))
        assert found["coco"]["images_missing"] == 1
