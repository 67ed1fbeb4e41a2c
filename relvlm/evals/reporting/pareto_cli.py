"""`relvlm pareto RUN...`: the checkpoints on the front of coarse against fine-grained figures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from relvlm.errors import UserError
from relvlm.evals.checkpoints.history import axis_titles, read_history
from relvlm.evals.checkpoints.selection import pareto_lines
from relvlm.evals.reporting.checkpoint_plots import plot_pareto
from relvlm.evals.tables import markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm pareto`."""
    parser.description = (
        "Checkpoints that no other beats in coarse figures (retrieval) without losing in fine-grained ones. Evaluate "
        "first: relvlm eval --all-checkpoints RUN ..."
    )
    parser.epilog = 'example: relvlm pareto runs/rex --coarse "COCO TR@1" --fine "VSR dev" VALSE --plot front.png'
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--coarse", nargs="+", default=[], help=_default("coarse"))
    parser.add_argument("--fine", nargs="+", default=[], help=_default("fine"))
    parser.add_argument("--plot", type=Path, help="PNG to write")


def main(args: argparse.Namespace) -> None:
    """Print a table for each run; write the plot."""
    histories = []
    for run in args.runs:
        history = read_history(run, run.resolve().name)
        if history is None:
            raise UserError(f"{run}: no checkpoint is evaluated (run: relvlm eval --all-checkpoints {run} ...)")
        histories.append(history)
    for history in histories:
        print(markdown(pareto_lines(history, args.coarse, args.fine)))
    if args.plot:
        print(plot_pareto(histories, args.plot, args.coarse, args.fine))


def _default(axis: Literal["coarse", "fine"]) -> str:
    return f"figures to average (default: of {', '.join(axis_titles(axis))})"
