"""`relvlm submit`: train on a Slurm cluster through submitit; one task a process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import submitit

from relvlm.config import load_config


@dataclass(frozen=True)
class Training:
    """What a submitted task does; submitit pickles it, so it holds plain values only."""

    config: Path
    overrides: list[str]
    deepspeed_config: Path | None

    def __call__(self) -> str:
        from relvlm.engine.loop import run

        return str(run(load_config(self.config, self.overrides), self.deepspeed_config))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Submit a training to Slurm and print the job's id; paths must be visible to the nodes."
    )
    parser.epilog = "example: relvlm submit --nodes 4 --tasks-per-node 8 --gpus-per-node 8 --config configs/13m/rex_vlm.yaml"
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/13m/rex_vlm.yaml")
    parser.add_argument("--deepspeed_config", type=Path, help="DeepSpeed JSON (default: ZeRO stage 1)")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--tasks-per-node", type=int, default=1, help="processes a node: one for each GPU")
    parser.add_argument("--gpus-per-node", type=int, default=0)
    parser.add_argument("--cpus-per-task", type=int, default=1)
    parser.add_argument("--timeout-min", type=int, default=24 * 60, help="limit of the job, in minutes")
    parser.add_argument("--partition", help="Slurm partition")
    parser.add_argument(
        "--logs", type=Path, default=Path("runs/slurm"), help="folder of job logs and results"
    )
    parser.add_argument("--wait", action="store_true", help="wait for the job and print what it trained")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted config key and its value")


def main(args: argparse.Namespace) -> None:
    load_config(args.config, args.overrides)  # a wrong key is known before the job waits in a queue
    executor = submitit.AutoExecutor(folder=args.logs / "%j", cluster="slurm")
    executor.update_parameters(
        name=f"relvlm-{args.config.stem}",
        nodes=args.nodes,
        tasks_per_node=args.tasks_per_node,
        cpus_per_task=args.cpus_per_task,
        timeout_min=args.timeout_min,
        slurm_additional_parameters={"gpus_per_node": args.gpus_per_node} if args.gpus_per_node else {},
        slurm_srun_args=["--kill-on-bad-exit=1"],
        **({"slurm_partition": args.partition} if args.partition else {}),
    )
    job = executor.submit(Training(args.config, args.overrides, args.deepspeed_config))
    print(f"job {job.job_id}: logs in {args.logs / job.job_id}")
    if args.wait:
        print(f"trained: {job.result()}")
