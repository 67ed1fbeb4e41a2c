"""Every checkpoint of a run: what is done is skipped, what changed is done again, shards share the work."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals import cli
from relvlm.evals.checkpoints import every
from relvlm.evals.evaluate import suite_sources
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tasks.task import Selection

ROOT = Path(__file__).resolve().parents[3]
Checkpoint = Callable[..., Path]


@pytest.fixture()
def run(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    for seed, step in enumerate((10, 20, 30)):
        checkpoint(tmp_path / "run/checkpoints", step, seed)
    return tmp_path / "run"


def evaluate(run: Path, suite: Path, *arguments: str) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    cli.main(parser.parse_args(["--all-checkpoints", str(run), "--suite", str(suite), *arguments]))


def written(run: Path) -> dict[str, int]:
    files = (run / every.RESULTS).rglob("metrics.json")
    return {str(f.parent.relative_to(run / every.RESULTS)): f.stat().st_mtime_ns for f in files}


def test_every_checkpoint_is_scored_on_every_task_and_on_dev_splits(run: Path, suite: Path) -> None:
    shutil.copy(suite / "paragraphs/test_split.json", suite / "paragraphs/val_split.json")
    evaluate(run, suite)
    tasks = {"vsr", "valse", "svo", "sugarcrepe", "paragraphs", "coco", "paragraphs_dev"}
    steps = {"step_0000010", "step_0000020", "step_0000030"}
    assert set(written(run)) == {f"{step}/{task}" for step in steps for task in tasks}
    found = json.loads((run / every.RESULTS / "step_0000010/paragraphs_dev/metrics.json").read_text())
    assert (found["protocol"]["split"], found["protocol"]["k"], found["protocol"]["n_pairs"]) == (
        "val",
        128,
        144,
    )


def test_a_second_start_does_only_what_is_not_done(run: Path, suite: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate(run, suite)
    before = written(run)
    (run / every.RESULTS / "step_0000020/vsr/metrics.json").unlink()
    (run / every.RESULTS / "step_0000010/svo/scores.jsonl").unlink()
    capsys.readouterr()
    evaluate(run, suite)
    after = written(run)
    assert {k for k in after if after[k] != before[k]} == {"step_0000020/vsr", "step_0000010/svo"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("step_0000010: done vsr valse sugarcrepe") and printed[0].endswith("scored svo")


def test_another_checkpoint_or_protocol_is_scored_again(run: Path, suite: Path, checkpoint: Checkpoint) -> None:
    sources = suite_sources(suite, Selection())
    first = run / "checkpoints/step_0000010"
    out = run / every.RESULTS
    every.evaluate_checkpoints([first], sources, out, ScoreOptions())
    assert not every.progress(first, sources, out, ScoreOptions(token_budget=64, image_batch=2)).todo
    assert len(every.progress(first, sources, out, ScoreOptions(max_words=3)).todo) == len(sources)
    assert len(every.progress(first, suite_sources(suite, Selection(limit=2)), out, ScoreOptions()).todo) == len(
        sources
    )
    with (suite / "vsr/dev.jsonl").open("a") as file:
        file.write("\n")
    assert [s.name for s in every.progress(first, sources, out, ScoreOptions()).todo] == ["vsr"]
    shutil.rmtree(first)
    checkpoint(run / "checkpoints", 10, seed=5)
    assert len(every.progress(first, sources, out, ScoreOptions()).todo) == len(sources)


def test_a_broken_checkpoint_does_not_stop_the_others(run: Path, suite: Path) -> None:
    (run / "checkpoints/step_0000010/model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"(?s)1 of 3 checkpoints failed.*step_0000010.*model\.safetensors"):
        evaluate(run, suite)
    assert {name.partition("/")[0] for name in written(run)} == {"step_0000020", "step_0000030"}


def test_among_several_processes_a_broken_checkpoint_stops_all(
    run: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "world_size", lambda: 2)
    (run / "checkpoints/step_0000010/model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"\A(?!.*checkpoints failed).*model\.safetensors"):
        evaluate(run, suite, "--limit", "1")
    assert not (run / every.RESULTS).exists()


def test_shards_are_disjoint_and_cover_all(run: Path) -> None:
    found = every.checkpoints_of(run)
    assert sorted(every.shard_of(found, "0/2") + every.shard_of(found, "1/2")) == found
    assert len(every.shard_of(found, "0/2")) == 2
    for wrong in ("2/2", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="--shard"):
            every.shard_of(found, wrong)


def test_list_scores_nothing(run: Path, suite: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate(run, suite, "--list")
    assert capsys.readouterr().out.startswith("step_0000010: to do vsr valse svo")
    assert not (run / every.RESULTS).exists()


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoints/step_"):
        every.checkpoints_of(tmp_path)


@pytest.mark.slow
def test_the_array_script_scores_its_share(run: Path, suite: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "DEVICE": "cpu", "SLURM_ARRAY_TASK_ID": "2"}
    environment |= {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_SUBMIT_DIR": str(ROOT)}
    command = ["bash", str(ROOT / "slurm/eval_array.sh"), str(run), str(suite), "--limit", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert {name.partition("/")[0] for name in written(run)} == {"step_0000020"}


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("RELVLM_SLURM") != "1", reason="needs a Slurm cluster (set RELVLM_SLURM=1)")
def test_a_job_array_scores_every_checkpoint(run: Path, suite: Path, tmp_path: Path) -> None:
    options = ["--parsable", "--array", "0-1", "--gpus-per-node", "0", "--cpus-per-task", "1"]
    options += ["--output", str(tmp_path / "%a.log"), str(ROOT / "slurm/eval_array.sh")]
    environment = os.environ | {"PYTHON": sys.executable, "DEVICE": "cpu", "OMP_NUM_THREADS": "1"}

    def call(*command: str) -> str:
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
        return done.stdout.strip()

    job = call("sbatch", *options, str(run), str(suite), "--limit", "2")
    assert job
    deadline = time.monotonic() + 300
    states = ("--noheader", "--states=PENDING,CONFIGURING,RUNNING,COMPLETING", f"--jobs={job}")
    while call("squeue", *states) and time.monotonic() < deadline:
        time.sleep(0.5)
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("?.log")))
    assert {name.partition("/")[0] for name in written(run)} == {f"step_00000{s}" for s in (10, 20, 30)}, logs
