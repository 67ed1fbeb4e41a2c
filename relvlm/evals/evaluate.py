"""Evaluation of one model on one task, or on a folder of benchmarks: scores.jsonl and metrics.json."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from relvlm.data.text import Tokenizer
from relvlm.errors import UserError
from relvlm.evals.figures import outcomes
from relvlm.evals.files import Row, write_atomic, write_json
from relvlm.evals.results import read_figures
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.evals.tasks.photos import LISTING
from relvlm.evals.tasks.registry import TASKS, task_named
from relvlm.evals.tasks.retrieval import GALLERY
from relvlm.evals.tasks.task import DEV_SPLIT, Scored, Selection
from relvlm.ranks import barrier, rank

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One evaluation: a task's files and what of them is scored; `name` is that of its folder of results."""

    name: str
    task: str
    annotations: Path
    images: Path
    selection: Selection

    def check(self) -> None:
        """Raises UserError for what is wrong with its files, as far as it is seen without a model."""
        task_named(self.task).check(self.annotations, self.images, self.selection)


def evaluate(
    model: Any,
    tokenizer: Tokenizer | None,
    task: str,
    annotations: Path,
    images: Path,
    out: Path,
    options: ScoreOptions | None = None,
    selection: Selection | None = None,
) -> Row:
    """Score one task; writes `out`/scores.jsonl and `out`/metrics.json, returns the metrics.

    `model`: a RelVLM, or any Matcher (then without tokenizer).
    """
    source = Source(task, task, annotations, images, selection or Selection())
    return score_source(Scorer(model, tokenizer, options), source, out)


def evaluate_suite(
    model: Any,
    tokenizer: Tokenizer | None,
    benchmarks: Path,
    out: Path,
    options: ScoreOptions | None = None,
    selection: Selection | None = None,
) -> dict[str, Row]:
    """Every task whose folder of that name lies in `benchmarks` (photos in `benchmarks`/images), into `out`/<task>.

    A task that the model lacks a head for is left out, with a warning. UserError for what is wrong with any, before the
    first is scored.
    """
    scorer = Scorer(model, tokenizer, options)
    sources = fitting(scorer, suite_sources(benchmarks, selection or Selection()))
    check_others(out, [s.name for s in sources], scorer.model)
    for source in sources:  # all of them, before the first is scored
        source.check()
    return {s.name: score_source(scorer, s, out / s.name) for s in sources}


def check_others(out: Path, names: Sequence[str], model: str) -> None:
    """Raises UserError where results of another model would stay in `out` beside those of `names`."""
    for path in sorted(out.glob("*/metrics.json")):
        left = path.parent.name not in names and read_figures(path).get("protocol", {}).get("model", "")
        if left and left != model:
            raise UserError(f"{path}: of another model, and would stay beside this one's (give an empty --out)")


def check_same_task(out: Path, task: str) -> None:
    """Raises UserError where the results in `out`, which those of `task` would replace, are another task's."""
    path = out / "metrics.json"
    found = read_figures(path).get("task", task) if path.exists() else task
    if found != task:
        raise UserError(f"{path}: of {found}, which {task} would replace (give another --out)")


def suite_sources(benchmarks: Path, selection: Selection, dev: bool = False) -> list[Source]:
    """What lies in a benchmarks folder; with `dev` also the val splits of what has one, as `<task>_dev`."""
    present = [name for name in TASKS if (benchmarks / name).exists()]
    if not present:
        raise UserError(f"{benchmarks}: none of {', '.join(TASKS)} in it (give a benchmarks folder)")
    images = benchmarks / "images"
    sources = [Source(name, name, benchmarks / name, images, selection) for name in present]
    on_dev = replace(selection, split=DEV_SPLIT)
    for name in present if dev else ():
        if DEV_SPLIT in TASKS[name].splits(benchmarks / name):
            sources.append(Source(f"{name}_dev", name, benchmarks / name, images, on_dev))
    return sources


def fitting(scorer: Scorer, sources: Sequence[Source]) -> list[Source]:
    """Those of a suite that the model has all heads for; warns of the others."""
    lacking = {s.name: task_named(s.task).lacks(scorer) for s in sources}
    for name, what in lacking.items() if rank() == 0 else ():
        if what:
            log.warning("%s: left out, the model has %s", name, what)
    return [s for s in sources if not lacking[s.name]]


def score_source(scorer: Scorer, source: Source, out: Path, made_from: Row | None = None) -> Row:
    """With a scorer that may hold encoded images of others; `made_from` goes into metrics.json."""
    check_same_task(out, source.task)
    scored = task_named(source.task).score(scorer, source.annotations, source.images, source.selection)
    protocol = _protocol(scored.figures, scorer, source)
    result = {"task": source.task, **scored.figures, "protocol": protocol}
    if made_from:
        result["made_from"] = made_from
    if rank() == 0:
        _write(scored, result, out)
    barrier()
    return result


def rescore(task: str, scores: Path, annotations: Path | None = None) -> Row:
    """Metrics of a scores file, ours or another program's with the same fields."""
    return {"task": task, **task_named(task).rescore(scores, annotations)}


def _protocol(figures: Row, scorer: Scorer, source: Source) -> Row:
    """What a reader must know to compare the figures."""
    where = {"annotations": str(source.annotations), "images": str(source.images)}
    where |= {"limit": source.selection.limit} | {name: figures[name] for name in ("k", "split") if name in figures}
    counts = {name: figures[name] for name in ("n_pairs", "images_missing", "images_damaged", "images_substituted")}
    return {"rule": figures["rule"], **scorer.protocol(), **where, **counts}


def _write(scored: Scored, result: Row, out: Path) -> None:
    """metrics.json goes first and comes last: what is interrupted is no result, rather than one of two models."""
    for name in ("metrics.json", LISTING, GALLERY):
        (out / name).unlink(missing_ok=True)
    write_atomic(out / "scores.jsonl", scored.lines)
    outcomes.save(scored.outcomes, out / outcomes.FILE)
    for name, content in scored.files.items():
        write_json(out / name, content)
    result[outcomes.DIGEST] = outcomes.digest(out / outcomes.FILE)
    write_json(out / "metrics.json", result)
