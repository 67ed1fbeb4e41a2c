"""PNG plots of accuracy by relation, of the tasks whose annotations name one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from relvlm.evals.figures.shares import percent, wilson
from relvlm.evals.tasks.task import Card

CHANCE = 50.0  # of the tasks that name relations: true or false, or one of two
MOST = 24  # relations in a plot, those with the most examples


def by_relation(cards: Sequence[Card]) -> dict[str, tuple[int, int]]:
    """Right ones and all of each relation, the most frequent first; {} where no example names one."""
    number = Counter(card.relation for card in cards if card.relation)
    right = Counter(card.relation for card in cards if card.relation and card.right)
    return {relation: (right[relation], n) for relation, n in number.most_common()}


def plot_relations(found: Mapping[str, Mapping[str, tuple[int, int]]], title: str, path: Path) -> Path:
    """A bar for each run (by name) at each relation, with its 95% interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for counts in found.values() for name in counts))[:MOST]
    thick = 0.8 / len(found)
    figure, axes = pyplot.subplots(figsize=(6, 1 + 0.28 * len(names) * max(1, len(found) * 0.6)), dpi=110)
    for place, (run, counts) in enumerate(found.items()):
        rows = [i + (place + 0.5) * thick - 0.4 for i, name in enumerate(names) if name in counts]
        shares, spread = _shares([counts[name] for name in names if name in counts])
        axes.barh(rows, shares, thick, xerr=spread, label=run, error_kw={"elinewidth": 0.8, "alpha": 0.6})
    sizes = {name: max(counts.get(name, (0, 0))[1] for counts in found.values()) for name in names}
    axes.set_yticks(range(len(names)), [f"{name} ({size})" for name, size in sizes.items()], fontsize=8)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xlabel="accuracy, %", title=title)
    axes.axvline(CHANCE, color="grey", linestyle=":", linewidth=0.8)
    axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return path


def _shares(counts: Sequence[tuple[int, int]]) -> tuple[list[float], list[list[float]]]:
    """Percent right, and how far their 95% intervals reach below and above."""
    shares, bounds = [percent(*each) for each in counts], [wilson(*each) for each in counts]
    below = [max(0.0, x - low) for x, (low, _) in zip(shares, bounds, strict=True)]
    above = [max(0.0, high - x) for x, (_, high) in zip(shares, bounds, strict=True)]
    return shares, [below, above]
