"""`relvlm submit`: train on a Slurm cluster through submitit; one process a task."""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

from relvlm.config.load import load_config, parse, to_tree
from relvlm.data.arguments import positive
from relvlm.engine.lease import refuse_if_held
from relvlm.errors import UserError
from relvlm.stopping import SIGNALS, Stopped
from relvlm.storage import check_folder

REQUEUES = 1000  # submitit counts the time limits that a job has met, and gives up after 3
LEFT_TO_SRUN_S = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What a submitted task does; submitit pickles it, so it holds plain values only.

    The config is that of the submission: a file that is edited while the job waits, or is requeued, changes nothing.
    """

    tree: dict[str, Any]
    origin: str
    deepspeed_config: Path | None

    def __call__(self) -> str:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        config = parse(self.tree, self.origin)
        refuse_if_held(Path(config.out))
        from relvlm.engine.loop import run

        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's, which would pass over SIGTERM
        for number in SIGNALS:
            signal.signal(number, requeue)
        try:
            return str(run(config, self.deepspeed_config))
        except Stopped as stopped:
            log.warning("%s", stopped)
            requeue(signal.SIGUSR2, None)  # rank 0 asks for the job again and ends; srun ends the others with it
            time.sleep(LEFT_TO_SRUN_S)
            raise

    def checkpoint(self) -> DelayedSubmission:
        """What submitit starts when the job is back: the same, which goes on from its newest checkpoint."""
        return DelayedSubmission(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Submit a training to Slurm and print the job's id; paths must be visible to the nodes."
    parser.epilog = (
        "example: relvlm submit --nodes 4 --tasks-per-node 8 --gpus-per-node 8 --cpus-per-task 8 "
        "--config configs/13m/rex_vlm.yaml"
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/13m/rex_vlm.yaml")
    parser.add_argument("--deepspeed_config", type=Path, help="DeepSpeed JSON (default: ZeRO stage 1)")
    parser.add_argument("--nodes", type=positive, default=1)
    parser.add_argument("--tasks-per-node", type=positive, default=1, help="processes a node: one for each GPU")
    parser.add_argument("--gpus-per-node", type=count, default=0)
    parser.add_argument("--cpus-per-task", type=positive, default=1)
    parser.add_argument("--timeout-min", type=positive, default=24 * 60, help="limit of the job, in minutes")
    parser.add_argument("--partition", help="Slurm partition")
    parser.add_argument("--logs", type=Path, default=Path("runs/slurm"), help="folder of the jobs' logs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted config key and its value")


def count(text: str) -> int:
    """0 or a whole number above it; argparse names the flag in its message."""
    return 0 if text == "0" else positive(text)


def main(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides)  # a wrong key is known before the job waits in a queue
    check_folder(Path(config.out), "out")
    if not shutil.which("sbatch"):
        raise UserError("relvlm submit: no sbatch on PATH (submit from a login node of a Slurm cluster)")
    check_folder(args.logs, "--logs")
    executor = submitit.SlurmExecutor(folder=args.logs / "%j", max_num_timeout=REQUEUES)
    executor.update_parameters(**slurm_parameters(args))
    job = executor.submit(Training(to_tree(config), str(args.config), args.deepspeed_config))
    print(f"job {job.job_id}: logs in {args.logs / job.job_id}")


def slurm_parameters(args: argparse.Namespace) -> dict[str, object]:
    """submitit's names of what sbatch and srun are asked for; what is not asked for is left out."""
    wanted = {
        "job_name": f"relvlm-{args.config.stem}",
        "nodes": args.nodes,
        "ntasks_per_node": args.tasks_per_node,
        "gpus_per_node": args.gpus_per_node,
        "cpus_per_task": args.cpus_per_task,
        "time": args.timeout_min,
        "partition": args.partition,
        "additional_parameters": {"requeue": True},
        # One dead rank ends the job. srun has not taken --cpus-per-task over from sbatch since Slurm 22.05.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={args.cpus_per_task}"],
    }
    return {name: value for name, value in wanted.items() if value}
