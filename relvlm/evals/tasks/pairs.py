"""A benchmark of examples that are each judged by a few scores of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Cell, Column, overall_cell
from relvlm.evals.figures.outcomes import Derived, Outcomes
from relvlm.evals.files import Row, annotation_files, read_jsonl
from relvlm.evals.images import DATA_SETS, DataSet
from relvlm.evals.scoring.photos import CropBox, Photo
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.photos import Photos, check_photos, usable_photos
from relvlm.evals.tasks.score_rows import check_keys, check_scores, complete
from relvlm.evals.tasks.task import Card, Scored, Selection
from relvlm.evals.tasks.verdict import Verdict

PROBABILITY, SIMILARITY = "match probability", "similarity"  # what a score may be


@dataclass(frozen=True)
class Pair:
    """One score to compute; `row` is what its line in scores.jsonl says beside `score`, `image` and `text`.

    `box`: the part of the image to score, (x0, y0, x1, y1) in pixels; None for all of it.
    """

    image: str
    text: str
    row: Row
    box: CropBox | None = None


Example = tuple[Pair, ...]


@dataclass(frozen=True)
class Benchmark:
    """Examples in file order; `dropped` holds the rows of examples that the protocol leaves out."""

    examples: tuple[Example, ...]
    dropped: tuple[Row, ...] = ()

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, in order."""
        return [pair for example in self.examples for pair in example]

    def first(self, limit: int, group: str | None) -> Benchmark:
        """The first `limit` examples of each value of the field `group`; of all where there is no such field."""
        seen: Counter[object] = Counter()
        kept = []
        for example in self.examples:
            name = example[0].row.get(group) if group else None
            seen[name] += 1
            if seen[name] <= limit:
                kept.append(example)
        return replace(self, examples=tuple(kept))

    def without(self, missing: Sequence[str]) -> Benchmark:
        """The examples that need none of these images."""
        gone = set(missing)
        return replace(self, examples=tuple(e for e in self.examples if not any(pair.image in gone for pair in e)))


def scored_pairs(scorer: Scorer, pairs: Sequence[Pair], paths: Mapping[str, Path]) -> tuple[list[Row], str]:
    """Rows of scores.jsonl of pairs whose photos lie at `paths`, and what their scores are."""
    photos = [Photo(paths[p.image], p.box) for p in pairs]
    scores, are_probabilities = scorer.scores(photos, [p.text for p in pairs])
    return pair_rows(pairs, scores.tolist()), PROBABILITY if are_probabilities else SIMILARITY


def pair_rows(pairs: Sequence[Pair], scores: Sequence[float]) -> list[Row]:
    """Rows of scores.jsonl of pairs with these scores."""
    shown = zip(pairs, scores, strict=True)
    return [{**p.row, "score": score, "image": p.image, "text": p.text} for p, score in shown]


def benchmark_of(annotations: Path, name: str, suffix: str, examples: Callable[[Path], Sequence[Example]]) -> Benchmark:
    """What `examples` reads of one file, or of all of the benchmark `name` in a folder."""
    files = annotation_files(annotations, name, (suffix,))
    return Benchmark(tuple(example for file in files for example in examples(file)))


@dataclass(frozen=True)
class PairTask:
    """`load` its official files; `verdicts` of rows with scores, its rule; `figures` of verdicts, for metrics.json.

    `derived`: figures that are made of others. `key`: the fields that make a row unique. `label`: the pattern of its
    labels, which tells its score files from those of other tasks. `group`: the field that tells its files (or splits)
    apart. `thresholded`: figures that need a probability; a task whose `overall` is among them is not for
    similarities. `table`: its cells, where they are others than `overall` in its one column. `data_sets`:
    those that its photos are of, as far as their folders are known. `measured`: what is computed of the pairs, where
    that is other or more than their match. `needs_boxes`: of a model with a box head.
    """

    name: str
    load: Callable[[Path], Benchmark]
    verdicts: Callable[[Sequence[Row]], list[Verdict]]
    figures: Callable[[Sequence[Verdict]], Row]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    label: str
    rule: str
    derived: Callable[[Sequence[Verdict]], Derived] = lambda verdicts: {}
    group: str | None = None
    thresholded: tuple[str, ...] = ()
    table: Callable[[Row], dict[str, Cell]] | None = None
    data_sets: tuple[DataSet, ...] = DATA_SETS
    measured: Callable[[Scorer, Sequence[Pair], Mapping[str, Path]], tuple[list[Row], str]] = scored_pairs
    needs_boxes: bool = False

    def metrics(self, rows: Sequence[Row]) -> Row:
        """Figures of rows with scores."""
        return self.figures(self.verdicts(rows))

    def check(self, annotations: Path, images: Path, selection: Selection) -> None:
        names = (pair.image for pair in self._selected(annotations, selection).pairs)
        check_photos(images, names, selection.available, self.data_sets)

    def score(self, scorer: Scorer, annotations: Path, images: Path, selection: Selection) -> Scored:
        """Each pair once; figures with a threshold are left out where the model gives similarities."""
        benchmark = self._selected(annotations, selection)
        if self.lacks(scorer):
            raise UserError(f"model: {self.lacks(scorer)}: {self.name} needs it (take another task, or another model)")
        self._check_scores_of(scorer.matcher.probabilities)
        photos, pairs = self._usable(scorer, benchmark, annotations, images, selection.available)
        rows, kind = self.measured(scorer, pairs, photos.paths)
        self._check_scores_of(kind != SIMILARITY)
        context = {"n_pairs": len(rows), "rule": self.rule, "texts_cut": scorer.cut(p.text for p in pairs)}
        context["score"] = kind
        judged = self.verdicts(check_scores(rows, self.key, f"{self.name} scores"))
        figures = self.figures(judged)
        meaningless = self.thresholded if kind == SIMILARITY else ()
        for name in meaningless:
            figures.pop(name)
        return Scored(
            {**figures, **context, **photos.figures()},
            (json.dumps(row, ensure_ascii=False) for row in rows),
            verdict.outcomes(judged, self.derived(judged)).without(meaningless),
            photos.files(),
        )

    def rescore(self, scores: Path, annotations: Path | None) -> Row:
        rows = self._rows(scores)
        if annotations is not None:
            known = self.load(annotations)
            rows = complete(rows, [pair.row for pair in known.pairs], known.dropped, self.key, str(scores))
        return {**self.metrics(rows), "n_pairs": len(rows), "rule": self.rule}

    def lacks(self, scorer: Scorer) -> str:
        return "no box head" if self.needs_boxes and scorer.matcher.boxes is None else ""

    def splits(self, annotations: Path) -> set[str]:
        return set()

    def outcomes(self, scores: Path) -> Outcomes:
        found = self.verdicts(self._rows(scores))
        return verdict.outcomes(found, self.derived(found))

    def cards(self, folder: Path) -> list[Card]:
        return [v.card for v in self.verdicts(self._rows(folder / "scores.jsonl"))]

    def cells(self, figures: Row) -> dict[str, Cell]:
        if self.table:
            return self.table(figures)
        return {self.columns[0].title: overall_cell(figures, figures["chance"])}

    def _selected(self, annotations: Path, selection: Selection) -> Benchmark:
        benchmark = self.load(annotations)
        if selection.limit:
            benchmark = benchmark.first(selection.limit, self.group)
        check_keys([pair.row for pair in benchmark.pairs], self.key, str(annotations), "pair")
        return benchmark

    def _usable(
        self, scorer: Scorer, benchmark: Benchmark, annotations: Path, images: Path, available: bool
    ) -> tuple[Photos, list[Pair]]:
        """The photos, and the pairs of examples that have theirs."""
        wanted = [(pair.image, pair.box) for pair in benchmark.pairs]
        if not wanted:
            raise UserError(f"{annotations}: no example left to score (the protocol keeps none of them)")
        photos = usable_photos(scorer, images, wanted, available, self.data_sets)
        pairs = benchmark.without(photos.unusable).pairs
        if not pairs:
            left_out = len(photos.unusable)
            raise UserError(f"{annotations}: no example left to score (images missing or damaged: {left_out})")
        return photos, pairs

    def _rows(self, scores: Path) -> list[Row]:
        return check_scores(read_jsonl(scores), self.key, str(scores), self.label)

    def _check_scores_of(self, probabilities: bool) -> None:
        if "overall" in self.thresholded and not probabilities:
            raise UserError(
                f"model: gives similarities, no match probabilities: {self.name} has a threshold of .5 and needs an "
                "ITM head (take another task)"
            )
