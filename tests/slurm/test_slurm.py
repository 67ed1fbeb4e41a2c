"""The batch script and submitit on a real cluster: RELVLM_SLURM=1, two nodes, a file system they share with us."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
TWO_NODES = ["--nodes", "2", "--ntasks-per-node", "1"]
UNFINISHED = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}
DEADLINE_S = 400

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("RELVLM_SLURM") != "1",
        reason="needs a Slurm cluster of two nodes (set RELVLM_SLURM=1)",
    ),
]


def call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def state_of(job: str) -> str:
    return call("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


@pytest.fixture
def ends() -> Iterator[Callable[[str, Path], tuple[str, str]]]:
    """Wait for a job; returns its last state and all its logs. What a failed test leaves behind is cancelled."""
    jobs = []

    def wait(job: str, logs: Path) -> tuple[str, str]:
        jobs.append(job)
        deadline = time.monotonic() + DEADLINE_S
        while (state := state_of(job)) in UNFINISHED and time.monotonic() < deadline:
            time.sleep(0.5)
        text = "\n".join(path.read_text() for path in sorted(logs.iterdir()) if path.suffix != ".pkl")
        print(f"job {job}: {state}\n{text}")  # pytest shows it where the test fails
        assert state not in UNFINISHED, f"job {job} has not ended in {DEADLINE_S} s"
        return state, text

    yield wait
    for job in jobs:
        subprocess.run(["scancel", job], env=ENVIRONMENT, timeout=60, check=False)


@pytest.fixture
def logs(tmp_path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def check_trained_on_two_nodes(out: Path, text: str, steps: int) -> None:
    met = re.findall(r"rank (\d) of 2 on (\S+), meeting at (\S+)", text)
    assert sorted({rank for rank, _, _ in met}) == ["0", "1"]  # each time that the job is started
    assert len({node for _, node, _ in met}) == 2 and len({place for _, _, place in met}) == 1
    latest = out / "checkpoints" / (out / "checkpoints/latest").read_text()
    assert latest.name == f"step_{steps:07d}"
    assert {"model.safetensors", "state_00000.safetensors", "state_00001.safetensors"} <= {
        path.name for path in latest.iterdir()
    }
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, steps + 1))
    for row in rows:
        losses = [float(value) for name, value in row.items() if "/" in name and value]
        assert losses and all(map(math.isfinite, losses))


def test_the_batch_script_trains_over_two_nodes(tiny, ends, logs, tmp_path):
    out = tmp_path / "run"
    options = [*TWO_NODES, "--gpus-per-node", "0", "--cpus-per-task", "1", "--output", str(logs / "job.log")]
    job = call("sbatch", "--parsable", *options, "slurm/rex_13m.sh", *tiny, f"out={out}", "steps=4")
    state, text = ends(job, logs)
    assert state == "COMPLETED"
    check_trained_on_two_nodes(out, text, steps=4)


def test_submitit_trains_over_two_nodes(tiny, ends, tmp_path):
    out = tmp_path / "run"
    options = ["--nodes", "2", "--timeout-min", "30", "--logs", str(tmp_path / "logs")]
    printed = call(sys.executable, "slurm/submit.py", *options, *tiny, f"out={out}", "steps=4")
    job = re.match(r"job (\d+): logs in", printed)
    assert job, printed
    state, text = ends(job[1], tmp_path / "logs" / job[1])
    assert state == "COMPLETED"
    check_trained_on_two_nodes(out, text, steps=4)


LONG = ["steps=60", "checkpoint.every=1000", "log_every=1"]


def wait_until_it_trains(job: str, out: Path, rows: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not (out / "metrics.csv").exists() or len((out / "metrics.csv").read_text().splitlines()) <= rows:
        assert time.monotonic() < deadline and state_of(job) in UNFINISHED
        time.sleep(0.2)


def tell_when_it_trains(job: str, out: Path, told: str) -> None:
    """Send the job's processes a signal after a few of its steps."""
    wait_until_it_trains(job, out, rows=4)
    call("scancel", told, job)


def test_a_batch_job_that_is_told_to_end_is_requeued_and_loses_no_step(tiny, ends, logs, tmp_path):
    out = tmp_path / "run"
    options = [*TWO_NODES, "--gpus-per-node", "0", "--cpus-per-task", "1", "--output", str(logs / "job.log")]
    job = call("sbatch", "--parsable", *options, "slurm/rex_13m.sh", *tiny, *LONG, f"out={out}")
    tell_when_it_trains(job, out, "--signal=TERM")
    state, text = ends(job, logs)
    assert state == "COMPLETED" and "told to end by SIGTERM: saved " in text
    check_trained_on_two_nodes(out, text, steps=60)


def test_a_submitted_job_that_is_told_to_end_is_requeued_and_loses_no_step(tiny, ends, tmp_path):
    out = tmp_path / "run"
    options = ["--nodes", "2", "--timeout-min", "30", "--logs", str(tmp_path / "logs")]
    printed = call(sys.executable, "slurm/submit.py", *options, *tiny, *LONG, f"out={out}")
    job = printed.split()[1].rstrip(":")
    tell_when_it_trains(job, out, "--signal=USR2")
    state, text = ends(job, tmp_path / "logs" / job)
    assert state == "COMPLETED" and "told to end by SIGUSR2: saved " in text
    check_trained_on_two_nodes(out, text, steps=60)


SUBMIT = [sys.executable, "slurm/submit.py", "--timeout-min", "30"]


def jobs_of(printed: str) -> list[str]:
    return re.findall(r"^job (\d+): logs in", printed, re.M)


def wait_for(jobs: list[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while any(set(state_of(job).split()) & UNFINISHED for job in jobs):
        assert time.monotonic() < deadline, f"{jobs} have not ended in {DEADLINE_S} s"
        time.sleep(0.5)


def test_seeds_are_an_array_whose_jobs_and_runs_are_listed(tiny, tmp_path):
    options = ["--array", "3,4", "--logs", str(tmp_path / "logs"), *tiny, f"out={tmp_path / 'run'}", "steps=3"]
    previewed = call(*SUBMIT, "--dry-run", *options)
    (job,) = jobs_of(call(*SUBMIT, *options))
    status = call(*SUBMIT, "--status", *options)
    assert f"{job}_0" in status and f"{job}_1" in status
    wait_for([job])
    script = next((tmp_path / "logs").rglob("*_submission.sh")).read_text()
    assert script.strip() in previewed  # what was previewed is what was submitted
    for seed in (3, 4):
        out = tmp_path / f"run/seed_{seed}"
        assert f"seed: {seed}\n" in (out / "config.yaml").read_text()
        assert (out / "checkpoints/latest").read_text() == "step_0000003"
    listed = call(sys.executable, "-m", "relvlm.cli", "runs", str(tmp_path / "run"))
    assert [line.split()[1:4] for line in listed.splitlines()[1:]] == [["ended", "3", "3"]] * 2


def test_the_jobs_of_a_chain_run_one_after_another_in_one_folder(tiny, tmp_path):
    out = tmp_path / "run"
    options = ["--chain", "2", "--logs", str(tmp_path / "logs"), *tiny, f"out={out}", "steps=4"]
    first, second = jobs_of(call(*SUBMIT, *options))
    assert call("squeue", "--noheader", f"--jobs={second}", "--format=%T %r %E").split()[:2] == [
        "PENDING",
        "Dependency",
    ]
    wait_for([first, second])
    assert state_of(first) == state_of(second) == "COMPLETED"
    ends = [call("scontrol", "show", "job", job) for job in (first, second)]
    times = [dict(re.findall(r"(StartTime|EndTime)=(\S+)", text)) for text in ends]
    assert times[0]["EndTime"] <= times[1]["StartTime"]
    with (out / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def test_an_error_in_the_training_fails_the_job(ends, logs):
    options = [*TWO_NODES, "--gpus-per-node", "0", "--cpus-per-task", "1", "--output", str(logs / "job.log")]
    job = call("sbatch", "--parsable", *options, "slurm/rex_13m.sh", "--config", "configs/none.yaml")
    state, text = ends(job, logs)
    assert state == "FAILED" and "configs/none.yaml" in text


def test_without_srun_a_batch_script_is_a_world_of_one(ends, logs, tmp_path):
    asks = tmp_path / "asks.py"
    asks.write_text(
        "import os\n"
        "from relvlm.rendezvous import rendezvous\n"
        "rendezvous()\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n"
    )
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/bash\n{sys.executable} {asks}\necho then\nsrun {sys.executable} {asks}\n")
    job = call("sbatch", "--parsable", *TWO_NODES, "--output", str(logs / "job.log"), str(script))
    state, text = ends(job, logs)
    assert state == "COMPLETED"
    alone, together = text.split("then")
    assert re.findall(r"rank \d of \d", alone) == ["rank 0 of 1"]
    assert sorted(re.findall(r"rank \d of \d", together)) == ["rank 0 of 2", "rank 1 of 2"]


def test_the_cluster_is_there():
    assert shutil.which("sbatch"), "RELVLM_SLURM=1, but no sbatch on PATH"
    assert int(call("sinfo", "--noheader", "--format=%D").split()[0]) >= 2


@pytest.mark.parametrize("launcher", ["sbatch", "submitit"])
def test_a_job_whose_rank_stops_is_requeued_with_its_cause(launcher, tiny, ends, logs, tmp_path):
    out = tmp_path / "run"
    often = [*tiny, "steps=60", "checkpoint.every=20", "log_every=1", "deadlines.step=10", f"out={out}"]
    if launcher == "sbatch":
        options = [*TWO_NODES, "--gpus-per-node", "0", "--cpus-per-task", "1", "--output", str(logs / "job.log")]
        job = call("sbatch", "--parsable", *options, "slurm/rex_13m.sh", *often)
    else:
        (job,) = jobs_of(call(*SUBMIT, "--nodes", "2", "--logs", str(logs), *often))
        logs /= job
    wait_until_it_trains(job, out, rows=25)
    (said,) = (out / "heartbeats").glob("*/rank_00001.json")
    rank = json.loads(said.read_text())["process"]
    os.kill(rank["pid"], signal.SIGSTOP)
    state, text = ends(job, logs)
    assert state == "COMPLETED" and text.count("error: rank ") == 1 and "Traceback" not in text
    assert f"error: rank 1 on {rank['host']} (pid {rank['pid']}) has said nothing since step " in text
    check_trained_on_two_nodes(out, text, steps=60)
