"""A model card: metadata that the Hub reads, and what is known of data, recipe, figures and limits."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from relvlm.config.load import to_tree
from relvlm.config.schema import Config
from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Cell, ModelRows
from relvlm.evals.reporting.card import Facts, card, datasets, run_config

DATA = {"captions": [{"path": "/home/me/coco"}, {"path": "/home/me/cc3m"}], "graphs": [{"path": "/home/me/coco"}]}
CELLS = {
    "COCO TR@1": Cell(43.5, (37.0, 49.5), 0.5, 200, "TR@1", "coco"),
    "VSR test": Cell(94.94, (93.5, 96.2), 50.0, 1000, "overall", "vsr"),
}
FIGURES = {
    "vsr": {"task": "vsr", "rule": "threshold .5", "texts_cut": 3, "images_missing": 0},
    "coco": {"task": "coco", "rule": "k nearest", "images_missing": 2, "protocol": {"limit": 200}},
}


def facts(cells=CELLS, results=FIGURES, run=None, **description) -> Facts:
    model = {"image_size": 32, "vision": {"kind": "vit"}, "localisation": True, "relations": True}
    whole = {"name": "mini", "step": 3400, "model": model, "relations": ["on", "left of"], "data": DATA} | description
    return Facts("me/mini", "apache-2.0", whole, run or {}, 301151, results, ModelRows("", cells))


def part(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_hub_reads_its_metadata():
    read = ModelCard(card(facts()))
    assert (read.data.license, read.data.language, read.data.library_name) == ("apache-2.0", ["en"], "relvlm")
    assert read.data.datasets == ["coco", "cc3m"] and read.data.metrics == ["accuracy", "recall"]
    assert {"relvlm", "rex-vlm"} <= set(read.data.tags)
    found = {(r.dataset_name, r.metric_type, r.metric_name, r.metric_value) for r in read.data.eval_results}
    assert found == {("VSR test", "accuracy", "overall", 94.94), ("COCO TR@1", "recall", "TR@1", 43.5)}
    assert read.data.model_name == "mini"


def test_figures_stand_with_interval_chance_and_protocol():
    results = part(card(facts()), "Results")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in results.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        ["VSR test", "94.9", "93.5-96.2", "50.0", "1000"],
        ["COCO TR@1", "43.5", "37.0-49.5", "0.5", "200"],
    ]
    assert "- vsr: threshold .5" in results and "- coco: k nearest" in results


def test_generated_files_are_not_taken_for_the_benchmark(tmp_path):
    (tmp_path / "world.json").touch()
    theirs = {"protocol": {"annotations": str(tmp_path / "benchmarks/vsr")}}
    text = card(facts(results=FIGURES | {"vsr": FIGURES["vsr"] | theirs}))
    assert {each.dataset_name for each in ModelCard(text).data.eval_results} == {"VSR test (RelWorld)", "COCO TR@1"}
    assert "| VSR test (RelWorld) |" in text and "| VSR test  " not in text


def test_what_an_evaluation_left_out_is_a_limit():
    limits = part(card(facts()), "Limits")
    assert "- coco: only the first 200 examples of each file were scored." in limits
    assert "- coco: 2 images were missing; the figures are those of the rest." in limits
    assert "- vsr: 3 texts were longer than the model takes, and cut." in limits
    assert "vsr: 0" not in limits and "relation head" in limits and "32 pixels" in limits


def test_a_model_without_evaluation_says_so():
    text = card(facts({}, {}))
    assert part(text, "Results").strip() == "Not evaluated."
    assert "No figure of it is known" in part(text, "Limits")
    assert ModelCard(text).data.eval_results is None


@pytest.mark.parametrize(
    ("switches", "method"),
    [((False, False), "albef"), ((True, False), "x-vlm"), ((False, True), "realbef"), ((True, True), "rex-vlm")],
)
def test_the_method_is_told_by_two_switches(switches, method):
    model = {"image_size": 32, **dict(zip(("localisation", "relations"), switches, strict=True))}
    assert method in ModelCard(card(facts(model=model))).data.tags


def test_a_converted_checkpoint_says_of_what_and_what_is_at_random():
    official = {"family": "albef", "dtype": "float32", "sha256": "ab12", "new": ["mlm_head.bias"]}
    text = card(facts({}, {}, official=official, step=0, relations=[]))
    assert "Converted from an official albef checkpoint (SHA-256 ab12)." in text
    assert "at random: mlm_head.bias" in part(text, "Limits") and "relation head" not in text
    assert "Not known from this checkpoint." in part(text, "Recipe")


def test_the_recipe_is_the_runs(tmp_path):
    tree = to_tree(Config(steps=3400, seed=7)) | {
        "init": {"vision": "/home/me/vit", "text": "random", "checkpoint": None}
    }
    tree["data"] |= {"ratio": {"captions": 1.5, "vsg": 3.0, "mrc": 0.0}, "batch": {"captions": 64, "vsg": 32, "mrc": 8}}
    (tmp_path / "run.json").write_text(json.dumps({"config": tree, "inputs": {}}))
    recipe = part(card(facts(run=run_config(tmp_path))), "Recipe")
    for said in ("3,400", "vision vit, text random", "captions 64, vsg 32", "captions 1.5, vsg 3.0", "lr 0.0001"):
        assert said in recipe
    assert "/home/me" not in recipe and "mrc" not in recipe


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    assert run_config(tmp_path) == {}
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UserError, match=r"run\.json: not readable"):
        run_config(tmp_path)


def test_a_data_set_is_named_by_its_source_where_its_manifest_is_there(relworld: Path):
    here = {"captions": [{"path": str(relworld / "captions")}, {"path": "/gone/cc3m"}]}
    (section, name, records), gone = datasets(here)
    assert (section, name) == ("captions", "relworld") and int(records.replace(",", "")) > 100
    assert gone == ("captions", "cc3m", "")
