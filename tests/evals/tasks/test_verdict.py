"""Figures, groups and outcomes of verdicts."""

import numpy as np
import pytest

from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict


def made(unit: str, right: bool, piece: str, **marks: bool) -> Verdict:
    return Verdict(unit, (), {"overall": right, piece: right, **marks}, Card((), (), right, piece))


def judged() -> list[Verdict]:
    return [made("0", True, "b", p_c=False), made("1", False, "a"), made("2", True, "a", p_c=True)]


def test_a_figure_holds_the_examples_that_count_in_it() -> None:
    assert verdict.flags(judged()) == {
        "overall": [True, False, True],
        "b": [True],
        "p_c": [False, True],
        "a": [False, True],
    }
    assert verdict.groups(judged()) == {"b": [True], "a": [False, True]}


def test_accuracy_is_over_all_and_of_each_piece_in_order() -> None:
    found = verdict.accuracy(judged())
    assert (found["overall"], found["b"], found["a"], found["n"]) == (pytest.approx(200 / 3), 100, 50, 3)
    assert list(found["counts"].items()) == [("b", 1), ("a", 2)]


def test_outcomes_give_the_same_figures() -> None:
    found = verdict.outcomes(judged(), {"macro": ("mean", ("b", "a")), "least": ("min", ("b", "a"))})
    assert (found.units, found.names) == (("0", "1", "2"), ("overall", "b", "p_c", "a"))
    figures = {name: values[0] for name, values in found.figures().items()}
    assert figures == pytest.approx({"overall": 200 / 3, "b": 100, "p_c": 50, "a": 50, "macro": 75, "least": 50})
    assert np.array_equal(found.counted[:, 2], [1, 0, 1])


def test_combined_figures_are_those_of_their_parts() -> None:
    derived = {"macro": ("mean", ("b", "a")), "least": ("min", ("b", "a"))}
    assert verdict.combined(derived, verdict.flags(judged())) == {"macro": 75, "least": 50}


def test_nested_figures_are_found_by_their_prefix() -> None:
    assert verdict.nested({"by/a": 1, "by/b/c": 2, "byte": 3}, "by") == {"a": 1, "b/c": 2}


@pytest.mark.parametrize(("mark", "held"), [(True, True), ("true", True), ("1", True), (False, False), ("0", False)])
def test_held_out_is_read_in_every_spelling(mark: object, held: bool) -> None:
    assert verdict.held_out({"held_out": mark}) == {"held_out": held}
    assert verdict.held_out({}) == {}


def test_a_held_out_example_counts_once_more() -> None:
    assert verdict.names({"held_out": True}, "a") == ["overall", "a", "held_out/overall"]
    assert verdict.names({"held_out": False}, "a") == verdict.names({}, "a") == ["overall", "a"]
    found = verdict.held_out_accuracy({"held_out/overall": [True, False]})
    assert (found["held_out"]["overall"], found["held_out"]["n"]) == (50, 2)
    assert verdict.held_out_accuracy({"overall": [True]}) == {}


@pytest.mark.parametrize(("rows", "chance"), [((1,), 50), ((2,), 50), ((5,), 20), ((2, 5), 35), ((1, 4, 4), 100 / 3)])
def test_chance_is_that_of_each_examples_options(rows: tuple[int, ...], chance: float) -> None:
    card = Card((), (), True, "a")
    judged = [Verdict("x", ({"score": 0.5},) * n, {}, card) for n in rows]
    assert verdict.chance(judged) == pytest.approx(chance)
