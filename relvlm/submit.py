"""`relvlm submit`: train on a Slurm cluster through submitit; one process a task."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission

from relvlm import jobs, runs
from relvlm.config.load import load_config, parse, to_tree
from relvlm.config.schema import Config
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
        os.environ["RELVLM_REQUEUE"] = submitit.JobEnvironment().job_id  # for a rank that finds another one gone
        refuse_if_held(Path(config.out))
        from relvlm.engine.loop import run
        from relvlm.evals.checkpoints.during import TrainingJudge

        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's, which would pass over SIGTERM
        for number in SIGNALS:
            signal.signal(number, requeue)
        try:
            return str(run(config, self.deepspeed_config, TrainingJudge(config)))
        except Stopped as stopped:
            log.warning("%s", stopped)
            requeue(signal.SIGUSR2, None)  # rank 0 asks for the job again and ends; srun ends the others with it
            time.sleep(LEFT_TO_SRUN_S)
            raise

    def checkpoint(self) -> DelayedSubmission:
        """What submitit starts when the job is back: the same, which goes on from its newest checkpoint."""
        return DelayedSubmission(self)


class Preview(submitit.SlurmExecutor):
    """Says what would be submitted, also where there is no Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 1

    def script(self, tasks: int) -> str:
        """The batch script of one job, or of an array of so many."""
        self.parameters |= {"map_count": tasks} if tasks > 1 else {}  # as submitit does on submitting
        return self._make_submission_file_text(self._submitit_command_str, "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Submit a training to Slurm and print the job's id; paths must be visible to the nodes. A job that is "
        "preempted or meets its time limit is requeued and goes on."
    )
    parser.epilog = (
        "example: relvlm submit --nodes 4 --tasks-per-node 8 --gpus-per-node 8 --cpus-per-task 8 "
        "--config configs/13m/rex_vlm.yaml"
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/13m/rex_vlm.yaml")
    parser.add_argument("--deepspeed_config", type=Path, help="DeepSpeed JSON (default: stage 1; 0 for one process)")
    parser.add_argument("--nodes", type=positive, default=1)
    parser.add_argument("--tasks-per-node", type=positive, default=1, help="processes a node: one for each GPU")
    parser.add_argument("--gpus-per-node", type=count, default=0)
    parser.add_argument("--cpus-per-task", type=positive, default=1)
    parser.add_argument("--mem", type=memory, help="memory of a node, e.g. 64G; 0 is all (default: the cluster's)")
    parser.add_argument("--timeout-min", type=positive, default=24 * 60, help="limit of the job, in minutes")
    for name, what in (("partition", "partition"), ("account", "account that pays"), ("qos", "quality of service")):
        parser.add_argument(f"--{name}", help=f"Slurm {what}")
    parser.add_argument("--constraint", help="features of the nodes, e.g. h200 or 'a100|h100'")
    parser.add_argument("--array", type=seeds, metavar="SEEDS", help="e.g. 0,1,2: one job array, `out`/seed_N for each")
    parser.add_argument("--chain", type=positive, default=1, metavar="N", help="N jobs, each going on after the last")
    parser.add_argument("--logs", type=Path, default=Path("runs/slurm"), help="folder of the jobs' logs")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="print the batch scripts, and submit nothing")
    instead.add_argument("--status", action="store_true", help="print the run's jobs and state, and submit nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted config key and its value")


def count(text: str) -> int:
    """0 or a whole number above it; argparse names the flag in its message."""
    return 0 if text == "0" else positive(text)


def memory(text: str) -> str:
    """As Slurm writes it."""
    if not re.fullmatch(r"[0-9]+[KMGT]?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number with K, M, G or T, e.g. 64G")
    return text


def seeds(text: str) -> list[int]:
    """Whole numbers, each once: `0,1,2`."""
    found = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}", part) for part in found) or len(set(map(int, found))) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r}: must be seeds, each once, e.g. 0,1,2")
    return [int(part) for part in found]


def main(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides)  # a wrong key is known before the job waits in a queue
    check_folder(Path(config.out), "out")
    if args.status:
        print("\n".join([*jobs.lines(Path(config.out)), *runs.lines_below(Path(config.out))]))
        return
    if not args.dry_run and not shutil.which("sbatch"):
        raise UserError("relvlm submit: no sbatch on PATH (submit from a login node of a Slurm cluster)")
    check_folder(args.logs, "--logs")
    if args.deepspeed_config:
        from relvlm.engine import distributed  # imports torch: seconds, which others need not wait for

        distributed.check_stage(config, distributed.read_deepspeed_config(args.deepspeed_config))
    trainings = [
        Training(to_tree(each), str(args.config), args.deepspeed_config) for each in of_seeds(config, args.array)
    ]
    previous: str | None = None
    for link in range(args.chain):
        previous = preview(args, config, trainings, link) if args.dry_run else submit(args, config, trainings, previous)


def of_seeds(config: Config, array: list[int] | None) -> list[Config]:
    """The run itself, or one for each seed, with a folder and a name of its own."""
    if array is None:
        return [config]
    return [
        replace(config, seed=seed, out=str(Path(config.out) / f"seed_{seed}"), name=f"{config.name} seed {seed}")
        for seed in array
    ]


def submit(args: argparse.Namespace, config: Config, trainings: list[Training], previous: str | None) -> str:
    """Submit one job, or one array, to begin when the `previous` has ended; returns its id."""
    executor = submitit.SlurmExecutor(folder=args.logs / "%j", max_num_timeout=REQUEUES)
    executor.update_parameters(**slurm_parameters(args, config, previous))
    try:
        job = executor.submit_array(trainings)[0]
    except FailedJobError as error:
        raise UserError(f"sbatch refused the job: {'; '.join(str(error).splitlines())}") from error
    number: str = job.job_id.split("_")[0]
    print(f"job {number}: logs in {job.paths.folder}")
    return number


def preview(args: argparse.Namespace, config: Config, trainings: list[Training], link: int) -> str:
    """Print what `submit` would."""
    executor = Preview(folder=args.logs / "%j")
    executor.update_parameters(**slurm_parameters(args, config, f"JOB_{link}" if link else None))
    print(f"# job {link + 1} of {args.chain}, JOB_{link + 1}; trains into")
    print("\n".join(f"#   {training.tree['out']} (seed {training.tree['seed']})" for training in trainings))
    print(executor.script(len(trainings)))
    return f"JOB_{link + 1}"


def slurm_parameters(args: argparse.Namespace, config: Config, previous: str | None = None) -> dict[str, object]:
    """submitit's names of what sbatch and srun are asked for; what is not asked for is left out."""
    wanted = {
        "job_name": f"relvlm-{args.config.stem}",
        "comment": jobs.mark(Path(config.out)),
        "nodes": args.nodes,
        "ntasks_per_node": args.tasks_per_node,
        "gpus_per_node": args.gpus_per_node,
        "cpus_per_task": args.cpus_per_task,
        "mem": args.mem,
        "time": args.timeout_min,
        "partition": args.partition,
        "account": args.account,
        "qos": args.qos,
        "constraint": args.constraint,
        "dependency": f"afterany:{previous}" if previous else None,
        "additional_parameters": {"requeue": True},
        # One dead rank ends the job; the others have 20 seconds to say which one it was, and to ask for the job again.
        # srun has not taken --cpus-per-task over from sbatch since Slurm 22.05.
        "srun_args": ["--kill-on-bad-exit=0", "--wait=20", f"--cpus-per-task={args.cpus_per_task}"],
    }
    return {name: value for name, value in wanted.items() if value}
