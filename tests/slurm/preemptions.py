"""A job that is preempted again and again, or meets its time limit, on a real Slurm; it must end as the unbroken run.

    eval "$(bash ../shared/tools/mini_slurm.sh env)"    # or a cluster whose partition `urgent` preempts the default
    python tests/slurm/preemptions.py [--launcher sbatch|submitit] [--preempted 10] [--limits 2] [--steps 1500]

Prints a line for each end, and a table; exit status 1 where a job was not requeued, a step was lost or repeated, or
the rows of metrics.csv are not those of the unbroken run.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drill import differences, made_world

from relvlm import checkpoints

ROOT = Path(__file__).resolve().parents[2]
NODES = ["--nodes", "2", "--ntasks-per-node", "1", "--cpus-per-task", "1", "--gpus-per-node", "0"]
PATIENCE_S = 600


def call(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def submitted(launcher: str, arguments: list[str], logs: Path, minutes: int) -> str:
    """The job's number."""
    logs.mkdir(parents=True, exist_ok=True)
    if launcher == "sbatch":
        output = ["--time", str(minutes), "--output", str(logs / "job.log")]
        return call("sbatch", "--parsable", *NODES, *output, "slurm/rex_13m.sh", *arguments).split(";")[0]
    options = ["--nodes", "2", "--timeout-min", str(minutes), "--logs", str(logs)]
    return call(sys.executable, "slurm/submit.py", *options, *arguments).split()[1].rstrip(":")


def about(job: str) -> dict[str, str]:
    """State and Restarts of a job, as Slurm tells them."""
    words = dict(word.partition("=")[::2] for word in call("scontrol", "show", "job", job).split())
    return {"state": words["JobState"], "restarts": words.get("Restarts", "0")}


def steps_of(out: Path) -> list[int]:
    path = out / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["step"]]


def saved(out: Path) -> int:
    found = checkpoints.saved(out / "checkpoints")
    return checkpoints.step_of(found[-1]) if found else 0


def wait(until: object, what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not until():  # type: ignore[operator]
        if time.monotonic() > limit:
            raise TimeoutError(what)
        time.sleep(0.2)


def preempt(job: str, out: Path, moment: random.Random) -> tuple[str, int]:
    """Put a more urgent job on the nodes at some moment, and wait until ours has left them; state, and steps lost."""
    before = saved(out)
    wait(lambda: len(steps_of(out)) > before + 2 or about(job)["state"] == "COMPLETED", "steps")
    time.sleep(moment.uniform(0, 3))
    if about(job)["state"] != "RUNNING":
        return about(job)["state"], 0
    taking = ["--partition", "urgent", "--exclusive", "--nodes", "2", "--output", "/dev/null", "--wrap", "sleep 1"]
    urgent = call("sbatch", "--parsable", *taking)
    wait(lambda: about(job)["state"] != "RUNNING", "the end of the job")
    wait(lambda: about(urgent.split(";")[0])["state"] == "COMPLETED", "the urgent job")
    return about(job)["state"], max(steps_of(out), default=0) - saved(out)


def meet_limit(job: str, out: Path) -> tuple[str, int]:
    """Wait until Slurm's signal ahead of the time limit has ended this start of the job."""
    starts = about(job)["restarts"]
    wait(lambda: about(job)["state"] != "RUNNING" or about(job)["restarts"] != starts, "the time limit")
    return about(job)["state"], max(steps_of(out), default=0) - saved(out)


def run(folder: Path, launcher: str, preempted: int, limits: int, steps: int) -> dict[str, object]:
    """The unbroken run, then the broken one."""
    command = made_world(folder / "world", steps)
    unbroken, out = folder / "unbroken", folder / "run"
    job = submitted(launcher, [*command, f"out={unbroken}"], folder / "logs/unbroken", 30)
    wait(lambda: about(job)["state"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), "the unbroken run")
    assert about(job)["state"] == "COMPLETED", about(job)
    minutes = 3 if limits else 30
    job = submitted(launcher, [*command, f"out={out}"], folder / "logs/run", minutes)
    moment, ends = random.Random(0), []
    for number in range(preempted + limits):
        wait(lambda: about(job)["state"] != "PENDING", "the job's start")
        state, lost = preempt(job, out, moment) if number < preempted else meet_limit(job, out)
        ends.append({"how": "preempted" if number < preempted else "time limit", "state": state, "lost": lost})
        print(f"{number + 1:3d} {ends[-1]['how']}: {state}, {lost} steps lost, at step {saved(out)}", flush=True)
    wait(lambda: about(job)["state"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), "the end")
    wrong = differences(unbroken, out, steps)
    if steps_of(out) != list(range(1, steps + 1)):
        wrong.append("steps are missing or repeated")
    return {"launcher": launcher, "job": about(job), "ends": ends, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launcher", choices=["sbatch", "submitit"], default="sbatch")
    parser.add_argument("--preempted", type=int, default=10, help="how often a more urgent job takes the nodes")
    parser.add_argument("--limits", type=int, default=0, help="how often the time limit (3 minutes) is met after that")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="preemptions-"))
    found = run(folder, arguments.launcher, arguments.preempted, arguments.limits, arguments.steps)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    lost = any(end["lost"] for end in found["ends"])  # type: ignore[attr-defined]
    return int(bool(found["wrong"] or lost or found["job"]["state"] != "COMPLETED"))  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
