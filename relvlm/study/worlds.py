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
from relvlm.relworld.config import WorldConfig, world_config
from relvlm.study.plan import Plan, Related, World

log = logging.getLogger(__name__)


def build_worlds(plan: Plan) -> None:
    """Worlds and related sets that are not there; UserError for one that was made otherwise than the plan says.

    What the flags of any of them say wrong is raised before the first is built.
    """
    worlds, related = wanted(plan)
    for args in worlds:
        description = args.out / "world.json"
        if not description.exists():
            log.info("%s: is built", args.out)
            build.main(args)
        elif differing := _differing(json.loads(description.read_text())["arguments"], args):
            raise UserError(f"{args.out}: is another world: {'; '.join(differing)} (remove it, and it is built anew)")
    for args in related:
        _relate(args)


def wanted(plan: Plan) -> tuple[list[argparse.Namespace], list[argparse.Namespace]]:
    """The arguments of its worlds and of its related sets; raises UserError for what none could be made of."""
    worlds = [_arguments(world) for world in plan.worlds]
    for args in worlds:
        _config(args)
    related = [_related_arguments(each) for each in plan.related]
    for args in related:
        relate.asked(args)
    return worlds, related


def _relate(args: argparse.Namespace) -> None:
    manifest = args.out / MANIFEST
    if not manifest.exists():
        log.info("%s: is made", args.out)
        relate.main(args)
        return
    made, asked = json.loads(manifest.read_text())["builder"]["arguments"], relate.asked(args).arguments()
    if any(made.get(key) != json.loads(json.dumps(asked.get(key))) for key in relate.ARGUMENTS):
        raise UserError(f"{args.out}: is not what {args.source} and the flags would give (remove it to make it anew)")


def _related_arguments(related: Related) -> argparse.Namespace:
    parser = Parser(f"related: {related.path}")
    relate.add_arguments(parser)
    return parser.parse_args([*related.flags, "--", related.source, related.path])


def _arguments(world: World) -> argparse.Namespace:
    parser = Parser(f"worlds: {world.path}")
    build.add_arguments(parser)
    return parser.parse_args(["--out", world.path, *world.flags])


def _config(args: argparse.Namespace) -> WorldConfig:
    return world_config(args.preset, **{knob: getattr(args, knob) for knob in build.KNOBS})


def _differing(there: Mapping[str, Any], args: argparse.Namespace) -> list[str]:
    made_of = {"preset": args.preset, "images": args.images, "seed": args.seed, **asdict(_config(args))}
    asked = json.loads(json.dumps(made_of))
    return [f"{key} {there.get(key)!r}, not {value!r}" for key, value in asked.items() if there.get(key) != value]
