"""`python -m relvlm.study PLAN.yaml`: train what is left of a study, and write its tables and plots."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from relvlm.data.arguments import positive
from relvlm.errors import UserError
from relvlm.evals.checkpoints.every import shard_of
from relvlm.paths import Parser
from relvlm.study.folds import build_folds
from relvlm.study.plan import read_plan, smoke
from relvlm.study.report import report
from relvlm.study.runs import Run, runs_of, train
from relvlm.study.soups import add_soups
from relvlm.study.worlds import build_worlds

EXAMPLES = """examples:
  python -m relvlm.study configs/study/main.yaml                       # as many runs at a time as there are cores
  python -m relvlm.study configs/study/main.yaml --list                # what is done, what is left
  python -m relvlm.study configs/study/main.yaml --shard 3/20          # one of 20 jobs (slurm/study_array.sh)
  python -m relvlm.study configs/study/main.yaml --soups               # average the checkpoints of runs that have ended
  python -m relvlm.study configs/study/main.yaml --report              # tables and plots of what is there
"""


def main() -> int:
    """The exit status: 1 where a run failed, 2 for what the user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = _arguments()
    signal.signal(signal.SIGTERM, _end)
    try:
        return _study(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _end(number: int, frame: object) -> NoReturn:
    """As Ctrl-C does: the runs are told to save before this program goes."""
    raise SystemExit(128 + number)


def _study(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan)
    if args.smoke:
        plan = smoke(plan)
    if args.report:
        print(report(plan, f"python -m relvlm.study {args.plan}"))
        return 0
    build_worlds(plan)
    build_folds(plan)
    runs = _chosen(runs_of(plan), args.shard)
    if args.list:
        for run in runs:
            print(f"{'done' if run.is_done() else 'left'}: {run.name}: {run.config.steps:,} steps, {run.folder}")
        return 0
    failed = add_soups(runs, args.processes) if args.soups else train(runs, args.processes)
    print(report(plan, f"python -m relvlm.study {args.plan}"))
    for fault in failed:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(failed))


def _chosen(runs: list[Run], shard: str) -> list[Run]:
    """A share of the runs; one that goes on from another is in the share of that one."""
    first = [run.folder for run in runs if run.before is None]
    chosen = set(shard_of(first, shard))
    return [run for run in runs if (run.before or run).folder in chosen]


def _arguments() -> argparse.Namespace:
    parser = Parser("python -m relvlm.study", description=__doc__, epilog=EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("plan", type=Path, help="YAML, e.g. configs/study/main.yaml")
    parser.add_argument("--processes", type=positive, default=os.cpu_count() or 1, help="runs at a time (one a core)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="only every N-th run, from the I-th")
    parser.add_argument(
        "--smoke", action="store_true", help="the same in minutes: two seeds, twelve steps, few examples"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="print what is done and what is left, train nothing")
    instead.add_argument("--soups", action="store_true", help="average checkpoints into the results, train nothing")
    instead.add_argument("--report", action="store_true", help="tables and plots of what is there, train nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
