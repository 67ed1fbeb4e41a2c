"""YAML to dataclasses: what is wrong is named with file and field."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from relvlm.config.load import load_config
from relvlm.config.tree import apply_override, build, read_tree
from relvlm.errors import UserError


@dataclass(frozen=True)
class Round:
    kind: Literal["circle", "ellipse"] = "circle"
    radius: float = 1.0


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    side: int = 1


@dataclass(frozen=True)
class Drawing:
    name: str
    shape: Round | Square = field(default_factory=Round)
    more: list[Square] = field(default_factory=list)
    author: str | None = None
    scale: float | None = None


def drawing(**tree: Any) -> Drawing:
    return build(Drawing, {"name": "x", **tree}, "file", "drawing")


def refused(**tree: Any) -> str:
    with pytest.raises(UserError) as caught:
        drawing(**tree)
    return str(caught.value).removeprefix("file: drawing.")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vison.width=3", "model.vison: unknown key (did you mean 'vision'?)"),
        ("stepps=3", "stepps: unknown key (did you mean 'steps'?)"),
        (
            "data.captions=[{path: a, weights: 2}]",
            "data.captions[0].weights: unknown key (did you mean 'weight'?)",
        ),
        ("data.captions=[{path: a}, {weight: 2}]", "data.captions[1].path: missing"),
        ("optim.zzz=3", "optim.zzz: unknown key (known: lr, betas,"),
        ("steps=1.5", "steps: expected int, found 1.5"),
        ("steps=true", "steps: expected int, found True"),
        ("steps=", "steps: expected int, found None"),
        ("steps=''", "steps: expected int, found ''"),
        ("checkpoint.resume=1", "checkpoint.resume: expected bool, found 1"),
        ("optim.lr=fast", "optim.lr: expected float, found 'fast'"),
        ("optim.lr=true", "optim.lr: expected float, found True"),
        ("name=3", "name: expected str, found 3"),
        ("optim.betas=0.9", "optim.betas: expected a list, found 0.9"),
        ("optim.betas=[0.9, x]", "optim.betas[1]: expected float, found 'x'"),
        ("model.vision=swin", "model.vision: expected a section, found 'swin'"),
        ("init=chance", "init: expected a section, found 'chance'"),
        ("model.vision.kind=resnet", "model.vision.kind: 'resnet' is none of 'vit', 'clip_vit', 'swin'"),
        ("model.vision={kind: swin, layers: 2}", "model.vision.layers: unknown key"),
        ("model.vision.depths=[2]", "model.vision.depths: unknown key"),
        ("dtype=fp16", "dtype: 'fp16' is none of 'fp32', 'bf16'"),
        ("data.vocab=3", "data.vocab: expected str, found 3"),
    ],
)
def test_a_wrong_key_or_type_is_named(refusal, override, message):
    assert refusal(override).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "steps: an override reads dotted.key=value"),
        ("data.captions=[{path: x}", "data.captions=[{path: x}: not a YAML value"),
        (
            "data.captions.path=x",
            "data.captions.path=x: captions is a value, not a section (set it as a whole: data.captions=...)",
        ),
    ],
)
def test_an_override_that_cannot_be_read_is_named(override, message):
    with pytest.raises(UserError) as caught:
        apply_override({"data": {"captions": []}}, override)
    assert str(caught.value).startswith(message)


def test_an_override_makes_the_sections_that_it_needs():
    tree: dict[str, Any] = {"a": 1}
    apply_override(tree, "b.c.d=[1, 2]")
    apply_override(tree, "b.e=")
    assert tree == {"a": 1, "b": {"c": {"d": [1, 2]}, "e": None}}


def test_a_file_holds_what_differs_from_its_base(file, tmp_path):
    child = tmp_path / "deeper" / "child.yaml"
    child.parent.mkdir()
    child.write_text("base: ../run.yaml\ndata: {batch: {captions: 9}, captions: [{path: other}]}\n")
    config = load_config(child)
    assert config.data.batch.captions == 9 and config.data.ratio.captions == 1
    assert [d.path for d in config.data.captions] == ["other"]
    assert not config.model.relations


def test_a_base_may_have_a_base(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\ny: {v: 1, w: 1}\nz: 1\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ny: {w: 2}\nz: 2\n")
    (tmp_path / "c.yaml").write_text("base: b.yaml\nz: 3\ny: {u: 3}\n")
    assert read_tree(tmp_path / "c.yaml") == {"x": 1, "y": {"v": 1, "w": 2, "u": 3}, "z": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: gone.yaml\n", "gone.yaml: no such config file"),
        ("base: run.yaml\n", "run.yaml: base: leads back to this file"),
        ("base: [run.yaml]\n", "run.yaml: base: expected a file name, found ['run.yaml']"),
        ("[1, 2]", "run.yaml: expected sections, found [1, 2]"),
        ("just words", "run.yaml: expected sections, found 'just words'"),
        ("model: [", "run.yaml: not YAML: "),
    ],
)
def test_a_file_that_is_no_config_is_named(file, text, message):
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_tree(file)
    assert str(caught.value).startswith(f"{file.parent}/{message}")


def test_a_circle_of_bases_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(UserError, match=r"a\.yaml: base: leads back to this file"):
        read_tree(tmp_path / "a.yaml")


def test_a_file_that_is_no_text_is_named(file):
    for content in (b"\xff\xfe\x00\xd8", b"name: \xe9\n", b"[" * 5000):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"run\.yaml: not YAML: "):
            read_tree(file)


def test_a_base_may_be_named_by_a_variable(file, monkeypatch, tmp_path):
    monkeypatch.setenv("RECIPES", str(file.parent))
    child = tmp_path / "child.yaml"
    child.write_text("base: $RECIPES/run.yaml\nsteps: 3\n")
    assert load_config(child).steps == 3
    monkeypatch.delenv("RECIPES")
    with pytest.raises(UserError, match=r"child\.yaml: base: .*RECIPES is not set"):
        load_config(child)


@pytest.mark.parametrize(
    "pair",
    [
        ("steps=7", "steps=8"),
        ("data.batch.vsg=9", "data.batch={captions: 8}"),
        ("optim.lr=1", "optim={}"),
    ],
)
def test_an_override_that_a_later_one_undoes_is_told(file, caplog, pair):
    load_config(file, list(pair))
    assert f"{pair[0]} is overruled by {pair[1]}, which comes later" in caplog.text


def test_an_override_within_an_earlier_ones_section_undoes_nothing(file, caplog):
    load_config(file, ["data.batch={captions: 8}", "data.batch.vsg=9", "steps=3"])
    assert not caplog.text


@pytest.mark.parametrize("override", ["=3", ".steps=3", "data..flip=1", "data.=1"])
def test_an_override_without_a_key_is_named(file, override):
    with pytest.raises(UserError, match=r"an override reads dotted\.key=value"):
        load_config(file, [override])


def test_an_empty_file_is_an_empty_tree(file):
    file.write_text("")
    assert read_tree(file) == {}


def test_a_section_of_several_is_chosen_by_its_kind():
    assert drawing(shape={"kind": "square", "side": 3}).shape == Square(side=3)
    assert drawing(shape={"kind": "ellipse"}).shape == Round(kind="ellipse")
    assert drawing(shape={"radius": 2}).shape == Round(radius=2.0)


def test_a_section_of_several_has_the_keys_of_its_kind_alone():
    assert refused(shape={"kind": "square", "radius": 3}) == "shape.radius: unknown key (known: kind, side)"
    assert refused(shape={"side": 3}).startswith("shape.side: unknown key")
    assert refused(shape={"kind": "cube"}) == "shape.kind: 'cube' is none of 'circle', 'ellipse', 'square'"
    assert refused(shape=3) == "shape: expected a section, found 3"


def test_what_may_be_absent_is_a_value_or_nothing():
    assert drawing(author=None).author is None and drawing(author="Y").author == "Y"
    scale = drawing(scale=2).scale
    assert scale == 2.0 and type(scale) is float
    assert refused(author=3) == "author: expected str, found 3"


def test_what_has_no_default_must_be_there():
    with pytest.raises(UserError, match=r"^file: name: missing$"):
        build(Drawing, {}, "file", "")


def test_entries_of_a_list_are_numbered_in_errors():
    assert drawing(more=[{"side": 2}, {}]).more == [Square(side=2), Square()]
    assert refused(more=[{}, {"side": "x"}]) == "more[1].side: expected int, found 'x'"


@pytest.mark.parametrize("value", ["1e-4", 1e-4])
def test_a_float_may_be_written_with_an_exponent(value):
    assert drawing(scale=value).scale == 1e-4


def test_a_top_level_that_is_no_section_is_named():
    with pytest.raises(UserError, match=r"^file: top level: expected a section, found 3$"):
        build(Drawing, 3, "file", "")
