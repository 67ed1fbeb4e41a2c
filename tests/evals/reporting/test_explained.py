"""Pages on a run's worst errors: which errors, by which weights, and where they are linked from."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.chromium import ABSENT, CHROMIUM, rendered

import relvlm
from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate, evaluate_suite
from relvlm.evals.reporting.explained import worst
from relvlm.evals.reporting.report import report
from relvlm.evals.tasks.task import Card, Selection


def card(right: bool, *scores: float) -> Card:
    return Card(("a",), tuple(("kind:", f"text {i}", score) for i, score in enumerate(scores)), right, "piece")


def test_the_worst_are_the_wrong_ones_that_are_furthest_off() -> None:
    near, far, single = card(False, 0.4, 0.5), card(False, 0.1, 0.9), card(False, 0.95)
    right = card(True, 0.0, 1.0)
    assert worst([near, right, single, far], 9) == [far, single, near]
    assert worst([near, right, single, far], 2) == [far, single]
    assert worst([near, near], 2) == [near]


@pytest.fixture()
def run(suite: Path, tmp_path: Path, checkpoint: Callable[..., Path]) -> Path:
    """Two checkpoints, the older of which is evaluated."""
    made = [checkpoint(tmp_path / "run/checkpoints", step, step) for step in (10, 20)]
    model = relvlm.load(made[0])
    evaluate_suite(model, model.tokenizer, suite, tmp_path / "run/eval")
    return tmp_path / "run"


def examples(page: Path) -> list[dict]:
    return json.loads(re.findall(r"id=examples>(.*?)</script>", page.read_text())[0])["examples"]


def test_each_task_has_pages_that_the_report_links(run: Path, tmp_path: Path) -> None:
    written = report([run], tmp_path / "report", per_side=2, explain=2)
    found = examples(tmp_path / "report/report.html")
    linked = [example["page"] for example in found if "page" in example]
    assert linked and all(not example["right"] for example in found if "page" in example)
    assert set(linked) == {
        str(path.relative_to(tmp_path / "report")) for path in (tmp_path / "report/explain").rglob("*.html")
    }
    assert {tmp_path / "report" / page for page in linked} <= set(written.files)
    folders = [Path(page).parent.name for page in set(linked)]
    assert {folder: folders.count(folder) for folder in ("vsr", "svo")} == {"vsr": 2, "svo": 2}
    for example in found:
        if "page" in example:
            page = (tmp_path / "report" / example["page"]).read_text()
            assert example["lines"][0][1] in page and "Word by word" in page


def test_boxes_and_relations_are_shown_where_the_annotation_names_the_triplet(run: Path, tmp_path: Path) -> None:
    report([run], tmp_path / "report", explain=1)
    for task, shown in (("svo", True), ("vsr", False)):
        page = (tmp_path / f"report/explain/run/{task}/001.html").read_text()
        assert ("<table class=bars>" in page) == shown and ("Swapped" in page) == shown


def test_a_dev_split_has_pages_of_its_own_whatever_its_folder_is_called(run: Path, tmp_path: Path, suite: Path) -> None:
    """Test and dev in folders of one name."""
    model = relvlm.load(run / "checkpoints/step_0000010")
    coco = json.loads((suite / "coco/karpathy.json").read_text())
    dev = [{**image, "split": "val"} for image in coco["images"][:6]]
    (tmp_path / "dev.json").write_text(json.dumps(coco | {"images": dev}))
    where = (tmp_path / "dev.json", suite / "images", run / "eval/dev/coco")
    evaluate(model, model.tokenizer, "coco", *where, selection=Selection(split="val"))
    report([run], tmp_path / "report", explain=1)
    linked = [example["page"] for example in examples(tmp_path / "report/report.html") if "page" in example]
    assert {"explain/run/coco/001.html", "explain/run/coco_dev/001.html"} <= set(linked)


def test_weights_that_were_not_evaluated_are_refused(run: Path, tmp_path: Path, suite: Path, model) -> None:
    evaluate(model, model.tokenizer, "vsr", suite / "vsr", suite / "images", tmp_path / "other/eval/vsr")
    with pytest.raises(UserError, match=r"--explain: .*other: no checkpoint in it"):
        report([tmp_path / "other"], tmp_path / "report", explain=1)
    (run / "checkpoints").rename(tmp_path / "other/checkpoints")
    with pytest.raises(UserError, match="none of 2 checkpoints has the weights that were evaluated"):
        report([tmp_path / "other"], tmp_path / "report", explain=1)


def test_an_error_whose_photo_is_gone_has_no_page(run: Path, tmp_path: Path, suite: Path) -> None:
    for photo in (suite / "images").iterdir():
        photo.unlink()
    report([run], tmp_path / "report", explain=1)
    assert not any("page" in example for example in examples(tmp_path / "report/report.html"))


@pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)
@pytest.mark.slow
def test_a_real_browser_offers_them(run: Path, tmp_path: Path) -> None:
    report([run], tmp_path / "report", per_side=2, explain=1)
    shown, console = rendered(f"file://{tmp_path}/report/report.html#task=svo&outcome=wrong", tmp_path / "profile")
    assert console == [] and shown.count("<summary>where it looks</summary>") == 1
