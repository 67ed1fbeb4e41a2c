"""VisMin: which caption is whose, the solution says; its categories."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks import vismin

OWN = "T0_I0 > T1_I0 & T1_I1 > T0_I1,T0_I0 > T0_I1 & T1_I1 > T1_I0"
CROSSED = "T1_I0 > T0_I0 & T0_I1 > T1_I1,T0_I1 > T0_I0 & T1_I0 > T1_I1"
EXAMPLE = {"text_0": "a", "text_1": "b", "image_0": "i", "image_1": "j"}


def folder(tmp_path: Path, *solution: str, categories: tuple[str, ...] = ("object", "counting")) -> Path:
    rows = [{"id": n, **EXAMPLE, "category": category} for n, category in enumerate(categories)]
    (tmp_path / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sim_solution.csv").write_text("\n".join(["idx,Text,Image,category", *solution]) + "\n")
    return tmp_path


def test_a_crossed_example_has_its_captions_exchanged(tmp_path: Path) -> None:
    # idx begins again with each category, as in the published file: rows go by their place.
    first, second = vismin.load(folder(tmp_path, f"0,{OWN},object", f"0,{CROSSED},counting")).examples
    assert [(p.text, p.image) for p in first] == [("a", "i"), ("a", "j"), ("b", "i"), ("b", "j")]
    assert [(p.text, p.image) for p in second] == [("b", "i"), ("b", "j"), ("a", "i"), ("a", "j")]
    assert [e[0].row for e in (first, second)] == [
        {"label": "0_c0_i0", "collapsed_tag": "object"},
        {"label": "1_c0_i0", "collapsed_tag": "counting"},
    ]


def test_both_ways_are_judged_as_the_solution_says(tmp_path: Path) -> None:
    benchmark = vismin.load(folder(tmp_path, f"0,{OWN},object", f"1,{CROSSED},counting"))
    truth = {("a", "i"): 1, ("b", "j"): 1}  # of the first; the second is shown crossed
    held = [{**p.row, "score": truth.get((p.text, p.image), 0)} for p in benchmark.pairs]
    found = vismin.TASK.metrics(held)
    assert (found["object"]["group"], found["counting"]["group"], found["overall"]) == (100, 0, 50)


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        ([f"0,{OWN},object"], "1 rows, the examples are 2"),
        ([f"0,{OWN},object", "1,T0_I0 > T1_I1,x,counting"], "Text: 'T0_I0 > T1_I1' is none of"),
        ([f"0,{OWN},object", f"1,{OWN},object"], "category: object, the example's is counting"),
    ],
)
def test_a_solution_of_other_examples_is_refused(tmp_path: Path, solution: list[str], message: str) -> None:
    with pytest.raises(UserError, match=rf"sim_solution\.csv: .*{message}"):
        vismin.load(folder(tmp_path, *solution))


def test_without_its_solution_it_is_refused(tmp_path: Path) -> None:
    (folder(tmp_path) / "sim_solution.csv").unlink()
    with pytest.raises(UserError, match=r"sim_solution\.csv: no such file \(it says which caption is whose"):
        vismin.load(tmp_path)
