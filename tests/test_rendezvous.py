"""Who am I, how many are we, where do we meet: from recorded Slurm variables, with a stand-in for scontrol."""

import os
import subprocess
from typing import Any

import pytest
from support.recorded_slurm import BATCH, PAIR, PART, STEP

from relvlm.errors import UserError
from relvlm.rendezvous import rendezvous, slurm_environment

MEETING = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]


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


def test_the_port_follows_from_job_and_step():
    """A step more is a port more, a job more are seven."""
    ports = [
        int(slurm_environment(STEP | {"SLURM_JOB_ID": job, "SLURM_STEP_ID": of, "MASTER_ADDR": "a"})["MASTER_PORT"])
        for job, of in (("0", "0"), ("0", "1"), ("1", "0"), ("1428", "3"), ("1428", "4"), ("55476667", "0"))
    ]
    assert ports == [20000, 20001, 20007, 29999, 20000, 26669]


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
    torchrun = PAIR | {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    environment(STEP | torchrun)
    rendezvous()
    assert meeting() == torchrun


def test_a_world_of_one_left_in_the_environment_is_refused_under_srun(environment):
    environment(STEP | PAIR | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})
    with pytest.raises(UserError, match="WORLD_SIZE: is 1, yet srun started 2 tasks"):
        rendezvous()


def test_a_world_of_as_many_as_srun_started_is_right(environment):
    environment(STEP | PAIR)
    rendezvous()
    assert meeting() == PAIR | {"LOCAL_RANK": "0"}


def test_a_process_by_itself_takes_a_free_port(environment):
    environment({})
    rendezvous()
    assert int(meeting()["MASTER_PORT"]) > 1024


def test_half_of_a_launchers_variables_is_refused(environment):
    environment({"RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="MASTER_ADDR, MASTER_PORT: not set"):
        rendezvous()


def test_scontrol_is_not_waited_for_longer_than_a_minute(monkeypatch):
    def never(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(UserError, match=r"timed out after 60 seconds.*MASTER_ADDR"):
        slurm_environment(STEP)


# ---- join ------------------------------------------------------------------------------------------------


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


# ---- what ranks tell each other --------------------------------------------------------------------------
