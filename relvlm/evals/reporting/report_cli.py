"""`relvlm report RUN_DIR...`: tables, plots over checkpoints, paired tests, losses, and an error browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from relvlm import storage
from relvlm.errors import UserError
from relvlm.evals.reporting.browser import PER_SIDE
from relvlm.evals.reporting.reference import BUILTIN
from relvlm.evals.reporting.report import report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm report`."""
    parser.description = (
        "One report of all runs: the paper's table 2 with bootstrap intervals, learning dynamics and the choice of a "
        "checkpoint (after relvlm eval --all-checkpoints RUN_DIR), paired tests of each two runs, losses; as "
        "report.html (one file, with an error browser), report.md, report.tex and figures.csv. Evaluate first, into "
        "RUN_DIR/eval."
    )
    parser.epilog = "example: relvlm report runs/rex_vlm runs/xvlm --names ReX-VLM X-VLM --out report --reference"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="with metrics.csv and eval/")
    parser.add_argument("--out", type=Path, help="default: `report` in the first run")
    parser.add_argument(
        "--examples",
        type=int,
        default=PER_SIDE,
        help="in the browser, of each piece, right and wrong (0: all)",
    )
    parser.add_argument(
        "--explain",
        type=int,
        default=0,
        metavar="N",
        help="pages on where the model looked in the N worst errors of each task (reads the run's checkpoint)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        nargs="?",
        const=BUILTIN,
        metavar="FILE",
        help="published figures beside one's own, with their sources (alone, and last: the built-in ones)",
    )
    parser.add_argument(
        "--spread",
        type=Path,
        metavar="STUDY",
        help="results of relvlm.study: the spread over seeds stands under the run of the same name",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        help="the rows' names (default: the folders'); runs of one name are its seeds: means, spreads, tests",
    )


def main(args: argparse.Namespace) -> None:
    """Write the report, print its table and what was written."""
    for flag in ("examples", "explain"):
        if getattr(args, flag) < 0:
            raise UserError(f"--{flag}: {getattr(args, flag)} (give 0 or more)")
    if args.reference is not None and args.reference.is_dir():
        raise UserError(f"--reference: {args.reference} is a folder (give a file, or name the runs before --reference)")
    out = args.out or args.runs[0] / "report"
    storage.check_folder(out, "--out")
    written = report(args.runs, out, args.names, args.examples, args.reference, args.explain, args.spread)
    if written.table:
        print(written.table)
    for path in written.files:
        print(path)
