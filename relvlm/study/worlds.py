"""The data of a study: RelWorlds of its own, and copies with relations by machine, made before the first run."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from relvlm.data.shards.manifest import MANIFEST
from relvlm.data.tools import relate
from relvlm.errors import UserError
from relvlm.paths import Parser
from relvlm.relworld import build
from relvlm.relworld.config import world_config
from relvlm.study.plan import Plan, Related, World

log = logging.getLogger(__name__)


def build_worlds(plan: Plan) -> None:
    """Worlds and related sets that are not there; UserError for one that was made otherwise than the plan says."""
    for world in plan.worlds:
        args = _arguments(world)
        description = args.out / "world.json"
        if not description.exists():
            log.info("%s: is built", args.out)
            build.main(args)
        elif differing := _differing(json.loads(description.read_text())["arguments"], args):
            raise UserError(f"{args.out}: is another world: {'; '.join(differing)} (remove it, and it is built anew)")
    for related in plan.related:
        _relate(related)


def _relate(related: Related) -> None:
    parser = Parser(f"related: {related.path}")
    relate.add_arguments(parser)
    args = parser.parse_args([*related.flags, "--", related.source, related.path])
    manifest = args.out / MANIFEST
    if not manifest.exists():
        log.info("%s: is made", args.out)
        relate.main(args)
        return
    made, wanted = json.loads(manifest.read_text())["builder"]["arguments"], relate.asked(args).arguments()
    if any(made.get(key) != json.loads(json.dumps(wanted.get(key))) for key in relate.ARGUMENTS):
        raise UserError(
            f"{args.out}: is not what {related.source} and the flags would give (remove it to make it anew)"
        )


def _arguments(world: World) -> argparse.Namespace:
    parser = Parser(f"worlds: {world.path}")
    build.add_arguments(parser)
    args = parser.parse_args(["--out", world.path, *world.flags])
    return args


def _differing(there: Mapping[str, Any], args: argparse.Namespace) -> list[str]:
    config = asdict(world_config(args.preset, **{knob: getattr(args, knob) for knob in build.KNOBS}))
    wanted = json.loads(json.dumps({"preset": args.preset, "images": args.images, "seed": args.seed, **config}))
    return [f"{key} {there.get(key)!r}, not {value!r}" for key, value in wanted.items() if there.get(key) != value]
