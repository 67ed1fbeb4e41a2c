"""`relvlm eval`: score a checkpoint on a task or a suite; `relvlm eval score`: metrics of a scores file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from relvlm.errors import UserError
from relvlm.evals.run import SUITE, TASKS, Selection, evaluate, evaluate_suite, rescore
from relvlm.evals.scorer import ScoreOptions

DEFAULTS = ScoreOptions()
EXAMPLES = """examples:
  relvlm eval --checkpoint runs/demo --suite data/relworld/benchmarks --out runs/demo/eval
  relvlm eval --checkpoint runs/demo --task vsr --annotations vsr/random_2022 --images coco/train2017 --out out/vsr
  relvlm eval score --task vsr --scores out/vsr/scores.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm eval` and of `relvlm eval score`."""
    parser.description = (
        "Zero-shot evaluation of a checkpoint, by the benchmarks' official files and protocols."
    )
    parser.epilog = EXAMPLES
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder, or a run (its latest)")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--annotations", type=Path, help="the benchmark's official file, or a folder of them")
    parser.add_argument("--images", type=Path, help="folder of the photos")
    parser.add_argument(
        "--suite", type=Path, help=f"folder with any of {', '.join(SUITE.values())}, and images/"
    )
    parser.add_argument("--out", type=Path, help="folder for scores.jsonl and metrics.json")
    _add_selection(parser)
    _add_options(parser)
    score = parser.add_subparsers(dest="action", metavar="score").add_parser(
        "score", help="recompute the metrics of a scores file and print them"
    )
    score.add_argument("--task", choices=TASKS, required=True, dest="score_task")
    score.add_argument("--scores", type=Path, required=True)
    score.add_argument("--annotations", type=Path, dest="score_annotations")


def main(args: argparse.Namespace) -> None:
    """Run it and print one JSON object; raises UserError for what the user can mend."""
    if args.action == "score":
        _print(rescore(args.score_task, args.scores, args.score_annotations))
    elif args.suite is not None:
        _evaluate_suite(args)
    else:
        _evaluate_task(args)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="test", help="of a retrieval file (default: test)")
    parser.add_argument(
        "--k", type=int, default=0, help="retrieval candidates to re-score (default: the protocol's)"
    )
    parser.add_argument("--limit", type=int, default=0, help="only the first N examples of each file")
    parser.add_argument(
        "--available", action="store_true", help="leave out, and list, examples without image"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=DEFAULTS.device)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default=DEFAULTS.dtype)
    parser.add_argument("--batch-size", type=int, default=DEFAULTS.image_batch, help="images at once")
    parser.add_argument(
        "--token-budget", type=int, default=DEFAULTS.token_budget, help="text tokens at once (0: to suit)"
    )
    parser.add_argument("--max-words", type=int, default=DEFAULTS.max_words)


def _evaluate_task(args: argparse.Namespace) -> None:
    _need(args, "checkpoint", "task", "annotations", "images", "out")
    model, options, selection = _load(args)
    _print(
        evaluate(
            model, model.tokenizer, args.task, args.annotations, args.images, args.out, options, selection
        )
    )


def _evaluate_suite(args: argparse.Namespace) -> None:
    from relvlm.evals.table import as_markdown, model_rows

    _need(args, "checkpoint", "out")
    model, options, selection = _load(args)
    results = evaluate_suite(model, model.tokenizer, args.suite, args.out, options, selection)
    print(as_markdown(model_rows(args.checkpoint.name, results)))


def _load(args: argparse.Namespace) -> tuple[Any, ScoreOptions, Selection]:
    import relvlm

    for name in ("batch_size", "token_budget", "max_words", "k", "limit"):
        least = 1 if name in ("batch_size", "max_words") else 0
        if getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')}: {getattr(args, name)} (give {least} or more)")
    options = ScoreOptions(
        device=args.device,
        dtype=args.dtype,
        image_batch=args.batch_size,
        token_budget=args.token_budget,
        max_words=args.max_words,
    )
    return relvlm.load(args.checkpoint), options, Selection(args.limit, args.k, args.split, args.available)


def _need(args: argparse.Namespace, *names: str) -> None:
    missing = [f"--{name}" for name in names if getattr(args, name) is None]
    if missing:
        raise UserError(f"relvlm eval: {', '.join(missing)}: missing (see relvlm eval --help)")


def _print(value: object) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))
