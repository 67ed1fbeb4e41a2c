"""Published figures: the built-in file, another of the same form, and the table beside one's own."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from relvlm.errors import UserError
from relvlm.evals.figures.bootstrap import Interval
from relvlm.evals.reporting import report_cli
from relvlm.evals.reporting.reference import BUILTIN, PARTS, beside_published, read_reference
from relvlm.evals.reporting.report import report


def run(name: str, **tasks: dict[str, float]) -> SimpleNamespace:
    found = {task: {f: Interval(v, v, v) for f, v in figures.items()} for task, figures in tasks.items()}
    return SimpleNamespace(name=name, intervals=found)


def written(tmp_path: Path, content: object) -> Path:
    (tmp_path / "published.json").write_text(json.dumps(content))
    return tmp_path / "published.json"


def test_built_in_figures_each_have_a_source_and_a_place() -> None:
    found = read_reference(BUILTIN)
    assert all(len(each.source) > 20 and each.rows for each in found.values())
    assert found["whatsup"].rows["X-VLM 16M"]["A sets"] == 1.9
    assert found["valse"].rows["ReX-VLM 13M"] == {"overall": 73.3}
    assert found["paragraphs"].rows["ReX-VLM 13M"] == {"TR@1": 89.3, "TR@5": 98.0, "IR@1": 88.8, "IR@5": 97.7}
    assert found["sugarcrepe_pp"].rows["NegCLIP"] == {"ITT replace, cosine": 70.5, "ITT swap, cosine": 56.4}


def test_the_shared_file_is_of_the_same_form_and_says_the_same(shared: Path) -> None:
    found, builtin = read_reference(shared / "reference/published.json"), read_reference(BUILTIN)
    assert found["aro_order"].rows == {}
    for name in ("whatsup", "sugarcrepe_pp", "vl_checklist", "cola"):
        assert found[name].rows == builtin[name].rows


def test_built_in_figures_of_the_paper_are_the_papers(shared: Path) -> None:
    paper = json.loads((shared / "reference/paper_tables.json").read_text())["table2_fixed"]
    found = read_reference(BUILTIN)
    for name, row in paper.items():
        title = name.replace("REALBEF", "ReALBEF").replace("REX-VLM", "ReX-VLM").replace("_", " ")
        assert found["valse"].rows[title]["overall"] == row["valse"]
        assert found["svo"].rows[title]["overall"] == row["svo"]
        if row["vsr_dev_test"]:
            assert list(found["vsr"].rows[title].values()) == row["vsr_dev_test"]


def test_ones_own_rows_stand_under_the_published_ones() -> None:
    ours = run(
        "mine", whatsup={"A": 61.23, "pairs/A": 40, "average": 58, "overall": 1, "micro": 3}, cola={"overall": 44}
    )
    (section,) = beside_published([ours, run("other", cola={"overall": 30})], read_reference(BUILTIN))
    (caption, lines), (_, cola) = section.tables
    assert caption.startswith("whatsup (Kamath") and section.title == "Beside published figures"
    assert lines[0][:4] == ["", "A", "A pairs", "A sets"]
    assert next(line for line in lines if line[0] == "X-VLM 16M")[1:4] == ["50.7", "31.1", "1.9"]
    assert lines[-1][:4] == ["**mine**", "**61.2**", "**40.0**", ""]
    assert lines[-1][lines[0].index("average") :] == ["**58.0**", ""]  # what is of all photos is the others'
    assert [line[0] for line in cola] == ["", "HiMo-CLIP", "**mine**", "**other**"]


def test_whatsup_is_compared_in_the_published_way_where_the_model_has_it() -> None:
    found = {"A": 40.0, "logit_and_cosine/A": 44.0, "pairs/A": 20.0}
    (section,) = beside_published([run("mine", whatsup=found)], read_reference(BUILTIN))
    assert section.tables[0][1][-1][:3] == ["**mine**", "**44.0**", "**20.0**"]


def test_what_nobody_scored_is_not_shown() -> None:
    assert beside_published([run("mine", vsr={})], {}) == []
    assert beside_published([run("mine", winoground={"overall": 1})], read_reference(BUILTIN)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"vqa": {"source": "x"}}, "vqa: not a benchmark with a place here"),
        ({"cola": {"CLIP": 3}}, "cola: source: absent"),
        ({"cola": {"source": "x", "CLIP": {"A": 3}}}, "cola: CLIP: A: expected figures without parts"),
        ({"cola": {"source": "x", "CLIP": [1, 2]}}, "cola: CLIP: .*2 figures, there are 1"),
        ({"cola": {"source": "x", "CLIP": 100.1}}, "overall: 100.1 is no figure in percent"),
        ({"cola": {"source": "x", "CLIP": "high"}}, "'high' is no figure in percent"),
        ({"whatsup": {"source": "x", "CLIP": 3}}, "CLIP: a row without parts: expected A, B, COCO"),
        ({"aro_order": {"source": "x", "CLIP": 3}}, "expected no rows"),
        ([], "expected one object"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_written(tmp_path: Path, content: object, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=rf"published\.json: {message}|published\.json: .*{message}"):
        report([tmp_path], tmp_path / "out", reference=path)
    assert not (tmp_path / "out").exists()


def test_the_flag_alone_takes_the_built_in_figures(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    report_cli.add_arguments(parser)
    assert parser.parse_args(["run"]).reference is None
    assert parser.parse_args(["run", "--reference"]).reference == BUILTIN
    assert parser.parse_args(["run", "--reference", "f.json"]).reference == Path("f.json")
    with pytest.raises(UserError, match=r"--reference: .* is a folder \(give a file, or name the runs before"):
        report_cli.main(parser.parse_args(["run", "--reference", str(tmp_path)]))


def test_every_part_has_titles_of_its_own() -> None:
    for parts in PARTS.values():
        titles = [title for part in parts.values() for title, _ in part]
        assert len(set(titles)) == len(titles)
