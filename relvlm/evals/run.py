"""Evaluation of one model on one task, or on a folder of benchmarks: scores.jsonl and metrics.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relvlm.data.text import Tokenizer
from relvlm.errors import UserError
from relvlm.evals.figures import outcomes
from relvlm.evals.files import Row, find_image, read_jsonl, write_atomic, write_json
from relvlm.evals.scoring.photos import Photo
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.evals.tasks import aro, retrieval, sugarcrepe, svo, valse, vsr, winoground
from relvlm.evals.tasks import task as b
from relvlm.ranks import barrier, rank

PAIR_TASKS = {t.name: t for t in (vsr.TASK, valse.TASK, svo.TASK, winoground.TASK, sugarcrepe.TASK, aro.TASK)}
TASKS = (*PAIR_TASKS, *retrieval.K)
SUITE = {
    "vsr": "vsr",
    "valse": "valse",
    "svo": "svo",
    "winoground": "winoground",
    "sugarcrepe": "sugarcrepe",
    "aro": "aro",
    "paragraphs": "paragraphs",
    "coco": "coco",
    "flickr30k": "flickr30k",
}
DEV_SPLIT = "val"


@dataclass(frozen=True)
class Selection:
    """What of a task is scored: `limit` examples (images) of each file, 0 for all; `k` 0 for the protocol's.

    `available`: leave out the examples whose image is missing, and list them, instead of refusing. `overlap`:
    names of images that training may have seen; retrieval is scored once more without them.
    """

    limit: int = 0
    k: int = 0
    split: str = "test"
    available: bool = False
    overlap: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One evaluation: a task's files and what of them is scored; `name` is that of its folder of results."""

    name: str
    task: str
    annotations: Path
    images: Path
    selection: Selection


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
    scorer = Scorer(model, tokenizer, options)
    return score_task(scorer, task, annotations, images, out, selection or Selection())


def evaluate_suite(
    model: Any,
    tokenizer: Tokenizer | None,
    benchmarks: Path,
    out: Path,
    options: ScoreOptions | None = None,
    selection: Selection | None = None,
) -> dict[str, Row]:
    """Every task that lies in `benchmarks` (see SUITE; photos in `benchmarks`/images), into `out`/<task>."""
    sources = suite_sources(benchmarks, selection or Selection())
    scorer = Scorer(model, tokenizer, options)
    return {s.name: score_source(scorer, s, out / s.name) for s in sources}


def suite_sources(benchmarks: Path, selection: Selection, dev: bool = False) -> list[Source]:
    """What lies in a benchmarks folder; with `dev` also the retrieval tasks' val splits, as `<task>_dev`."""
    present = {task: benchmarks / name for task, name in SUITE.items() if (benchmarks / name).exists()}
    if not present:
        raise UserError(f"{benchmarks}: none of {', '.join(SUITE.values())} in it (give a benchmarks folder)")
    images = benchmarks / "images"
    sources = [Source(task, task, path, images, selection) for task, path in present.items()]
    on_dev = replace(selection, split=DEV_SPLIT)
    for task in retrieval.K if dev else ():
        if task in present and DEV_SPLIT in retrieval.splits(task, present[task]):
            sources.append(Source(f"{task}_dev", task, present[task], images, on_dev))
    return sources


def score_source(scorer: Scorer, source: Source, out: Path, made_from: Row | None = None) -> Row:
    """Score one source into `out`."""
    return score_task(
        scorer, source.task, source.annotations, source.images, out, source.selection, made_from
    )


def score_task(
    scorer: Scorer,
    task: str,
    annotations: Path,
    images: Path,
    out: Path,
    selection: Selection,
    made_from: Row | None = None,
) -> Row:
    """One task with a scorer that may hold encoded images of others; `made_from` goes into metrics.json."""
    if task in PAIR_TASKS:
        figures = _score_pairs(scorer, PAIR_TASKS[task], annotations, images, out, selection)
    elif task in retrieval.K:
        figures = _score_retrieval(scorer, task, annotations, images, out, selection)
    else:
        raise UserError(f"task: {task!r} is none of {', '.join(TASKS)}")
    context = {"annotations": str(annotations), "images": str(images), "limit": selection.limit}
    context |= {"k": figures["k"], "split": figures["split"]} if "k" in figures else {}
    scored = {"n_pairs": figures["n_pairs"], "images_missing": figures["images_missing"]}
    protocol = {"rule": figures["rule"]} | scorer.protocol() | context | scored
    result = {"task": task, **figures, "protocol": protocol}
    if made_from:
        result["made_from"] = made_from
    if rank() == 0:
        write_json(out / "metrics.json", result)
    barrier()
    return result


def rescore(task: str, scores: Path, annotations: Path | None = None) -> Row:
    """Metrics of a scores file, ours or another program's with the same fields."""
    if task in retrieval.K:
        found = retrieval.from_rows(read_jsonl(scores), str(scores))
        if annotations is not None:
            retrieval.check_gallery(found, retrieval.load(task, annotations), str(scores))
        return {"task": task, **retrieval.metrics(found), "rule": retrieval.RULE}
    if task not in PAIR_TASKS:
        raise UserError(f"task: {task!r} is none of {', '.join(TASKS)}")
    rows = list(read_jsonl(scores))
    chosen = PAIR_TASKS[task]
    rows = b.check_scores(rows, chosen.key, str(scores), chosen.label)
    if annotations is not None:
        rows = b.complete(rows, chosen.load(annotations), chosen.key, str(scores))
    return {"task": task, **chosen.metrics(rows), "n_pairs": len(rows), "rule": chosen.rule}


def _score_pairs(
    scorer: Scorer, task: b.Task, annotations: Path, images: Path, out: Path, selection: Selection
) -> Row:
    benchmark = task.load(annotations)
    if not getattr(scorer.matcher, "probabilities", True):
        _need_no_threshold(task)
    if selection.limit:
        benchmark = b.first(benchmark, selection.limit, task.group)
    found, missing = b.locate(benchmark, images)
    if missing:
        _refuse(missing, images, selection.available and bool(found))
        benchmark = b.without(benchmark, missing)
    if not benchmark.examples:
        raise UserError(f"{annotations}: no example left to score (images missing: {len(missing)})")
    pairs = benchmark.pairs
    photos = [Photo(found[p.image], p.box) for p in pairs]
    scores, are_probabilities = scorer.scores(photos, [p.text for p in pairs])
    if not are_probabilities:
        _need_no_threshold(task)
    rows = [
        {**p.row, "score": s, "image": p.image, "text": p.text}
        for p, s in zip(pairs, scores.tolist(), strict=True)
    ]
    rows = b.check_scores(rows, task.key, f"{task.name} scores")
    figures = task.metrics(rows)
    for name in () if are_probabilities else task.thresholded:
        figures.pop(name)
    if rank() == 0:
        write_atomic(out / "scores.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))
        outcomes.save(outcomes.outcomes(task.name, rows, "scores"), out / outcomes.FILE)
    counts = {"n_pairs": len(rows), "rule": task.rule, "texts_cut": scorer.cut(p.text for p in pairs)}
    return {**figures, **counts, "score": _kind(are_probabilities), **_listing(missing)}


def _score_retrieval(
    scorer: Scorer, task: str, annotations: Path, images: Path, out: Path, selection: Selection
) -> Row:
    gallery = retrieval.load(task, annotations, selection.split)
    if selection.limit:
        gallery = gallery.first(selection.limit)
    found = {name: find_image(images, name) for name in gallery.images}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        _refuse(missing, images, selection.available and len(missing) < len(found))
        gallery = gallery.without(missing)
    paths = {name: path for name, path in found.items() if path is not None}
    k = selection.k or retrieval.K[task]
    table, kind = _candidates(scorer, gallery, paths, k)
    if rank() == 0:
        write_atomic(out / "scores.jsonl", retrieval.lines(table, gallery))
        outcomes.save(outcomes.of_retrieval(table), out / outcomes.FILE)
        write_json(out / "gallery.json", {"images": gallery.images, "texts": gallery.texts})
    context = {"k": k, "split": selection.split, "texts_cut": scorer.cut(gallery.texts), "score": kind}
    figures = {**retrieval.metrics(table), "rule": retrieval.RULE, **context, **_listing(missing)}
    rest = gallery.without_named(selection.overlap)
    if 0 < len(rest.images) < len(gallery.images):
        figures["without_overlap"] = retrieval.metrics(_candidates(scorer, rest, paths, k)[0])
    return figures


def _candidates(
    scorer: Scorer, gallery: retrieval.Gallery, files: Mapping[str, Path], k: int
) -> tuple[retrieval.Candidates, str]:
    """The scored candidates of a gallery; every pair where the model has no features to choose them by."""
    paths = [files[name] for name in gallery.images]
    if scorer.has_features:
        similarity_IX = scorer.image_features(paths) @ scorer.text_features(gallery.texts).T
    else:
        similarity_IX, k = torch.zeros(len(paths), len(gallery.texts)), max(len(paths), len(gallery.texts))
    image, text, tr, ir = retrieval.candidates(similarity_IX, k)
    logits = scorer.match_logits(paths, gallery.texts, image, text)
    if not bool(torch.isfinite(logits).all()):
        raise UserError("retrieval scores: not finite (has the model diverged? take an earlier checkpoint)")
    match = np.array(gallery.image_of)[text.numpy()] == image.numpy()
    score = (logits[:, 1] if logits.dim() == 2 else logits).double().numpy()
    found = retrieval.Candidates(image.numpy(), text.numpy(), score, match, tr.numpy(), ir.numpy())
    return found, "match logit" if logits.dim() == 2 else "similarity"


def _need_no_threshold(task: b.Task) -> None:
    if "overall" in task.thresholded:
        raise UserError(
            f"model: gives similarities, no match probabilities: {task.name} has a threshold of .5 and needs an "
            "ITM head (take another task)"
        )


def _refuse(missing: Sequence[str], images: Path, available: bool) -> None:
    if not available:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"{images}: {len(missing)} images missing: {some} (add them, or score the rest with --available)"
        )


def _listing(missing: Sequence[str]) -> dict[str, Any]:
    """How many images are missing, and which; the figures are then those of the rest."""
    listed = {"scored": "available", "missing_images": list(missing)} if missing else {}
    return {"images_missing": len(missing), **listed}


def _kind(are_probabilities: bool) -> str:
    return "match probability" if are_probabilities else "similarity"
