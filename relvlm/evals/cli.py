"""`relvlm eval`: score a checkpoint, all of a run, or another's model; `relvlm eval score`: metrics of a file."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

import relvlm
from relvlm.errors import UserError
from relvlm.evals.checkpoints import every
from relvlm.evals.evaluate import Source, evaluate, evaluate_suite, rescore, suite_sources
from relvlm.evals.files import decoded
from relvlm.evals.results import model_rows, table_lines
from relvlm.evals.scoring.models import named_model
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tables import markdown
from relvlm.evals.tasks.registry import TASKS
from relvlm.evals.tasks.retrieval import RetrievalTask
from relvlm.evals.tasks.task import Selection
from relvlm.ranks import join, rank, stop

DEFAULTS = ScoreOptions()
SPLIT = Selection.split
ALL = "0/1"  # --shard
EXAMPLES = """examples:
  relvlm eval --checkpoint runs/demo --suite data/relworld/benchmarks --out runs/demo/eval
  relvlm eval --checkpoint runs/demo --task vsr --annotations vsr/random_2022 --images coco/train2017 --out out/vsr
  relvlm eval --all-checkpoints runs/demo --suite data/relworld/benchmarks
  relvlm eval --model hf:models/blip-itm-base-coco --task valse --annotations valse --images valse/images --out out/blip
  relvlm eval --model open_clip:ViT-B-32:laion2b_s34b_b79k --task sugarcrepe --annotations sc --images val --out out/b32
  relvlm eval score --task vsr --scores out/vsr/scores.jsonl
  torchrun --nproc-per-node 8 -m relvlm.cli eval --device cuda ...
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm eval` and of `relvlm eval score`."""
    parser.description = "Zero-shot evaluation of a checkpoint, by the benchmarks' official files and protocols."
    parser.epilog = EXAMPLES
    _add_models(parser)
    parser.add_argument("--task", choices=list(TASKS))
    parser.add_argument("--annotations", type=Path, help="the benchmark's official file, or a folder of them")
    parser.add_argument("--images", type=Path, help="folder of the photos")
    parser.add_argument("--suite", type=Path, help=f"folder with any of {', '.join(TASKS)}, and images/")
    parser.add_argument("--out", type=Path, help="folder for scores.jsonl and metrics.json")
    _add_selection(parser)
    _add_options(parser)
    score = parser.add_subparsers(dest="action", metavar="score").add_parser(
        "score", help="recompute the metrics of a scores file and print them"
    )
    score.add_argument("--task", choices=list(TASKS), required=True, dest="score_task")
    score.add_argument("--scores", type=Path, required=True)
    score.add_argument("--annotations", type=Path, dest="score_annotations")


def main(args: argparse.Namespace) -> None:
    """Run it and print one JSON object; raises UserError for what the user can mend."""
    if args.action == "score":
        _print(rescore(args.score_task, args.scores, args.score_annotations))
        return
    _check_model(args)
    _check_unused(args)
    join("gloo")  # what processes exchange lies in main memory, whatever the device
    if args.all_checkpoints is not None:
        _evaluate_checkpoints(args)
    elif args.suite is not None:
        _evaluate_suite(args)
    else:
        _evaluate_task(args)
    stop()  # not after an error: the others are not there to meet, and the launcher ends them


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder, or a run (its latest)")
    parser.add_argument(
        "--model",
        help="another's model: hf:PATH (a Hugging Face CLIP or BLIP), open_clip:NAME:PRETRAINED, or py:MODULE:CALLABLE",
    )
    parser.add_argument(
        "--all-checkpoints",
        type=Path,
        metavar="RUN",
        help="every checkpoint of a run; what is done is skipped",
    )
    parser.add_argument("--shard", default=ALL, metavar="I/N", help="only every N-th checkpoint, from the I-th")
    parser.add_argument("--list", action="store_true", help="print what is done and what is not, score nothing")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default=SPLIT, help="of a retrieval file (default: test)")
    parser.add_argument("--k", type=int, default=0, help="retrieval candidates to re-score (default: the protocol's)")
    parser.add_argument("--limit", type=int, default=0, help="only the first N examples of each file")
    parser.add_argument("--available", action="store_true", help="leave out, and list, examples without a whole image")
    parser.add_argument(
        "--overlap", type=Path, help="file of image names, one a line: score retrieval without them, too"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=DEFAULTS.device)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default=DEFAULTS.dtype)
    parser.add_argument("--batch-size", type=int, default=DEFAULTS.image_batch, help="images at once")
    parser.add_argument(
        "--token-budget", type=int, default=DEFAULTS.token_budget, help="text tokens at once (0: to suit)"
    )
    parser.add_argument("--max-words", type=int, default=DEFAULTS.max_words)
    parser.add_argument("--cache", type=Path, help="folder to keep encoded images in, by content")


def _evaluate_task(args: argparse.Namespace) -> None:
    _need(args, "task", "annotations", "images", "out")
    options, selection = _options(args), _selection(args)
    model, tokenizer = _load(args)
    result = evaluate(model, tokenizer, args.task, args.annotations, args.images, args.out, options, selection)
    _print(result)


def _evaluate_suite(args: argparse.Namespace) -> None:
    _need(args, "out")
    options, selection = _options(args), _selection(args)
    model, tokenizer = _load(args)
    results = evaluate_suite(model, tokenizer, args.suite, args.out, options, selection)
    if rank() == 0:
        print(markdown(table_lines(model_rows(args.model or args.checkpoint.resolve().name, results))))


def _evaluate_checkpoints(args: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options, sources = _options(args), _sources(args)
    out = args.out or args.all_checkpoints / every.RESULTS
    chosen = every.shard_of(every.checkpoints_of(args.all_checkpoints), args.shard)
    if args.list:
        found = [every.progress(checkpoint, sources, out, options) for checkpoint in chosen]
    else:
        found = every.evaluate_checkpoints(chosen, sources, out, options)
    for each in found if rank() == 0 else ():
        names = {"done": each.done, "to do" if args.list else "scored": each.todo}
        parts = (f"{what} {' '.join(s.name for s in part)}" for what, part in names.items() if part)
        print(f"{each.checkpoint.name}: {'; '.join(parts)}")


def _sources(args: argparse.Namespace) -> list[Source]:
    selection = _selection(args)
    if args.suite is not None:
        return suite_sources(args.suite, selection, dev=True)
    _need(args, "task", "annotations", "images")
    return [Source(args.task, args.task, args.annotations, args.images, selection)]


def _load(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model, and its tokenizer where it is one of ours."""
    if args.model:
        return named_model(args.model, args.max_words), None
    model = relvlm.load(args.checkpoint)
    return model, model.tokenizer


def _options(args: argparse.Namespace) -> ScoreOptions:
    for name in ("batch_size", "token_budget", "max_words", "k", "limit"):
        least = 1 if name in ("batch_size", "max_words") else 0
        if getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')}: {getattr(args, name)} (give {least} or more)")
    device = args.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return ScoreOptions(
        device=device,
        dtype=args.dtype,
        image_batch=args.batch_size,
        token_budget=args.token_budget,
        max_words=args.max_words,
        cache=args.cache,
    )


def _selection(args: argparse.Namespace) -> Selection:
    overlap: tuple[str, ...] = ()
    if args.overlap is not None:
        if not args.overlap.is_file():
            raise UserError(f"--overlap: {args.overlap}: no such file (image names, one a line)")
        overlap = _names(args.overlap)
    return Selection(args.limit, args.k, args.split, args.available, overlap)


def _check_unused(args: argparse.Namespace) -> None:
    """Raises UserError for what is given and would be passed over."""
    of_task = [name for name in ("task", "annotations", "images") if getattr(args, name) is not None]
    if args.suite is not None and of_task:
        raise UserError(f"--{of_task[0]}: not with --suite, all of whose tasks are scored (leave one of the two out)")
    of_run = {"--shard": args.shard != ALL, "--list": args.list}
    for name in (name for name, given in of_run.items() if given and args.all_checkpoints is None):
        raise UserError(f"{name}: of --all-checkpoints alone (leave it out)")
    if args.all_checkpoints is not None and args.suite is not None and args.split != SPLIT:
        raise UserError("--split: test and val of a suite are both scored (leave it out, or give a --task)")
    if (args.model or "").startswith("py:") and args.max_words != DEFAULTS.max_words:
        raise UserError(f"--max-words: {args.model} cuts texts as it likes (leave it out)")
    of_retrieval = {"--k": args.k, "--overlap": args.overlap, "--split": args.split != SPLIT}
    unused = [name for name, value in of_retrieval.items() if value]
    if unused and args.task is not None and not isinstance(TASKS[args.task], RetrievalTask):
        raise UserError(f"{unused[0]}: {args.task} is no retrieval task (leave it out)")


def _names(path: Path) -> tuple[str, ...]:
    """One a line; a name may have spaces."""
    found = tuple(filter(None, (line.strip() for line in decoded(path.read_bytes(), str(path)).split("\n"))))
    if not found:
        raise UserError(f"--overlap: {path}: no name in it (image names, one a line)")
    return found


def _check_model(args: argparse.Namespace) -> None:
    given = [n for n in ("checkpoint", "model", "all_checkpoints") if getattr(args, n) is not None]
    if len(given) != 1:
        raise UserError("relvlm eval: give one of --checkpoint, --model, --all-checkpoints (see --help)")


def _need(args: argparse.Namespace, *names: str) -> None:
    missing = [f"--{name}" for name in names if getattr(args, name) is None]
    if missing:
        raise UserError(f"relvlm eval: {', '.join(missing)}: missing (see relvlm eval --help)")


def _print(value: object) -> None:
    if rank() == 0:
        print(json.dumps(value, indent=1, ensure_ascii=False))
