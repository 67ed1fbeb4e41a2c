"""Evaluation while a run trains: the same files as `relvlm eval --all-checkpoints`, refused early where it must be."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.launched import start

from relvlm.config.schema import Config
from relvlm.config.training import CheckpointConfig, EvalConfig
from relvlm.engine import judging
from relvlm.errors import UserError
from relvlm.evals.checkpoints import every
from relvlm.evals.checkpoints.during import TrainingJudge
from relvlm.evals.evaluate import suite_sources
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tasks.task import Selection

Checkpoint = Callable[..., Path]


def judge(out: Path, suite: Path, keep_best: str | None = None, **asked: object) -> TrainingJudge:
    chosen = EvalConfig(every=10, suite=str(suite), **asked)
    return TrainingJudge(Config(out=str(out), eval=chosen, checkpoint=CheckpointConfig(keep_best=keep_best)))


def test_a_checkpoint_is_evaluated_as_the_command_would(checkpoint: Checkpoint, suite: Path, tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "run/checkpoints", 10, 0)
    found = judge(tmp_path / "run", suite, tasks=["vsr", "svo"]).figures(made, torch.device("cpu"))
    assert all(title.startswith(("VSR", "SVO")) for title in found) and len({title[:3] for title in found}) == 2
    assert all(0 <= value <= 100 for value in found.values())
    again = every.progress(made, suite_sources(suite, Selection()), tmp_path / "run" / every.RESULTS, ScoreOptions())
    assert {source.name for source in again.done} == {"vsr", "svo"}


def test_a_checkpoint_that_is_made_anew_is_evaluated_anew(checkpoint: Checkpoint, suite: Path, tmp_path: Path) -> None:
    """By one process: a run that went back, and the soups of a study, which have one folder in turn."""
    judged = judge(tmp_path / "run", suite, tasks=["valse"])
    made = checkpoint(tmp_path / "run/checkpoints", 10, 0)
    before = judged.figures(made, torch.device("cpu"))
    shutil.rmtree(made)
    checkpoint(tmp_path / "run/checkpoints", 10, 5)
    alone = judge(tmp_path / "alone", suite, tasks=["valse"]).figures(made, torch.device("cpu"))
    assert judged.figures(made, torch.device("cpu")) == alone != before


def test_only_the_first_examples_are_scored_where_so_asked(checkpoint: Checkpoint, suite: Path, tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "run/checkpoints", 10, 0)
    judge(tmp_path / "run", suite, tasks=["svo"], limit=2).figures(made, torch.device("cpu"))
    lines = (tmp_path / "run" / every.RESULTS / made.name / "svo/scores.jsonl").read_text().splitlines()
    assert len(lines) == 4  # two images a row


def test_what_is_not_there_is_refused_before_any_work(suite: Path, tmp_path: Path) -> None:
    judge(tmp_path, suite, "VSR", tasks=["vsr"]).check()
    for wrong, message in (
        (judge(tmp_path, tmp_path / "none"), r"eval\.suite: .*none: none of vsr"),
        (judge(tmp_path, suite, tasks=["vsr", "winoground"]), r"eval\.tasks: winoground: not in .* \(it has vsr"),
        (judge(tmp_path, suite, "SVO", tasks=["vsr"]), r"checkpoint\.keep_best: 'SVO' is none of VSR"),
    ):
        with pytest.raises(UserError, match=message):
            wrong.check()


def test_a_photo_that_is_not_there_is_said_before_training(suite: Path, tmp_path: Path) -> None:
    (suite / "images/11.jpg").unlink()
    with pytest.raises(UserError, match=r"eval\.suite: .*1 images missing: images/11\.jpg"):
        judge(tmp_path, suite, tasks=["coco"]).check()
    judge(tmp_path, suite, tasks=["coco"], limit=11).check()


def test_a_task_of_boxes_is_none_of_a_model_without(suite: Path, tmp_path: Path) -> None:
    (suite / "refcoco").mkdir()
    (suite / "refcoco/finetune_refcoco_val.json").write_text("{")
    whole = judge(tmp_path, suite)
    with pytest.raises(UserError, match=r"eval\.suite: .*finetune_refcoco_val\.json"):
        whole.check()
    config = dataclasses.replace(whole.config, model=dataclasses.replace(whole.config.model, localisation=False))
    TrainingJudge(config).check()


def test_the_best_by_dev_needs_a_dev_split(suite: Path, tmp_path: Path) -> None:
    by_dev = judge(tmp_path, suite, "COCO dev TR@1", tasks=["coco"])
    with pytest.raises(UserError, match=r"keep_best: 'COCO dev TR@1' is none of COCO TR@1, COCO IR@1$"):
        by_dev.check()
    file = suite / "coco/karpathy.json"
    images = json.loads(file.read_text())["images"]
    file.write_text(json.dumps({"images": [*images[:6], *({**image, "split": "val"} for image in images[6:])]}))
    by_dev.check()
    judge(tmp_path, suite, "COCO TR@1", tasks=["coco"]).check()


@pytest.mark.slow
def test_two_ranks_evaluate_while_they_train(tiny: list[str], relworld: Path, tmp_path: Path) -> None:
    asked = [f"eval={{every: 2, suite: {relworld / 'benchmarks'}, tasks: [svo], limit: 6}}"]
    kept = ["checkpoint.keep=1", "checkpoint.keep_best=SVO", "steps=5"]
    processes = start([*tiny, *asked, *kept, f"out={tmp_path / 'run'}"], ranks=2)
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][-3000:]
    figures = judging.read(tmp_path / "run")
    assert [(step, name) for step, name, _ in figures] == [("2", "SVO"), ("4", "SVO"), ("5", "SVO")]
    best = max(figures, key=lambda row: float(row[2]))[0]
    left = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step_*"))
    assert left == sorted({f"step_{int(best):07d}", "step_0000005"})
    assert said[0].count("evaluated: SVO") == 3 and "evaluated" not in said[1]
