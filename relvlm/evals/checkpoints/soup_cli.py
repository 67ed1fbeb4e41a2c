"""`relvlm soup uniform|ema|greedy`: one checkpoint from many."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from relvlm import storage
from relvlm.errors import UserError
from relvlm.evals.checkpoints import soup
from relvlm.evals.checkpoints.every import checkpoints_of
from relvlm.evals.evaluate import evaluate
from relvlm.evals.files import read_object
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tasks.registry import TASKS
from relvlm.evals.tasks.task import Selection

DECAY = 0.8
EXAMPLES = """examples:
  relvlm soup uniform runs/rex --last 5 --out runs/rex/soup
  relvlm soup ema runs/rex --decay 0.8 --out runs/rex/ema
  relvlm soup greedy runs/rex --task vsr --annotations vsr/dev.jsonl --images coco/images --out runs/rex/greedy
then: relvlm eval --checkpoint runs/rex/soup ...
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm soup`."""
    parser.description = "Average the weights of several checkpoints into a checkpoint folder."
    parser.epilog = EXAMPLES
    parser.add_argument("kind", choices=("uniform", "ema", "greedy"))
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN|CHECKPOINT")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--last", type=int, default=0, help="only the last N checkpoints (default: all)")
    parser.add_argument("--decay", type=float, help=f"of ema, per checkpoint (default: {DECAY})")
    parser.add_argument("--task", choices=list(TASKS), help="of greedy: the dev task, by its figure --figure")
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--figure", default="overall", help="to maximise, e.g. TR@1 (default: overall)")
    parser.add_argument("--split", default="val", help="of a retrieval file (default: val)")
    parser.add_argument("--limit", type=int, default=0, help="only the first N examples of each file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")


def main(args: argparse.Namespace) -> None:
    """Write the soup and print what is in it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _check_out(args.out)
    if args.limit < 0:
        raise UserError(f"--limit: {args.limit} (give 0 for all, or how many)")
    _check_unused(args)
    checkpoints = _checkpoints(args.sources, args.last)
    soup.check_same(checkpoints)
    if args.kind == "greedy":
        _greedy(args, checkpoints)
        return
    shares = soup.uniform_shares(len(checkpoints))
    if args.kind == "ema":
        decay = DECAY if args.decay is None else args.decay
        if not 0 <= decay < 1:
            raise UserError(f"--decay: {decay}: must be at least 0 and less than 1")
        shares = soup.ema_shares(len(checkpoints), decay)
    recipe = {"kind": args.kind, "of": dict(zip(soup.named(checkpoints), shares, strict=True))}
    soup.write(soup.average(checkpoints, shares), checkpoints, args.out, recipe)
    for name, share in zip(soup.named(checkpoints), shares, strict=True):
        print(f"{share:.3f} {name}")
    print(args.out)


def _check_unused(args: argparse.Namespace) -> None:
    """UserError for what another kind of soup is made by."""
    of = {"decay": "ema", "task": "greedy", "annotations": "greedy", "images": "greedy"}
    for name, kind in of.items():
        if getattr(args, name) is not None and args.kind != kind:
            raise UserError(f"--{name}: of relvlm soup {kind} alone (leave it out)")


def _check_out(out: Path) -> None:
    """UserError for a place that cannot be written, and for a folder that is no soup: what lies there is replaced."""
    storage.check_folder(out, "--out")
    there = (out / "config.json").is_file() and "soup" in read_object(out / "config.json")
    if out.is_dir() and any(out.iterdir()) and not there:
        raise UserError(f"--out: {out}: holds something else than a soup (name another folder)")


def _greedy(args: argparse.Namespace, checkpoints: Sequence[Path]) -> None:
    absent = [f"--{name}" for name in ("task", "annotations", "images") if getattr(args, name) is None]
    if absent:
        raise UserError(f"relvlm soup greedy: {', '.join(absent)}: missing (the dev task to judge by)")
    with tempfile.TemporaryDirectory() as folder:
        members, steps = soup.greedy(checkpoints, _judge(args, Path(folder)))
    recipe: dict[str, object] = {
        "kind": "greedy",
        "task": args.task,
        "figure": args.figure,
        "of": soup.named(members),
    }
    recipe["tried"] = [{"what": what, "figure": figure, "kept": kept} for what, figure, kept in steps]
    soup.write(soup.average(members, soup.uniform_shares(len(members))), members, args.out, recipe)
    for what, figure, kept in steps:
        print(f"{figure:.2f} {what}{'' if kept else ' (left out)'}")
    print(args.out)


def _judge(args: argparse.Namespace, folder: Path) -> Callable[[Sequence[Path]], float]:
    """Scores the uniform average of checkpoints on the dev task."""
    selection = Selection(limit=args.limit, split=args.split)
    options = ScoreOptions(device=args.device, dtype=args.dtype)

    def judge(checkpoints: Sequence[Path]) -> float:
        import relvlm

        weights = soup.average(checkpoints, soup.uniform_shares(len(checkpoints)))
        model: Any = relvlm.load(soup.write(weights, checkpoints, folder / "candidate", {}))
        found = evaluate(
            model,
            model.tokenizer,
            args.task,
            args.annotations,
            args.images,
            folder / "scores",
            options,
            selection,
        )
        if not isinstance(found.get(args.figure), (int, float)):
            numbers = [name for name, value in found.items() if isinstance(value, float)]
            raise UserError(f"--figure: {args.figure!r}: {args.task} has {', '.join(numbers)}")
        return float(found[args.figure])

    return judge


def _checkpoints(sources: Sequence[Path], last: int) -> list[Path]:
    found: list[Path] = []
    for source in sources:
        found += [source] if (source / "config.json").is_file() else checkpoints_of(source)
    if last < 0:
        raise UserError(f"--last: {last} (give 0 for all, or how many)")
    return found[-last:]
