"""What a collection of samples holds: counts, histograms of labels and predicates, lengths of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

from relvlm.data.shards.schema import Sample

TOP = 20  # histogram lines in the text form; the JSON form has all
BAR = 30  # characters of the longest bar
PAIRS = (("subject", "predicate"), ("object", "predicate"), ("subject", "object"))


def describe(samples: Iterable[Sample]) -> dict[str, Any]:
    """Counts, per-image means, full histograms (most frequent first) and text lengths in words."""
    totals: Counter[str] = Counter()
    histograms = {name: Counter[str]() for name in ("labels", "attributes", "predicates", "sources")}
    words: list[int] = []
    for sample in samples:
        totals.update(_counts(sample))
        words += [len(caption.split()) for caption in sample.captions]
        histograms["labels"].update(e.label for e in sample.entities)
        histograms["attributes"].update(a for e in sample.entities for a in e.attributes)
        histograms["predicates"].update(r.predicate for r in sample.relations)
        histograms["sources"][sample.source] += 1
    return {
        "totals": dict(totals),
        "per_image": {k: round(totals[k] / totals["images"], 2) for k in totals if k in PER_IMAGE},
        "distinct": {name: len(counts) for name, counts in histograms.items()},
        "caption_words": _spread(words),
        **{name: dict(_ranked(counts)) for name, counts in histograms.items()},
    }


PER_IMAGE = ("captions", "entities", "relations")


def _counts(sample: Sample) -> dict[str, int]:
    return {
        "images": 1,
        "captions": len(sample.captions),
        "entities": len(sample.entities),
        "relations": len(sample.relations),
        "images_without_caption": not sample.captions,
        "images_without_entity": not sample.entities,
        "images_without_relation": not sample.relations,
    }


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "median": median(values), "mean": round(fmean(values), 2), "max": max(values)}


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


class Pairs:
    """How often two parts of a triplet are together."""

    def __init__(self) -> None:
        self.counts = {pair: Counter[tuple[str, str]]() for pair in PAIRS}

    def count(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """`samples`, unchanged."""
        for sample in samples:
            label = {e.id: e.label for e in sample.entities}
            for r in sample.relations:
                part = {"subject": label[r.subject], "predicate": r.predicate, "object": label[r.object]}
                for (a, b), counts in self.counts.items():
                    counts[part[a], part[b]] += 1
            yield sample


def as_text(figures: dict[str, Any]) -> str:
    """The figures of `describe` for a terminal."""
    lines = [f"{name.replace('_', ' '):24}{count:>12,}" for name, count in figures["totals"].items()]
    lines += [f"{name + ' per image':24}{mean:>12}" for name, mean in figures["per_image"].items()]
    lines += [f"{'words per caption':24}{_joined(figures['caption_words'])}"] if figures["caption_words"] else []
    for name in ("sources", "predicates", "labels", "attributes"):
        lines += _histogram(name, figures[name])
    return "\n".join(lines)


def _joined(spread: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in spread.items())


def _histogram(name: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    longest = max(counts.values())
    bars = [
        f"  {text[:30]:30}{count:>10,} {'#' * max(1, BAR * count // longest)}"
        for text, count in list(counts.items())[:TOP]
    ]
    more = [f"  ... and {len(counts) - TOP} more"] if len(counts) > TOP else []
    return ["", f"{name} ({len(counts)})", *bars, *more]
