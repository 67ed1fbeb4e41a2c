"""The command line: one model, one task, a suite, scores of a file; what is wrong in one message."""

import argparse
import json
import sys
from pathlib import Path

import pytest

import relvlm
from relvlm import cli
from relvlm.errors import UserError
from relvlm.evals import cli as eval_cli
from relvlm.model import RelVLM


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
    monkeypatch.chdir(suite)
    for checkpoint, name in (("c", "c"), (".", "benchmarks")):
        run_cli("--checkpoint", checkpoint, "--suite", str(suite), "--out", str(tmp_path / "all"), "--k", "3")
        said = capsys.readouterr().out
        assert "VSR test" in said and f"| **{name}** " in said


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


def test_a_split_of_a_suite_whose_splits_are_all_scored_is_refused(suite: Path) -> None:
    """It would be scored twice, and no report can tell which of the two to take."""
    with pytest.raises(UserError, match="--split: test and val of a suite are both scored"):
        run_cli("--all-checkpoints", "c", "--suite", str(suite), "--split", "val")


def test_words_of_a_model_that_cuts_texts_itself_are_not_counted(suite: Path) -> None:
    with pytest.raises(UserError, match="--max-words: py:a:b cuts texts as it likes"):
        run_cli("--model", "py:a:b", "--suite", str(suite), "--out", "out", "--max-words", "5")


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


@pytest.mark.parametrize("option", [("--k", "3"), ("--split", "val"), ("--overlap", "{overlap}")])
def test_what_is_of_retrieval_alone_is_refused_elsewhere(
    suite: Path, tmp_path: Path, model: RelVLM, monkeypatch: pytest.MonkeyPatch, option: tuple[str, str]
) -> None:
    (tmp_path / "overlap").write_text("a b.jpg\n")
    given = [part.format(overlap=tmp_path / "overlap") for part in option]
    monkeypatch.setattr(relvlm, "load", lambda path: model, raising=False)
    where = ["--annotations", str(suite / "vsr/dev.jsonl"), "--images", str(suite / "images"), "--out", str(tmp_path)]
    for models in ("--checkpoint", "--all-checkpoints"):
        with pytest.raises(UserError, match=f"{option[0]}: vsr is no retrieval task"):
            run_cli(models, "c", "--task", "vsr", *where, *given)


@pytest.mark.parametrize("option", [("--task", "svo"), ("--annotations", "a"), ("--images", "i")])
@pytest.mark.parametrize("models", ["--checkpoint", "--all-checkpoints"])
def test_what_is_of_one_task_is_refused_beside_a_suite(suite: Path, models: str, option: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=f"{option[0]}: not with --suite"):
        run_cli(models, "c", "--suite", str(suite), "--out", "out", *option)


@pytest.mark.parametrize("option", [("--shard", "1/2"), ("--list",)])
def test_what_is_of_all_checkpoints_is_refused_of_one(suite: Path, option: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"{option[0]}: of --all-checkpoints alone"):
        run_cli("--checkpoint", "c", "--suite", str(suite), "--out", "out", *option)


def test_names_of_overlapping_images_may_have_spaces(tmp_path: Path) -> None:
    path = tmp_path / "overlap.txt"
    path.write_bytes("a b.jpg\r\n\n c.jpg \n".encode("utf-8-sig"))
    assert eval_cli._names(path) == ("a b.jpg", "c.jpg")
    path.write_text(" \n")
    with pytest.raises(UserError, match="no name in it"):
        eval_cli._names(path)
