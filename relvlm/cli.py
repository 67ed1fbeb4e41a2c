"""`relvlm data|train|eval|submit|report`: one sub-command a module, each bringing its own arguments."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from relvlm.errors import UserError

COMMANDS = {
    "data": ("relvlm.data.cli", "build, check and look at shard sets"),
    "train": ("relvlm.train", "pretrain a model"),
    "eval": ("relvlm.evals.cli", "evaluate a checkpoint, or score files"),
    "submit": ("relvlm.submit", "pretrain on a Slurm cluster"),
    "report": ("relvlm.evals.report_cli", "tables and plots of runs"),
}


def main() -> None:
    """Run the sub-command; a UserError prints its message alone and exits with 2."""
    top = argparse.ArgumentParser("relvlm", description="Vision-language models that learn visual relations.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    modules = {}
    for name, (module, summary) in COMMANDS.items():
        parser = commands.add_parser(name, help=summary)
        if name == wanted:  # importing the others would cost seconds
            modules[name] = import_module(module)
            modules[name].add_arguments(parser)
    args = top.parse_args()
    try:
        modules[args.command].main(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
