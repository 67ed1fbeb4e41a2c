"""The runs of a study: what each is told, when it is done, and a small study from its plan to its table."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from relvlm.errors import UserError
from relvlm.study import runs as study_runs
from relvlm.study.plan import Arm, Plan, read_plan
from relvlm.study.runs import Run, left, runs_of, set_otherwise, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def real(tiny: list[str], relworld: Path, tmp_path: Path) -> Plan:
    """Two arms of a few steps on the small RelWorld, evaluated on a few examples."""
    arms = [{"name": name, "config": str(ROOT / f"configs/mini/{name}.yaml")} for name in ("xvlm", "rex_vlm")]
    small = ["eval.tasks=[svo]", "eval.limit=4", "checkpoint.every=3", "optim.warmup_steps=1"]
    tree = {
        "name": "real", "out": str(tmp_path / "runs"), "results": str(tmp_path / "results"), "seeds": [0],
        "suite": str(relworld / "benchmarks"), "arms": arms, "budgets": [{"name": "steps", "steps": 4}],
        "compare": [["xvlm", "rex_vlm"]], "evaluations": 2, "set": [*tiny[2:-1], *small],
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(tree))
    return read_plan(tmp_path / "plan.yaml")


def test_a_seed_of_every_arm_comes_before_the_next_seed(plan):
    names = [(run.seed, run.arm.name) for run in runs_of(plan)]
    assert names == [(3, "X-VLM"), (3, "ReX-VLM"), (5, "X-VLM"), (5, "ReX-VLM")]
    assert len({run.folder for run in runs_of(plan)}) == len({run.result for run in runs_of(plan)}) == 4


def test_a_run_is_told_its_seed_folder_steps_and_evaluations(plan):
    run = runs_of(plan)[3]
    assert run.overrides == [
        "optim.lr=1e-3", "seed=5", f"out={run.folder}", "steps=10", "eval.every=4", f"eval.suite={plan.suite}",
    ]  # fmt: skip
    assert (run.config.seed, run.config.steps, run.config.optim.lr) == (5, 10, 1e-3)


def test_what_an_arm_sets_takes_the_place_of_what_the_plan_does(plan, caplog):
    run = runs_of(plan)[3]
    run = replace(run, arm=replace(run.arm, set=["optim.lr=3e-3"]))
    assert run.overrides[:2] == ["optim.lr=3e-3", "seed=5"] and run.config.optim.lr == 3e-3
    assert "overruled" not in caplog.text


def test_an_arm_that_goes_on_starts_from_the_same_seed_for_a_share_of_the_budget(plan):
    later = Arm("ReX-VLM, later", "configs/mini/rex_vlm.yaml", after="X-VLM", share=0.2)
    plan = replace(plan, arms=[*plan.arms, later])
    run = next(run for run in runs_of(plan) if run.arm == later and run.seed == 5)
    assert run.before and (run.before.arm.name, run.before.seed) == ("X-VLM", 5)
    assert run.config.steps == 2 and run.config.init.checkpoint == str(run.before.folder)
    assert run.config.init.vision is None


def test_what_a_run_goes_on_from_comes_first_and_again_where_its_checkpoints_are_gone(real):
    later = Arm("later", str(ROOT / "configs/mini/rex_vlm.yaml"), after="xvlm", share=0.5)
    first, _, last = runs = runs_of(replace(real, arms=[*real.arms, later]))
    assert [run.ready for run in runs] == [True, True, False]
    for run in runs[:2]:
        run.result.parent.mkdir(parents=True, exist_ok=True)
        run.result.write_text(json.dumps({"digest": run.digest}))
    assert left(runs) == [first, last]
    (first.folder / "checkpoints/step_0000004").mkdir(parents=True)
    assert last.ready and left(runs) == [last]
    assert replace(first, seed=1).folder != first.folder


def test_what_never_begins_is_said(real):
    later = Arm("later", str(ROOT / "configs/mini/rex_vlm.yaml"), after="xvlm")
    runs = runs_of(replace(real, arms=[*real.arms, later], set=[*real.set, "data.vocab=/gone.txt"]))
    failed = train(runs, processes=2)
    assert "steps, later, seed 0: not begun: xvlm, which it goes on from, has not ended" in failed


def test_a_result_of_another_config_is_not_passed_over(real, relworld):
    run = runs_of(real)[0]
    assert not run.is_done()
    run.result.parent.mkdir(parents=True)
    run.result.write_text(json.dumps({"digest": run.digest}))
    assert run.is_done()
    other = replace(real, out=f"{real.out}-elsewhere")
    assert runs_of(other)[0].is_done()  # where it is trained is no part of what is trained
    (changed,) = [each for each in runs_of(replace(real, set=[*real.set, "optim.lr=0.5"])) if each.arm.name == "xvlm"]
    with pytest.raises(UserError, match="of another config or other data"):
        changed.is_done()
    run.result.write_text("<<<<<<< HEAD\n{}")
    with pytest.raises(UserError, match=rf"{run.result.name}: not JSON"):
        run.is_done()


def test_benchmarks_that_a_suite_links_to_are_part_of_a_digest(tmp_path):
    for name in ("suite", "elsewhere/vsr", "elsewhere/photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "suite/vsr").symlink_to(tmp_path / "elsewhere/vsr")
    (tmp_path / "suite/images").symlink_to(tmp_path / "elsewhere/photos")
    digests = []
    for file in ("vsr/test.jsonl", "photos/1.jpg"):
        (tmp_path / "elsewhere" / file).write_text("")
        digests.append(study_runs._digest(tmp_path / "suite"))
    (tmp_path / "elsewhere/vsr/test.jsonl").write_text("another row")
    assert digests[0] == digests[1] != study_runs._digest(tmp_path / "suite")


def test_a_field_that_is_as_always_is_no_part_of_a_digest():
    defaults = {"a": 1, "deep": {"b": 2, "c": 3}, "list": [1]}
    assert set_otherwise({"a": 1, "deep": {"b": 2, "c": 4}, "list": [1]}, defaults) == {"deep": {"c": 4}}
    assert set_otherwise({"list": [2], "deep": {"b": 2, "c": 3, "d": None}}, defaults) == {
        "list": [2],
        "deep": {"d": None},
    }
    assert set_otherwise({"a": 1}, {"a": 1.0}) == {}


def test_what_fails_is_named_and_leaves_no_result(real):
    broken = runs_of(replace(real, set=[*real.set, "data.vocab=/gone.txt"]))
    failed = train(broken, processes=2)
    expected = [f"steps, {arm}, seed 0: ended with status 2 (see " for arm in ("rex_vlm", "xvlm")]
    assert [fault[: len(start)] for fault, start in zip(sorted(failed), expected, strict=True)] == expected
    for run in broken:
        assert "/gone.txt: data.vocab: no such file" in (run.folder / "train.log").read_text()
        assert not run.result.exists()


def test_a_run_that_was_not_evaluated_is_named_and_the_others_go_on(plan):
    run = runs_of(plan)[0]
    (fault,) = study_runs._ended(run, 0, left=3)
    assert fault.startswith("steps, X-VLM, seed 3: ") and "its last checkpoint was not evaluated" in fault
    assert not run.result.exists()


def test_a_task_of_an_array_has_its_share_of_the_runs(plan_file):
    array = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "3"}
    environment = os.environ | array | {"PYTHON": sys.executable, "SLURM_SUBMIT_DIR": str(ROOT)}
    command = ["bash", str(ROOT / "slurm/study_array.sh"), str(plan_file), "--list"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert [line.split(":")[1] for line in said.splitlines()] == [" steps, X-VLM, seed 5"]


@pytest.mark.slow
def test_a_study_from_its_plan_to_its_table(real, tmp_path):
    command = [sys.executable, "-m", "relvlm.study", str(tmp_path / "plan.yaml"), "--processes", "2"]

    def study(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)

    done = study()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "**xvlm**" in done.stdout and "**rex_vlm**" in done.stdout and "SVO" in done.stdout
    assert [line.split(":")[0] for line in study("--list").stdout.splitlines()] == ["done", "done"]
    result = json.loads(runs_of(real)[1].result.read_text())
    assert [step for step, _ in result["curves"]["SVO"]] == [2, 4] and result["figures"]["SVO"]["n"] > 0
    assert result["steps"] == 4 and result["tflop"] > 0 < result["hours"]
    (runs_of(real)[0].folder / "metrics.csv").unlink()
    assert study().returncode == 0  # what is done is not looked at again


def test_a_seed_may_have_data_of_its_own(plan):
    arm = replace(plan.arms[0], set=["data.vocab=words_{seed}.txt", "data.captions=[{path: fold_{seed}/captions}]"])
    run = Run(replace(plan, suite="fold_{seed}/benchmarks"), plan.budgets[0], arm, 5)
    assert run.suite == Path("fold_5/benchmarks") and "eval.suite=fold_5/benchmarks" in run.overrides
    assert run.config.data.vocab == "words_5.txt" and run.config.data.captions[0].path == "fold_5/captions"


@pytest.mark.slow
def test_a_study_that_is_told_to_end_has_its_runs_save_first(real, tmp_path):
    tree = yaml.safe_load((tmp_path / "plan.yaml").read_text()) | {"budgets": [{"name": "long", "steps": 9000}]}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(tree))
    said = runs_of(read_plan(tmp_path / "long.yaml"))[0].folder / "train.log"
    command = [sys.executable, "-m", "relvlm.study", str(tmp_path / "long.yaml"), "--processes", "1"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 180
    while not (said.exists() and "| captions" in said.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "told to end by SIGTERM: saved" in said.read_text()
