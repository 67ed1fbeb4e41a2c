"""How the processes of a run meet, under every launcher: who am I, how many are we, where is rank 0."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Mapping

from relvlm.errors import UserError

LAUNCHER = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # what torchrun and deepspeed set
log = logging.getLogger(__name__)


def rendezvous() -> None:
    """Set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT from whatever launcher started this.

    torchrun and the deepspeed launcher set them; under srun (and submitit) they follow from SLURM_*; a process
    started by hand, or by a batch script without srun, is a world of one. Raises UserError where what is set
    would make several processes believe that each is the only one.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "0"))  # SLURM_NTASKS is set in the batch script too
    missing = LAUNCHER - os.environ.keys()
    if not missing:
        os.environ.setdefault("LOCAL_RANK", "0")
        _check_numbers(os.environ)
        _check_world(int(os.environ["WORLD_SIZE"]), tasks)
    elif tasks:
        os.environ |= slurm_environment(os.environ)
        _log_meeting(os.environ)
    elif {"RANK", "WORLD_SIZE"} - missing:
        raise UserError(
            f"environment: {', '.join(sorted(missing))}: not set, though others of {', '.join(sorted(LAUNCHER))} "
            "are (set all four, or none for a single process)"
        )
    else:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}


def slurm_environment(slurm: Mapping[str, str]) -> dict[str, str]:
    """torch.distributed's variables of one srun task, which meets the others on the first node of its step.

    The port follows from job and step: every task knows it unasked, jobs that share a node differ in it, and it
    stays below the ports that Linux lends to outgoing connections (32768 and up). MASTER_ADDR and MASTER_PORT are
    kept where the user set them.
    """
    step = int(slurm["SLURM_JOB_ID"]) * 7 + int(slurm["SLURM_STEP_ID"])
    if slurm["SLURM_PROCID"] == "0" != slurm["SLURM_NODEID"] and not slurm.get("MASTER_ADDR"):
        raise UserError(
            f"environment: task 0 is on {slurm['SLURMD_NODENAME']}, not on the first of "
            f"{slurm['SLURM_STEP_NODELIST']} (drop --distribution=arbitrary, or set MASTER_ADDR to that node)"
        )
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": slurm.get("MASTER_ADDR") or _first_host(slurm["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": slurm.get("MASTER_PORT") or str(20000 + step % 10000),
    }


def _first_host(nodes: str) -> str:
    """`gpu7` of Slurm's `gpu[7-9,12]`."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{' '.join(command)}: {error} (or set MASTER_ADDR to the first node's name)") from error
    return listed.stdout.split()[0]


def _check_numbers(environment: Mapping[str, str]) -> None:
    """What a launcher, or a user in its place, has set: whole numbers, a rank within the world."""
    most = 1 << 20
    limits = {"WORLD_SIZE": (1, most), "MASTER_PORT": (1, 65535), "RANK": (0, most), "LOCAL_RANK": (0, most)}
    for name, (low, high) in limits.items():
        value = environment[name]
        if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
            raise UserError(f"environment: {name}: {value!r} is no whole number from {low} to {high}")
    if int(environment["RANK"]) >= int(environment["WORLD_SIZE"]):
        raise UserError(
            f"environment: RANK: {environment['RANK']} of WORLD_SIZE {environment['WORLD_SIZE']} (ranks count from 0)"
        )


def _check_world(world_size: int, tasks: int) -> None:
    if world_size < tasks:
        raise UserError(
            f"environment: WORLD_SIZE: is {world_size}, yet srun started {tasks} tasks "
            "(unset RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT before sbatch or srun)"
        )


def _log_meeting(environment: Mapping[str, str]) -> None:
    names = ["RANK", "WORLD_SIZE", "SLURMD_NODENAME", "MASTER_ADDR", "MASTER_PORT"]
    log.info("rank %s of %s on %s, meeting at %s:%s", *(environment.get(name, "?") for name in names))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_launched() -> bool:
    """Whether there may be other processes of this run."""
    return bool(LAUNCHER & os.environ.keys()) or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
