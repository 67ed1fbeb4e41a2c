"""Accuracy by relation: counted by hand, and a plot of them."""

from pathlib import Path

import pytest
from PIL import Image

from relvlm.evals.reporting.relation_plots import _shares, by_relation, plot_relations
from relvlm.evals.tasks.task import Card


def cards(*relations: tuple[str, bool]) -> list[Card]:
    return [Card((), (), right, "piece", relation=relation) for relation, right in relations]


def test_each_relation_has_its_right_ones_and_all_the_most_frequent_first() -> None:
    found = by_relation(cards(("on", True), ("left of", False), ("left of", True), ("", True), ("under", False)))
    assert list(found.items()) == [("left of", (1, 2)), ("on", (1, 1)), ("under", (0, 1))]
    assert by_relation(cards(("", True))) == {}


def test_shares_are_percent_with_wilsons_reach() -> None:
    shares, (below, above) = _shares([(5, 10), (4, 4)])
    assert shares == [50, 100]
    assert below == pytest.approx([26.34, 48.99], abs=0.01) and above == pytest.approx([26.34, 0], abs=0.01)


def test_a_plot_of_two_runs_of_which_one_lacks_a_relation(tmp_path: Path) -> None:
    found = {"A": {"on": (1, 2), "left of": (1, 1)}, "B": {"on": (2, 2)}}
    path = plot_relations(found, "VSR", tmp_path / "new/plot.png")
    assert Image.open(path).size[0] > 300
