"""The batch scripts of the four models, without a cluster: one body, and the same resources."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from relvlm.config.load import load_config
from relvlm.data.batches.pools import check_ranks
from relvlm.stopping import REQUEUE

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "slurm").glob("*_13m.sh"))
CONFIGS = {"albef_13m": "albef", "realbef_13m": "realbef", "rex_13m": "rex_vlm", "xvlm_13m": "xvlm"}
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def test_each_model_has_a_script():
    assert {path.stem for path in SCRIPTS} == set(CONFIGS)


def test_all_ask_for_the_same_resources_but_for_nodes():
    asked = {tuple(re.findall(r"^#SBATCH --(?!job-name|nodes)(.*)$", path.read_text(), re.M)) for path in SCRIPTS}
    assert len(asked) == 1
    assert {"requeue", "signal=USR1@120", "open-mode=append"} < set(asked.pop())


@by_name
@pytest.mark.parametrize("mix", ["3m", "13m"])
def test_the_gpus_that_a_script_asks_for_can_share_its_batches(script, mix):
    nodes, tasks = (int(re.search(rf"--{name}=(\d+)", script.read_text())[1]) for name in ("nodes", "ntasks-per-node"))
    data = load_config(ROOT / f"configs/{mix}/{CONFIGS[script.stem]}.yaml").data
    for ranks in (1, 2, 4, tasks, 2 * tasks, nodes * tasks):
        check_ranks(data, ranks)


@pytest.mark.parametrize("name", ["albef", "realbef", "rex_vlm", "xvlm"])
def test_the_miniatures_go_on_one_two_and_four_processes(name):
    for ranks in (1, 2, 4):
        check_ranks(load_config(ROOT / f"configs/mini/{name}.yaml").data, ranks)


@pytest.mark.parametrize(
    ("array", "job"), [({}, "7"), ({"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}, "5_2")]
)
@pytest.mark.parametrize("status", [0, 1, 137, REQUEUE])
def test_a_job_that_saved_and_ended_is_requeued_and_no_other(array, job, status, tmp_path):
    for name, text in (("srun", f"exit {status}"), ("scontrol", 'echo "scontrol $*"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **array}
    done = subprocess.run(
        ["bash", str(ROOT / "slurm/launch.sh"), "x.yaml"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stdout == (f"scontrol requeue {job}\n" if status == REQUEUE else "")


@by_name
def test_a_script_trains_its_config_from_the_folder_it_was_submitted_in(script, tmp_path):
    """As Slurm runs it: a copy elsewhere, in a folder that is not the repository's; srun prints what it was told."""
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$PWD $*"\n')
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "copy.sh").write_text(script.read_text())
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_CPUS_PER_TASK": "8",
    }
    command = ["bash", str(tmp_path / "copy.sh"), "steps=3", "name=a b"]
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    config = f"configs/13m/{CONFIGS[script.stem]}.yaml"
    assert told.stdout.startswith(f"{ROOT} --kill-on-bad-exit=0 --wait=20 --label --cpus-per-task=8 ")
    assert told.stdout.rstrip().endswith(f"--config {config} steps=3 name=a b")
    assert (ROOT / config).is_file()
