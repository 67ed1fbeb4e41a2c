"""Two pictures of a shard set: how long its tails are, and which words go with which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from relvlm.data.statistics import PAIRS, Pairs
from relvlm.errors import UserError

TOP = 25  # words of an axis
COUNTED = ("labels", "attributes", "predicates")
NAMES = {"subject": "subject's label", "predicate": "predicate", "object": "object's label"}


def write_plots(folder: Path, figures: dict[str, Any], pairs: Pairs) -> list[Path]:
    """`tails.png` of `figures` (statistics.py) and, where there are relations, `together.png`; raises UserError."""
    if not any(figures[name] for name in COUNTED):
        raise UserError(f"{folder}: nothing to draw: the set has no entities and no relations (leave out --plots)")
    drawn = {"tails.png": tails(figures)}
    if pairs.counts[PAIRS[0]]:
        drawn["together.png"] = together(pairs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            figure.savefig(folder / name, dpi=110)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror} (choose another --plots)") from error
    return [folder / name for name in drawn]


def tails(figures: dict[str, Any]) -> Figure:
    """Count by rank, both logarithmic, and the share of all that the most frequent ones have together."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    ranked, share = figure.subplots(1, 2)
    for name in COUNTED:
        counts = np.array(list(figures[name].values()))
        if len(counts):
            ranks = np.arange(1, len(counts) + 1)
            once = (counts == 1).mean()
            ranked.loglog(ranks, counts, marker=".", label=f"{name}: {len(counts):,}, {once:.0%} of them once")
            share.semilogx(ranks, counts.cumsum() / counts.sum(), marker=".", label=name)
    ranked.set(xlabel="rank", ylabel="count")
    share.set(xlabel="the most frequent ...", ylabel="... are this share of all", ylim=(0, 1.02))
    for axes in (ranked, share):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def together(pairs: Pairs) -> Figure:
    """Of the most frequent words of two parts of triplets: how often each pair is there, as the colour's logarithm."""
    figure = Figure(figsize=(22, 8), layout="constrained")
    for axes, ((a, b), counts) in zip(figure.subplots(1, len(PAIRS)), pairs.counts.items(), strict=True):
        rows, columns = (_most(counts, side) for side in (0, 1))
        table = np.array([[counts[row, column] for column in columns] for row in rows])
        image = axes.imshow(np.log10(np.where(table, table, np.nan)), aspect="auto", cmap="viridis")
        axes.set(xlabel=NAMES[b], ylabel=NAMES[a])
        axes.set_xticks(range(len(columns)), [_short(c) for c in columns], rotation=90, fontsize=8)
        axes.set_yticks(range(len(rows)), [_short(r) for r in rows], fontsize=8)
        figure.colorbar(image, ax=axes, label="log10 of triplets")
    return figure


def _most(counts: Counter[tuple[str, str]], side: int) -> list[str]:
    of_word: Counter[str] = Counter()
    for pair, count in counts.items():
        of_word[pair[side]] += count
    return [word for word, _ in of_word.most_common(TOP)]


def _short(word: str) -> str:
    return (word if len(word) <= 24 else f"{word[:23]}…").replace("$", r"\$")
