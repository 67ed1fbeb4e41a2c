"""Who am I, how many are we, where do we meet: from recorded Slurm variables, with a stand-in for scontrol."""

import os

import pytest

from relvlm.errors import UserError
from relvlm.ranks import rendezvous, slurm_environment

# Recorded with Slurm 22.05: sbatch --nodes 2 --ntasks-per-node 1, in the batch script and in task 1 of its srun.
BATCH = {
    "SLURM_JOB_ID": "55476667",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_NPROCS": "2",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURMD_NODENAME": "node1",
}
STEP = BATCH | {
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "1",
    "SLURMD_NODENAME": "node2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
}
# The same job's second step: srun --nodes 1 --ntasks 1 --nodelist node2
PART = STEP | {
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NODELIST": "node2",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
}
MEETING = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A `scontrol show hostnames` that knows the two node lists above, first on PATH."""
    script = tmp_path / "scontrol"
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1 $2" = "show hostnames" ] || exit 9\n'
        'case $3 in "node[1-2]") printf "node1\\nnode2\\n" ;; node2) echo node2 ;; *) exit 1 ;; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return script


@pytest.fixture
def environment(monkeypatch):
    """Make the process' environment hold these variables and no other of Slurm or a launcher."""

    def become(variables: dict[str, str]) -> None:
        for name in [n for n in os.environ if n.startswith("SLURM")] + MEETING:
            monkeypatch.setenv(name, "")  # so that what rendezvous sets is undone afterwards
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return become


def meeting() -> dict[str, str]:
    return {name: os.environ[name] for name in MEETING}


def test_a_task_meets_the_others_on_the_first_node_of_its_step(scontrol):
    found = slurm_environment(STEP)
    assert found["RANK"] == "1" and found["LOCAL_RANK"] == "0" and found["WORLD_SIZE"] == "2"
    assert found["MASTER_ADDR"] == "node1"


def test_a_step_on_part_of_the_job_meets_within_that_part(scontrol):
    found = slurm_environment(PART)
    assert found["WORLD_SIZE"] == "1" and found["MASTER_ADDR"] == "node2"


def test_tasks_agree_on_a_port_and_jobs_and_steps_that_share_a_node_do_not(scontrol):
    ports = {}
    for job in range(55476667, 55476767):
        for place in ({"SLURM_PROCID": "0", "SLURM_NODEID": "0"}, {}):
            found = slurm_environment(STEP | place | {"SLURM_JOB_ID": str(job), "MASTER_ADDR": "node1"})
            ports.setdefault(job, set()).add(int(found["MASTER_PORT"]))
    assert all(len(of_job) == 1 for of_job in ports.values())
    distinct = set.union(*ports.values())
    assert len(distinct) == 100 and min(distinct) >= 1024 and max(distinct) < 32768
    assert slurm_environment(STEP)["MASTER_PORT"] != slurm_environment(PART)["MASTER_PORT"]


def test_a_meeting_point_of_the_users_own_is_kept():
    found = slurm_environment(STEP | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234"})
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.7", "1234")


def test_a_task_0_that_is_not_on_the_first_node_is_refused(scontrol):
    arbitrary = STEP | {"SLURM_PROCID": "0"}  # srun --distribution=arbitrary --nodelist node2,node1
    with pytest.raises(UserError, match=r"task 0 is on node2, not on the first of node\[1-2\]"):
        slurm_environment(arbitrary)
    assert slurm_environment(arbitrary | {"MASTER_ADDR": "node2"})["MASTER_ADDR"] == "node2"


def test_no_scontrol_is_an_error_that_says_what_to_set(scontrol, monkeypatch):
    monkeypatch.setenv("PATH", str(scontrol.parent / "empty"))
    with pytest.raises(UserError, match=r"scontrol show hostnames node\[1-2\].*MASTER_ADDR"):
        slurm_environment(STEP)
    with pytest.raises(UserError, match="exit status 1"):
        monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
        slurm_environment(STEP | {"SLURM_STEP_NODELIST": "gone[1-2]"})


def test_under_srun_the_variables_of_the_step_decide(scontrol, environment):
    environment(STEP)
    rendezvous()
    assert meeting() == slurm_environment(STEP)


def test_in_the_batch_script_itself_a_run_is_a_world_of_one(environment):
    environment(BATCH)
    rendezvous()
    found = meeting()
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("0", "0", "1")
    assert found["MASTER_ADDR"] == "127.0.0.1"


def test_torchrun_inside_srun_keeps_its_own_world(environment):
    torchrun = {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "node1",
        "MASTER_PORT": "29500",
    }
    environment(STEP | torchrun)
    rendezvous()
    assert meeting() == torchrun


def test_a_world_of_one_left_in_the_environment_is_refused_under_srun(environment):
    left = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }
    environment(STEP | left)
    with pytest.raises(UserError, match="WORLD_SIZE: is 1, yet srun started 2 tasks"):
        rendezvous()


def test_half_of_a_launchers_variables_is_refused(environment):
    environment({"RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="MASTER_ADDR, MASTER_PORT: not set"):
        rendezvous()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE: 'two' is no whole number from 1"),
        ("WORLD_SIZE", "0", "WORLD_SIZE: '0' is no whole number from 1"),
        ("RANK", "-1", "RANK: '-1' is no whole number from 0"),
        ("RANK", "2", "RANK: 2 of WORLD_SIZE 2"),
        ("LOCAL_RANK", "", "LOCAL_RANK: '' is no whole number from 0"),
        ("MASTER_PORT", "65536", "MASTER_PORT: '65536' is no whole number from 1 to 65535"),
    ],
)
def test_a_launchers_variable_that_is_no_such_number_is_named(environment, name, value, message):
    right = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    environment(right | {name: value})
    with pytest.raises(UserError, match=f"^environment: {message}"):
        rendezvous()
    environment(right)
    rendezvous()
