"""The report's files, what its tables say, and its page in a real browser."""

import argparse
import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.chromium import ABSENT, CHROMIUM, rendered

from relvlm.errors import UserError
from relvlm.evals.checkpoints.every import RESULTS, checkpoints_of, evaluate_checkpoints
from relvlm.evals.evaluate import evaluate_suite, rescore, suite_sources
from relvlm.evals.reporting import report_cli
from relvlm.evals.reporting.report import report
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tasks.task import Selection

COLUMNS = ("VSR dev", "VALSE", "SVO", "Paragraphs TR@1", "Paragraphs IR@5", "COCO TR@1", "SugarCrepe")
LOG = "step,dataset,lr,captions/itc,vsg/itc,mrc/mrc\n1,a,.1,4,,\n2,b,.1,,3,\n3,c,.1,,,5\n4,a,.1,3,,\n"
FILES = {"report.html", "report.md", "report.tex", "table.md", "figures.csv"}
RELATIONS = {"relations_vsr.png", "relations_svo.png"}


@pytest.fixture()
def runs(suite: Path, tmp_path: Path, checkpoint: Callable[..., Path], model) -> list[Path]:
    """Two runs: one with three evaluated checkpoints and a log, one with an evaluation only."""
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, step in enumerate((10, 20, 30)):
        checkpoint(first / "checkpoints", step, seed)
    sources = suite_sources(suite, Selection(), dev=True)
    evaluate_checkpoints(checkpoints_of(first), sources, first / RESULTS, ScoreOptions())
    evaluate_suite(model, model.tokenizer, suite, first / "eval")
    evaluate_suite(model, model.tokenizer, suite, second / "eval")
    (first / "metrics.csv").write_text(LOG)
    return [first, second]


def test_one_run_without_checkpoints(runs: list[Path], tmp_path: Path) -> None:
    written = report(runs[1:], tmp_path / "report")
    assert all(column in written.table for column in COLUMNS)
    names = [line.split("|")[1].strip() for line in written.table.splitlines()[2:]]
    assert names == ["**second**", "95% interval", "chance", "n"]
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES | RELATIONS


def test_figures_that_eval_score_printed_are_reported_beside_their_scores(runs: list[Path], tmp_path: Path) -> None:
    """Another program's scores have no protocol of ours, and nothing says where their photos lie."""
    theirs = tmp_path / "theirs/eval/vsr"
    theirs.mkdir(parents=True)
    shutil.copy(runs[1] / "eval/vsr/scores.jsonl", theirs)
    (theirs / "metrics.json").write_text(json.dumps(rescore("vsr", theirs / "scores.jsonl")))
    report([runs[1], tmp_path / "theirs"], tmp_path / "report")
    with (tmp_path / "report/figures.csv").open() as file:
        rows = {row["figure"]: row for row in csv.DictReader(file) if row["model"] == "theirs"}
    assert rows["dev/overall"]["rule"].startswith("right if") and rows["dev/overall"]["dtype"] == ""
    assert "theirs against second" in (tmp_path / "report/report.md").read_text()


def test_two_runs_one_with_checkpoints_and_log(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    written = report(runs, out, ["A", "the other"])
    plots = {"dynamics.png", "pareto.png"} | RELATIONS
    assert {path.name for path in out.iterdir()} == FILES | plots | {"A"}
    assert {path.name for path in (out / "A").iterdir()} == {"selection.png", "itc.png", "mrc.png", "lr.png"}
    assert set(written.files) == {path for path in out.rglob("*") if path.is_file()}
    text = (out / "report.md").read_text()
    titles = re.findall("^## (.*)", text, re.M)
    wanted = ["Results", "Learning dynamics", "Choosing a checkpoint of A", "Coarse against fine-grained"]
    assert titles == [*wanted, "Accuracy by relation", "the other against A", "Every figure", "Losses of A"]
    assert "A, best by COCO TR@1" in text
    for plot in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (out / plot).is_file()


def test_every_figure_has_an_interval_and_its_protocol(runs: list[Path], tmp_path: Path) -> None:
    report(runs[1:], tmp_path / "report")
    with (tmp_path / "report/figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == {"vsr", "valse", "svo", "sugarcrepe", "paragraphs", "coco"}
    for row in rows:
        assert float(row["low95"]) <= float(row["value"]) <= float(row["high95"]), row
        assert row["rule"] and row["max_words"] == "40" and row["images_missing"] == "0"
    assert {row["k"] for row in rows if row["task"] == "coco"} == {"256"}


def test_paired_tests_of_a_model_with_itself_find_nothing(runs: list[Path], tmp_path: Path) -> None:
    report([runs[0], runs[1]], tmp_path / "report")
    section = (tmp_path / "report/report.md").read_text().partition("## second against first")[2]
    rows = [line.split("|") for line in section.partition("## ")[0].splitlines() if line.startswith("| vsr")]
    assert rows and all((row[5].strip(), row[7].strip()) == ("+0.0", "1") for row in rows)


def test_a_run_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither"):
        report([tmp_path], tmp_path / "report")
    with pytest.raises(UserError, match="--names"):
        report([tmp_path, tmp_path], tmp_path / "report")


def test_the_page_needs_no_other_file_and_no_text_ends_its_script(runs: list[Path], tmp_path: Path) -> None:
    scores = runs[1] / "eval/vsr/scores.jsonl"
    scores.write_text(scores.read_text().replace("a box 3", "</script><b>a box 3"))
    report(runs[1:], tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)
    assert "</script><b>" not in page


@pytest.mark.parametrize("name", ["/abs/run", "../run", " "])
def test_a_name_that_leads_out_of_the_report_is_refused(tmp_path: Path, name: str) -> None:
    """A run's plots lie in the folder of its name."""
    with pytest.raises(UserError, match=f"--names: '{name}': no name for a row"):
        report([tmp_path], tmp_path / "report", [name])


def test_a_report_in_the_place_of_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    parser = argparse.ArgumentParser()
    report_cli.add_arguments(parser)
    with pytest.raises(UserError, match=r"--out: .*report is a file"):
        report_cli.main(parser.parse_args([str(tmp_path), "--out", str(tmp_path / "report")]))


def dom(page: Path, state: str, profile: Path) -> str:
    """The page's elements after its script has run."""
    shown, console = rendered(f"file://{page}#{state}", profile)
    assert console == []
    return shown.partition('<section id="browser">')[2].partition("</section>")[0]


@pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)
@pytest.mark.slow
def test_the_error_browser_filters_in_a_real_browser(runs: list[Path], tmp_path: Path) -> None:
    report(runs[1:], tmp_path / "report", per_side=0)
    page = tmp_path / "report/report.html"
    rows = [json.loads(line) for line in (runs[1] / "eval/vsr/scores.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if (row["score"] >= 0.5) != (row["label"] == 1)]
    shown = dom(page, "task=vsr&outcome=wrong", tmp_path / "a")
    assert shown.count('<figure class="wrong">') == len(wrong) > 0
    assert '<figure class="right">' not in shown
    assert f"{len(wrong)} examples, 0 right, {len(wrong)} wrong" in shown
    assert shown.count('<img src="data:image/jpeg;base64,') == len(wrong)
    assert f"{wrong[0]['score']:.3f}" in shown
    searched = dom(page, "task=svo&piece=verb&text=dog", tmp_path / "b")
    assert searched.count("<figure") == 6 and searched.count("<img") == 12
    assert '<option value="verb">verb</option>' in searched
