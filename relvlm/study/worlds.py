"""The worlds of a study: RelWorlds of its own, built before the first run."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from relvlm.errors import UserError
from relvlm.paths import Parser
from relvlm.relworld import build
from relvlm.relworld.config import world_config
from relvlm.study.plan import Plan, World

log = logging.getLogger(__name__)


def build_worlds(plan: Plan) -> None:
    """Those that are not there; UserError for one that was made otherwise than the plan says."""
    for world in plan.worlds:
        args = _arguments(world)
        description = args.out / "world.json"
        if not description.exists():
            log.info("%s: is built", args.out)
            build.main(args)
        elif differing := _differing(json.loads(description.read_text())["arguments"], args):
            raise UserError(f"{args.out}: is another world: {'; '.join(differing)} (remove it, and it is built anew)")


def _arguments(world: World) -> argparse.Namespace:
    parser = Parser(f"worlds: {world.path}")
    build.add_arguments(parser)
    args = parser.parse_args(["--out", world.path, *world.flags])
    return args


def _differing(there: Mapping[str, Any], args: argparse.Namespace) -> list[str]:
    config = asdict(world_config(args.preset, **{knob: getattr(args, knob) for knob in build.KNOBS}))
    wanted = json.loads(json.dumps({"preset": args.preset, "images": args.images, "seed": args.seed, **config}))
    return [f"{key} {there.get(key)!r}, not {value!r}" for key, value in wanted.items() if there.get(key) != value]
