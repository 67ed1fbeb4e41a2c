"""What `relvlm submit` asks Slurm for (tests/slurm submits to a real one)."""

import argparse
import re
from pathlib import Path

import pytest

from relvlm import jobs, submit
from relvlm.config.load import load_config, parse, to_tree
from relvlm.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = str(ROOT / "configs/mini/rex_vlm.yaml")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    submit.add_arguments(parser)
    return parser.parse_intermixed_args(["--config", CONFIG, *words])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def preview(capsys, *words: str) -> str:
    submit.main(parsed("--dry-run", "out=runs/a", *words))
    assert not list(Path().iterdir())
    return capsys.readouterr().out


def flags(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.M))


def test_a_dry_run_prints_the_script_and_leaves_nothing(capsys):
    asked = ["--account", "lab", "--qos", "high", "--mem", "64G", "--constraint", "h200", "--partition", "gpu"]
    printed = preview(capsys, *asked, "--nodes", "2", "--tasks-per-node", "8", "--gpus-per-node", "8", "seed=3")
    found = flags(printed)
    expected = {"account": "lab", "qos": "high", "mem": "64G", "constraint": "h200", "partition": "gpu", "nodes": "2"}
    expected |= {"ntasks-per-node": "8", "gpus-per-node": "8", "requeue": "", "time": "1440"}
    assert expected.items() <= found.items() and not {"dependency", "array"} & found.keys()
    assert found["comment"] == f"'{jobs.mark(Path('runs/a'))}'" and "runs/a (seed 3)" in printed
    assert (
        "srun --unbuffered" in printed
        and "--kill-on-bad-exit=0 --wait=20" in printed
        and printed.startswith("# job 1 of 1")
    )


def test_what_is_not_asked_for_is_left_to_the_cluster(capsys):
    assert not {"account", "qos", "mem", "constraint", "partition", "gpus-per-node"} & flags(preview(capsys)).keys()


def test_seeds_are_one_array_with_a_folder_each(capsys):
    printed = preview(capsys, "--array", "0,7,2")
    assert flags(printed)["array"] == "0-2%3"
    assert re.findall(r"#   (\S+) \(seed (\d)\)", printed) == [(f"runs/a/seed_{s}", s) for s in "072"]


def test_a_run_of_a_seed_is_its_own():
    config = load_config(Path(CONFIG))
    (found,) = submit.of_seeds(config, [5])
    assert (found.seed, found.out, found.name) == (5, f"{config.out}/seed_5", f"{config.name} seed 5")
    assert parse(to_tree(found), "x") == found and submit.of_seeds(config, None) == [config]


def test_a_chain_waits_for_the_job_before(capsys):
    scripts = preview(capsys, "--chain", "3").split("# job ")[1:]
    assert [flags(script).get("dependency") for script in scripts] == [None, "afterany:JOB_1", "afterany:JOB_2"]


class Executor:
    """Of submitit's what is called; jobs are numbered from 40."""

    made: list["Executor"]

    def __init__(self, folder: Path, max_num_timeout: int) -> None:
        self.folder = folder
        self.made.append(self)

    def update_parameters(self, **parameters: object) -> None:
        self.parameters = parameters

    def submit_array(self, trainings: list[submit.Training]) -> list[argparse.Namespace]:
        self.trainings = trainings
        number = str(39 + len(self.made)) + ("_0" if len(trainings) > 1 else "")
        return [argparse.Namespace(job_id=number, paths=argparse.Namespace(folder=f"logs/{number}"))]


def test_a_chain_of_arrays_is_submitted_one_after_another(monkeypatch, capsys):
    monkeypatch.setattr(Executor, "made", [], raising=False)
    monkeypatch.setattr(submit.submitit, "SlurmExecutor", Executor)
    monkeypatch.setattr(submit.shutil, "which", lambda name: f"/usr/bin/{name}")
    submit.main(parsed("--array", "1,2", "--chain", "3", "out=runs/a"))
    assert [made.parameters.get("dependency") for made in Executor.made] == [None, "afterany:40", "afterany:41"]
    assert all([each.tree["seed"] for each in made.trainings] == [1, 2] for made in Executor.made)
    assert capsys.readouterr().out.splitlines() == [f"job {n}: logs in logs/{n}_0" for n in (40, 41, 42)]


def test_a_job_that_sbatch_refuses_is_one_line(tmp_path, monkeypatch):
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sbatch: error: no such account' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match=r"^sbatch refused the job: .*no such account$"):
        submit.main(parsed())


def test_without_slurm_nothing_is_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on PATH"):
        submit.main(parsed())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "zero.json: no readable DeepSpeed config"),
        ('{"bf16": {}}', "zero.json: bf16: is decided by the relvlm config"),
        ('{"zero_optimization": {"stage": 3}}', "model.compile: needs whole parameters"),
    ],
)
def test_a_deepspeed_config_is_looked_at_before_the_job_waits(text, message, tmp_path):
    if text is not None:
        (tmp_path / "zero.json").write_text(text)
    with pytest.raises(UserError, match=message):
        submit.main(parsed("--dry-run", "--deepspeed_config", "zero.json", "model.compile=true"))


def test_status_is_the_queue_and_the_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(submit.jobs, "lines", lambda out: [f"jobs of {out}"])
    (tmp_path / "runs/a/seed_1").mkdir(parents=True)
    (tmp_path / "runs/a/seed_1/config.yaml").write_text("steps: 9\n")
    submit.main(parsed("--status", "out=runs/a"))
    queue, head, run = capsys.readouterr().out.splitlines()
    assert queue == "jobs of runs/a" and head.startswith("run ") and run.split()[:2] == ["runs/a/seed_1", "unknown"]


@pytest.mark.parametrize(
    "words",
    [["--array", "1,1"], ["--array", "a"], ["--array", "1,,2"], ["--array", "-1"], ["--mem", "lots"], ["--chain", "0"]],
)
def test_wrong_options_are_refused(words):
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parsed(*words)


def test_to_preview_and_to_ask_exclude_each_other():
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parsed("--dry-run", "--status")
