"""Who am I, how many are we, where do we meet: from recorded Slurm variables, with a stand-in for scontrol.

And what ranks tell each other, between threads; between processes: test_processes.py.
"""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
from support.recorded_slurm import BATCH, PART, STEP
from support.threads import Threads
from torch import Tensor

from relvlm import ranks
from relvlm.errors import UserError
from relvlm.ranks import rendezvous, slurm_environment

# What torchrun sets for the second of two processes.
PAIR = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
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
    ("variables", "met"),
    [
        ({}, False),
        (BATCH, False),
        (PAIR, True),
        (PAIR | {"RANK": "0", "WORLD_SIZE": "1"}, False),
        (STEP, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),  # whose other variables are not looked at
    ],
    ids=["by hand", "batch script", "launcher", "launcher of one", "srun of two", "srun of one"],
)
def test_only_a_process_that_has_others_joins_a_group(variables, met, scontrol, environment, monkeypatch):
    environment(variables)
    groups = []
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda backend, timeout: groups.append((backend, timeout)))
    ranks.join("gloo")
    assert groups == ([("gloo", timedelta(minutes=10))] if met else [])
    assert ("LOCAL_RANK" in os.environ) == (met or "RANK" in variables)  # met or not, a launcher's are completed


def test_a_group_is_joined_once(environment, monkeypatch):
    environment(PAIR)
    monkeypatch.setattr(ranks, "dist", Threads(2))  # which has no init_process_group
    ranks.join("gloo")


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


@pytest.fixture
def threads(monkeypatch) -> Callable[..., list[Any]]:
    def run(size: int, work: Callable[[int], Any]) -> list[Any]:
        monkeypatch.setattr(ranks, "dist", Threads(size))
        return ranks.dist.run(work)

    return run


SIZES = [2, 0, 3]


def rows_of(rank: int) -> Tensor:
    return torch.arange(SIZES[rank] * 2.0).view(-1, 2) + 10 * rank


def test_rows_of_unequal_counts_are_gathered_in_order(threads):
    def work(rank: int) -> tuple[Tensor, Tensor, int]:
        return ranks.gather_rows(rows_of(rank), torch.full((SIZES[rank],), rank))

    for rank, (rows, owners, first) in enumerate(threads(3, work)):
        assert torch.equal(rows, torch.cat([rows_of(r) for r in range(3)]))
        assert owners.tolist() == [0, 0, 2, 2, 2] and first == [0, 2, 2][rank]


def test_a_rows_gradient_is_the_sum_of_what_every_rank_says_of_it(threads):
    def work(rank: int) -> Tensor:
        own = rows_of(rank).requires_grad_()
        rows, _ = ranks.gather_rows(own)
        ((rank + 1) * rows.square().sum()).backward()
        return own.grad

    for rank, gradient in enumerate(threads(3, work)):
        torch.testing.assert_close(gradient, (1 + 2 + 3) * 2 * rows_of(rank))


@pytest.mark.parametrize("size", [2, 3])
def test_numbers_are_summed_and_objects_listed(size, threads):
    def work(rank: int) -> tuple[list[float], list[str], tuple[int, int]]:
        ranks.barrier()
        total = ranks.sum_over_ranks(torch.tensor([1.0, 3.0 * rank])).tolist()
        return total, ranks.gather_objects("abc"[rank]), (ranks.rank(), ranks.world_size())

    total, listed = [size, 1.5 * size * (size - 1)], list("abc"[:size])
    assert threads(size, work) == [(total, listed, (rank, size)) for rank in range(size)]
    assert ranks.dist.calls == 3 * size


def test_a_rank_alone_waits_for_nobody(threads):
    def work(rank: int) -> None:
        x = torch.ones(2, 2)
        ranks.barrier()
        assert ranks.gather_rows(x, x) == (x, x, 0) and ranks.gather_objects(5) == [5]
        assert ranks.sum_over_ranks(x) is x and (ranks.rank(), ranks.world_size()) == (0, 1)

    threads(1, work)
    assert ranks.dist.calls == 0


def test_without_a_group_there_is_one_rank():
    x = torch.randn(3, 2, requires_grad=True)
    rows, first = ranks.gather_rows(x)
    assert rows is x and first == 0
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    assert ranks.sum_over_ranks(x) is x


def test_what_rank_0_is_refused_is_raised_on_every_rank(monkeypatch):
    threads, done = Threads(2), []
    monkeypatch.setattr(ranks, "dist", threads)

    def refuse() -> None:
        raise UserError("out: is taken")

    def work(rank: int) -> str:
        ranks.on_first_rank(lambda: done.append(rank))
        with pytest.raises(UserError) as error:
            ranks.on_first_rank(refuse)
        return str(error.value)

    assert threads.run(work) == ["out: is taken"] * 2 and done == [0]
