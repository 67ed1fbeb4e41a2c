"""`relvlm config`: what a config file resolves to, or what it may hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from relvlm.config.keys import json_listing, listing
from relvlm.config.load import load_config, to_yaml
from relvlm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm config`."""
    parser.description = "Print what a config resolves to: the defaults, the file and its base, and the overrides."
    parser.epilog = (
        "examples:\n"
        "  relvlm config --config configs/mini/rex_vlm.yaml optim.lr=1e-3\n"
        "  relvlm config --schema | grep -A1 mrc"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="YAML, e.g. configs/mini/rex_vlm.yaml")
    what.add_argument(
        "--schema", action="store_true", help="list every key with type, default, meaning, range and what a resume does"
    )
    parser.add_argument("--json", action="store_true", help="with --schema: the list for programs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted config key and its value")


def main(args: argparse.Namespace) -> None:
    """Print the resolved config as YAML, or the list of keys."""
    if args.json and not args.schema:
        raise UserError("relvlm config --json: goes with --schema")
    if not args.schema:
        print(to_yaml(load_config(args.config, args.overrides)), end="")
    elif args.overrides:
        raise UserError(f"relvlm config --schema: {args.overrides[0]}: overrides go with --config")
    else:
        print(json_listing() if args.json else listing())
