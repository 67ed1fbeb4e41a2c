"""`relvlm report RUN_DIR...`: the table, the plots of the losses, the pages of examples."""

from __future__ import annotations

import argparse
from pathlib import Path

from relvlm.evals.report import report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm report`."""
    parser.description = (
        "One table of all runs, laid out as the paper's table 2; for each run, plots of its losses and a page of "
        "examples. Evaluate first, into RUN_DIR/eval."
    )
    parser.epilog = "example: relvlm report runs/rex_vlm runs/xvlm --names ReX-VLM X-VLM --out report"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="with metrics.csv and eval/")
    parser.add_argument("--out", type=Path, help="default: `report` in the first run")
    parser.add_argument("--names", nargs="+", default=[], help="the rows' names (default: the folders')")


def main(args: argparse.Namespace) -> None:
    """Write the report, print its table and what was written."""
    written = report(args.runs, args.out or args.runs[0] / "report", args.names)
    if written.table:
        print(written.table)
    for path in written.files:
        print(path)
