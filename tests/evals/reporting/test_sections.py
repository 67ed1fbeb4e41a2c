"""What each section says, of toy runs."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from relvlm.evals.checkpoints.history import History
from relvlm.evals.figures.bootstrap import intervals, paired
from relvlm.evals.figures.main_table import Cell
from relvlm.evals.figures.outcomes import Outcomes
from relvlm.evals.reporting import sections
from relvlm.evals.reporting.run import Run

PROTOCOL = {"rule": "a rule", "max_words": 40, "n_pairs": 8, "images_missing": 0}


def outcomes(right: list[float], names: tuple[str, ...] = ("overall",)) -> Outcomes:
    column = np.array([right] * len(names)).T
    return Outcomes(tuple(map(str, range(len(right)))), names, column, np.ones_like(column), {})


def run(name: str, **tasks: Outcomes) -> Run:
    results = {task: {"task": task, "k": 7, "protocol": PROTOCOL} for task in tasks}
    return Run(name, {}, results, tasks, {t: intervals(o) for t, o in tasks.items()}, None, None)


FIRST = run("A", svo=outcomes([1, 1, 0, 0]), vsr=outcomes([1, 0]))
SECOND = run("B", svo=outcomes([1, 1, 1, 0]), valse=outcomes([1, 0]))


def test_two_models_are_compared_on_the_tasks_of_both() -> None:
    (section,) = sections.paired_tests([FIRST, SECOND])
    assert (section.title, section.folded) == ("B against A", True)
    ((_, lines),) = section.tables
    assert lines[0][2:5] == ["A", "B", "difference"]
    test = paired(FIRST.outcomes["svo"], SECOND.outcomes["svo"])["overall"]
    interval = f"{test.low:+.1f} to {test.high:+.1f}"
    assert lines[1:] == [["svo", "overall", "50.0", "75.0", "+25.0", interval, f"{test.p:.3g}", "1"]]


def test_every_two_models_are_compared() -> None:
    assert [s.title for s in sections.paired_tests([FIRST, SECOND, run("C")])] == [
        "B against A",
        "C against A",
        "C against B",
    ]
    assert sections.paired_tests([FIRST]) == []


def test_figures_of_kinds_alone_are_not_compared_and_other_examples_are_named() -> None:
    first, second = (run(n, aro=outcomes([1, 0], ("overall", "kind/relation/on"))) for n in "AB")
    (section,) = sections.paired_tests([first, second])
    assert [line[1] for line in section.tables[0][1][1:]] == ["overall"]
    (section,) = sections.paired_tests([FIRST, run("B", svo=outcomes([1, 0]))])
    assert len(section.tables[0][1]) == 1 and "svo: paired test: example" in section.note


def test_a_macro_average_has_no_mcnemar() -> None:
    data = outcomes([1, 0, 1])
    macro = Outcomes(data.units, data.names, data.right, data.counted * 2, {})
    (section,) = sections.paired_tests([run("A", svo=macro), run("B", svo=macro)])
    assert section.tables[0][1][1][-1] == ""


def test_every_figure_has_its_interval_and_every_task_its_protocol() -> None:
    section = sections.every_figure([FIRST])
    (_, protocols), (_, figures) = section.tables
    head, *lines = protocols
    assert [line[:2] for line in lines] == [["A", "svo"], ["A", "vsr"]]
    told = dict(zip(head[2:], lines[0][2:], strict=True))
    assert (told["rule"], told["k"], told["max_words"], told["split"]) == ("a rule", "7", "40", "")
    x = FIRST.intervals["svo"]["overall"]
    assert figures[1] == ["A", "svo", "overall", "50.00", f"{x.low:.2f}-{x.high:.2f}"]
    assert section.folded


def test_figures_are_lines_of_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(sections.figures_csv([FIRST, SECOND]))))
    assert [(r["model"], r["task"]) for r in rows] == [
        ("A", "svo"),
        ("A", "vsr"),
        ("B", "svo"),
        ("B", "valse"),
    ]
    assert rows[0]["low95"] == f"{FIRST.intervals['svo']['overall'].low:.2f}" and rows[0]["n_pairs"] == "8"
    assert sections.figures_csv([]) == ""


def history(*titles: str) -> History:
    cells = [{t: Cell(v + i, None, 50.0, 9) for i, t in enumerate(titles)} for v in (10.0, 20.0)]
    return History("R", (10, 20), tuple(cells), ())


@pytest.fixture()
def plotted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The names of the plots that are asked for; none is drawn."""
    names: list[Path] = []
    for plot in ("plot_dynamics", "plot_matrix", "plot_pareto"):
        monkeypatch.setattr(sections, plot, lambda histories, path: names.append(path) or path)
    return names


def test_coarse_and_fine_figures_make_a_front(plotted: list[Path], tmp_path: Path) -> None:
    found = sections.checkpoints([history("VALSE", "COCO TR@1")], tmp_path)
    assert [s.title for s in found] == [
        "Learning dynamics",
        "Choosing a checkpoint of R",
        "Coarse against fine-grained",
    ]
    assert "over 2 checkpoints" in found[1].note
    assert [p.relative_to(tmp_path).as_posix() for p in plotted] == [
        "dynamics.png",
        "R/selection.png",
        "pareto.png",
    ]
    assert found[2].tables[0][0] == "R" and found[2].tables[0][1][1][0] == "20"


def test_without_coarse_figures_there_is_no_front(plotted: list[Path], tmp_path: Path) -> None:
    found = sections.checkpoints([history("VALSE", "SVO")], tmp_path)
    assert [s.title for s in found] == ["Learning dynamics", "Choosing a checkpoint of R"]
    assert len(plotted) == 2


def test_a_run_without_coarse_figures_hides_no_others_front(plotted: list[Path], tmp_path: Path) -> None:
    found = sections.checkpoints([history("VALSE", "SVO"), history("VALSE", "COCO TR@1")], tmp_path)
    assert found[-1].title == "Coarse against fine-grained" and len(found[-1].tables) == 1
