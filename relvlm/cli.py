"""`relvlm COMMAND`: each command is a module with `add_arguments(parser)` and `main(args)`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from relvlm.errors import ToldByFirstRank, UserError
from relvlm.paths import Parser
from relvlm.stopping import leave

COMMANDS = {
    "data": ("relvlm.data.cli", "build, check and look at shard sets"),
    "train": ("relvlm.train", "pretrain a model"),
    "submit": ("relvlm.submit", "pretrain on a Slurm cluster"),
    "config": ("relvlm.config.cli", "what a config resolves to, and every key it may hold"),
    "plan": ("relvlm.plan.cli", "memory, FLOPs, time and GPU-hours of a recipe"),
    "eval": ("relvlm.evals.cli", "evaluate a checkpoint, or score files"),
    "convert": ("relvlm.convert.cli", "official checkpoints to ours, and back"),
    "explain": ("relvlm.explain.cli", "where a model looks: heat, boxes and relations of a photo, as a page"),
    "score": ("relvlm.library.score_cli", "how well texts match photos, as a matrix"),
    "search": ("relvlm.library.search_cli", "the photos of a folder that a text is true of"),
    "demo": ("relvlm.library.demo_cli", "a page to try a model on: photo, sentence, where it looks"),
    "report": ("relvlm.evals.reporting.report_cli", "tables and plots of runs"),
    "runs": ("relvlm.runs", "runs at a glance: state, step, rate, time left"),
    "compare": ("relvlm.compare", "whether two runs logged the same"),
    "soup": ("relvlm.evals.checkpoints.soup_cli", "average the weights of checkpoints"),
    "publish": ("relvlm.publish", "a checkpoint as a folder for the Hub, with a model card"),
    "pareto": (
        "relvlm.evals.reporting.pareto_cli",
        "checkpoints that are best in coarse or fine-grained tasks",
    ),
}
WITH_OVERRIDES = {
    "train",
    "submit",
    "plan",
    "config",
}  # key=value arguments may stand anywhere among the options


def main() -> None:
    """Run the command; a UserError prints its message alone and exits with 2."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        _choose().parse_args()
        return
    module = import_module(COMMANDS[name][0])  # only this one: importing them all would take seconds
    parser = Parser(f"relvlm {name}", formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    parse = parser.parse_intermixed_args if name in WITH_OVERRIDES else parser.parse_args
    try:
        status = module.main(parse(sys.argv[2:]))
        sys.stdout.flush()
    except ToldByFirstRank:
        status = 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:  # who reads our output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    leave(status)


def _choose() -> argparse.ArgumentParser:
    """The parser of `relvlm` without a command, for its help and its errors."""
    parser = argparse.ArgumentParser(
        "relvlm",
        description="Vision-language models that learn visual relations.",
        epilog="relvlm COMMAND --help says more, with examples.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


if __name__ == "__main__":
    main()
