"""Evaluation of one model on one task, or on a folder of benchmarks: scores.jsonl and metrics.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relvlm.data.text import Tokenizer
from relvlm.errors import UserError
from relvlm.evals import benchmark as b
from relvlm.evals import retrieval, sugarcrepe, svo, valse, vsr, winoground
from relvlm.evals.files import Row, find_image, read_jsonl, write_atomic, write_json
from relvlm.evals.scorer import ScoreOptions, Scorer

PAIR_TASKS = {t.name: t for t in (vsr.TASK, valse.TASK, svo.TASK, winoground.TASK, sugarcrepe.TASK)}
TASKS = (*PAIR_TASKS, *retrieval.K)
SUITE = {
    "vsr": "vsr",
    "valse": "valse",
    "svo": "svo/svo_probes.csv",
    "winoground": "winoground/examples.jsonl",
    "sugarcrepe": "sugarcrepe",
    "paragraphs": "paragraphs",
    "coco": "coco",
}


@dataclass(frozen=True)
class Selection:
    """What of a task is scored: `limit` examples (images) of each file, 0 for all; `k` 0 for the protocol's.

    `available`: leave out the examples whose image is missing, and list them, instead of refusing.
    """

    limit: int = 0
    k: int = 0
    split: str = "test"
    available: bool = False


def evaluate(
    model: Any,
    tokenizer: Tokenizer,
    task: str,
    annotations: Path,
    images: Path,
    out: Path,
    options: ScoreOptions | None = None,
    selection: Selection | None = None,
) -> Row:
    """Score one task; writes `out`/scores.jsonl and `out`/metrics.json, returns the metrics."""
    scorer = Scorer(model, tokenizer, options)
    return score_task(scorer, task, annotations, images, out, selection or Selection())


def evaluate_suite(
    model: Any,
    tokenizer: Tokenizer,
    benchmarks: Path,
    out: Path,
    options: ScoreOptions | None = None,
    selection: Selection | None = None,
) -> dict[str, Row]:
    """Every task that lies in `benchmarks` (see SUITE; photos in `benchmarks`/images), into `out`/<task>."""
    present = {task: benchmarks / name for task, name in SUITE.items() if (benchmarks / name).exists()}
    if not present:
        raise UserError(f"{benchmarks}: none of {', '.join(SUITE.values())} in it (give a benchmarks folder)")
    scorer = Scorer(model, tokenizer, options)
    chosen = selection or Selection()
    return {
        task: score_task(scorer, task, path, benchmarks / "images", out / task, chosen)
        for task, path in present.items()
    }


def score_task(
    scorer: Scorer, task: str, annotations: Path, images: Path, out: Path, selection: Selection
) -> Row:
    """One task with a scorer that may hold encoded images of others."""
    if task in PAIR_TASKS:
        figures = _score_pairs(scorer, PAIR_TASKS[task], annotations, images, out, selection)
    elif task in retrieval.K:
        figures = _score_retrieval(scorer, task, annotations, images, out, selection)
    else:
        raise UserError(f"task: {task!r} is none of {', '.join(TASKS)}")
    context = {"annotations": str(annotations), "images": str(images), "limit": selection.limit}
    result = {"task": task, **figures, "protocol": scorer.protocol() | context}
    write_json(out / "metrics.json", result)
    return result


def rescore(task: str, scores: Path, annotations: Path | None = None) -> Row:
    """Metrics of a scores file, ours or another program's with the same fields."""
    rows = list(read_jsonl(scores))
    if task in retrieval.K:
        rows = b.check_scores(rows, ("image", "text"), str(scores))
        found = retrieval.from_rows(rows, str(scores))
        if annotations is not None:
            retrieval.check_gallery(found, retrieval.load(task, annotations), str(scores))
        return {"task": task, **retrieval.metrics(found)}
    if task not in PAIR_TASKS:
        raise UserError(f"task: {task!r} is none of {', '.join(TASKS)}")
    chosen = PAIR_TASKS[task]
    rows = b.check_scores(rows, chosen.key, str(scores), chosen.label)
    if annotations is not None:
        rows = b.complete(rows, chosen.load(annotations), chosen.key, str(scores))
    return {"task": task, **chosen.metrics(rows)}


def _score_pairs(
    scorer: Scorer, task: b.Task, annotations: Path, images: Path, out: Path, selection: Selection
) -> Row:
    benchmark = task.load(annotations)
    if selection.limit:
        benchmark = b.first(benchmark, selection.limit, task.group)
    found, missing = b.locate(benchmark, images)
    if missing:
        _refuse(missing, images, selection.available and bool(found))
        benchmark = b.without(benchmark, missing)
    if not benchmark.examples:
        raise UserError(f"{annotations}: no example left to score (images missing: {len(missing)})")
    pairs = benchmark.pairs
    scores = scorer.probabilities([found[p.image] for p in pairs], [p.text for p in pairs])
    rows = [
        {**p.row, "score": s, "image": p.image, "text": p.text}
        for p, s in zip(pairs, scores.tolist(), strict=True)
    ]
    rows = b.check_scores(rows, task.key, f"{task.name} scores")
    write_atomic(out / "scores.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))
    counts = {"n_pairs": len(rows), "texts_cut": scorer.cut(p.text for p in pairs)}
    return {**task.metrics(rows), **counts, **_listing(missing)}


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
    paths = [path for path in found.values() if path is not None]
    k = selection.k or retrieval.K[task]
    table = _candidates(scorer, gallery, paths, k)
    write_atomic(out / "scores.jsonl", retrieval.lines(table, gallery))
    write_json(out / "gallery.json", {"images": gallery.images, "texts": gallery.texts})
    context = {"k": k, "split": selection.split, "texts_cut": scorer.cut(gallery.texts)}
    return {**retrieval.metrics(table), **context, **_listing(missing)}


def _candidates(
    scorer: Scorer, gallery: retrieval.Gallery, paths: Sequence[Path], k: int
) -> retrieval.Candidates:
    similarity_IX = scorer.image_features(paths) @ scorer.text_features(gallery.texts).T
    image, text, tr, ir = retrieval.candidates(similarity_IX, k)
    logits_C2 = scorer.match_logits(paths, gallery.texts, image, text)
    if not bool(torch.isfinite(logits_C2).all()):
        raise UserError("retrieval scores: not finite (has the model diverged? take an earlier checkpoint)")
    match = np.array(gallery.image_of)[text.numpy()] == image.numpy()
    score = logits_C2[:, 1].double().numpy()
    return retrieval.Candidates(image.numpy(), text.numpy(), score, match, tr.numpy(), ir.numpy())


def _refuse(missing: Sequence[str], images: Path, available: bool) -> None:
    if not available:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"{images}: {len(missing)} images missing: {some} (add them, or score the rest with --available)"
        )


def _listing(missing: Sequence[str]) -> dict[str, Any]:
    return {"missing_images": list(missing)} if missing else {}
