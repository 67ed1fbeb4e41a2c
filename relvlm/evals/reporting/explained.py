"""Pages on where a model looked in its worst errors, made beforehand: a report is read without the model at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from relvlm import checkpoints
from relvlm.config.schema import DataConfig
from relvlm.errors import UserError
from relvlm.evals.files import read_json, write_atomic
from relvlm.evals.images import find_image
from relvlm.evals.reporting.run import Run
from relvlm.evals.results import cards_of
from relvlm.evals.scoring.photos import Photo
from relvlm.evals.scoring.weights import weights_hash
from relvlm.evals.tasks.registry import task_named
from relvlm.evals.tasks.task import Card
from relvlm.explain.explanation import explain
from relvlm.explain.page import page
from relvlm.explain.query import Query, Triplet
from relvlm.model import RelVLM
from relvlm.pretrained import load

Pages = Mapping[Card, str]  # addresses of pages, from the report's folder
FOLDER = "explain"
MOST_TEXTS = 3  # of an example


def explained(run: Run, root: Path, out: Path, number: int) -> dict[Path, Pages]:
    """By folder of results: pages under `out` on the `number` worst errors of each task of a run at `root`.

    UserError where the run has no checkpoint with the weights that were evaluated.
    """
    chosen = {task: worst(cards_of(folder), number) for task, folder in run.folders.items()} if number else {}
    if not any(chosen.values()):
        return {}
    model, place = _model(root, run), Path(FOLDER, _name(run.name))
    return {run.folders[task]: _pages(model, run.folders[task], c, out, place / task) for task, c in chosen.items()}


def _pages(model: RelVLM, folder: Path, cards: Sequence[Card], out: Path, place: Path) -> Pages:
    """Of one folder of results; `place`: theirs within `out`."""
    figures = read_json(folder / "metrics.json")
    images = Path(figures["protocol"]["images"])
    pages = {}
    for rank, card in enumerate(cards, 1):
        html = _page(model, images, card, figures["task"], rank)
        if html:
            write_atomic(out / place / f"{rank:03d}.html", [html])
            pages[card] = (place / f"{rank:03d}.html").as_posix()
    return pages


def worst(cards: Sequence[Card], number: int) -> list[Card]:
    """The wrong ones by how far: between the scores of two texts or images, or, of a single one, from .5."""
    wrong = [card for card in cards if not card.right and card.lines]
    return sorted(dict.fromkeys(wrong), key=_distance, reverse=True)[:number]


def _distance(card: Card) -> float:
    scores = [score for _, _, score in card.lines]
    return max(scores) - min(scores) if len(scores) > 1 else abs(scores[0] - 0.5)


def _model(root: Path, run: Run) -> RelVLM:
    """The newest checkpoint that has the weights of the run's results."""
    wanted = {figures.get("protocol", {}).get("model") for figures in run.results.values()}
    found = [*reversed(checkpoints.saved(root / "checkpoints")), *([root] if (root / "config.json").exists() else [])]
    for folder in found:
        model = load(folder)
        if {weights_hash(model)} == wanted:
            return model
    said = f"none of {len(found)} checkpoints has the weights that were evaluated" if found else "no checkpoint in it"
    raise UserError(f"--explain: {root}: {said} (keep it beside the results, or leave --explain out)")


def _page(model: RelVLM, folder: Path, card: Card, task: str, rank: int) -> str:
    """Each text of an example on each of its photos; "" where a photo is no longer there or no longer whole."""
    texts = [text for text in dict.fromkeys(text for _, text, _ in card.lines if text) if text != "the same text"]
    found = []
    for name in card.images:
        path = find_image(folder, name, task_named(task).data_sets) if folder.is_dir() else None
        if path is None:
            return ""
        photo = Photo(path, card.box)
        try:
            image = photo.open(photo.read(), DataConfig.max_pixels)
        except UserError:  # it was whole when it was scored
            return ""
        found += [explain(model, image, _query(card, text)) for text in texts[:MOST_TEXTS]]
    about = " / ".join(filter(None, (card.piece, card.what, "; ".join(_line(*line) for line in card.lines))))
    return page(f"{task}: error {rank}", found, about)


def _query(card: Card, text: str) -> Query:
    """With its triplet, of which boxes and relations are shown, where the annotations name one."""
    if len(card.entities) == 2 and card.relation:
        subject, target = card.entities
        return Query(text, Triplet(subject, card.relation, target))
    return Query(text)


def _line(kind: str, text: str, score: float) -> str:
    return f"{kind} {text} {score:.3f}"


def _name(text: str) -> str:
    """For a file: whatever a run is called."""
    return re.sub(r"[^\w.-]+", "_", text).strip(".") or "run"
