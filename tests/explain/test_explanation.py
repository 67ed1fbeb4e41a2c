"""What is shown of each family of models, of captions and of triplets."""

from pathlib import Path

import pytest
import torch
from support.readers import ALBEF, REALBEF, RELATIONS, SWIN, VIT, XVLM, noise, reader

from relvlm.config.schema import ModelConfig
from relvlm.evals.scoring.scorer import Scorer
from relvlm.explain.explanation import explain
from relvlm.explain.query import read_query

TRIPLET = read_query("man; riding; red horse")
CAPTION = read_query("a man on a horse")
BOXES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
def test_a_triplet_has_match_heat_boxes_and_relations_both_ways(tmp_path: Path, config: ModelConfig) -> None:
    found = explain(reader(tmp_path, config), noise(0), TRIPLET)
    assert found.swapped is not None and found.swapped.query.text == "red horse riding man"
    assert [(e.role, e.label, e.given) for e in found.entities] == [
        ("subject", "man", None),
        ("object", "red horse", None),
    ]
    assert all(e.predicted and e.heat_N.shape == (16,) for e in found.entities)
    for reply in (found.reply, found.swapped):
        assert sorted(bar.name for bar in reply.relations) == RELATIONS
        assert sum(bar.mrc for bar in reply.relations) == pytest.approx(1, abs=1e-5)
        assert [b.mrc for b in reply.relations] == sorted((b.mrc for b in reply.relations), reverse=True)
    assert not found.notes


def test_probabilities_are_those_of_evaluation(tmp_path: Path) -> None:
    model, path = reader(tmp_path), tmp_path / "p.png"
    noise(0).save(path)
    found = explain(model, noise(0), TRIPLET)
    texts = ["man riding red horse", "red horse riding man", "man on red horse"]
    expected = Scorer(model, model.tokenizer).probabilities([path] * 3, texts).tolist()
    assert found.swapped is not None
    bars = {bar.name: bar.caption for bar in found.reply.relations}
    shown = [found.reply.heat.probability, found.swapped.heat.probability, bars["on"]]
    assert shown == pytest.approx(expected, abs=1e-5)
    assert bars["riding"] == pytest.approx(expected[0], abs=1e-5)


def test_entities_have_the_heat_of_their_labels_alone(tmp_path: Path) -> None:
    model = reader(tmp_path)
    for entity in explain(model, noise(0), TRIPLET).entities:
        alone = explain(model, noise(0), read_query(entity.label))
        torch.testing.assert_close(entity.heat_N, alone.reply.heat.whole_N)


def test_given_boxes_stand_in_for_predicted_ones(tmp_path: Path) -> None:
    model = reader(tmp_path)
    predicted, given = explain(model, noise(0), TRIPLET), explain(model, noise(0), TRIPLET, BOXES)
    assert [e.box for e in given.entities] == list(BOXES)
    assert [e.predicted for e in given.entities] == [e.predicted for e in predicted.entities]
    assert given.reply.relations != predicted.reply.relations
    half = explain(model, noise(0), TRIPLET, (BOXES[0], None))
    assert [e.box for e in half.entities] == [BOXES[0], half.entities[1].predicted]


def test_a_caption_has_one_box_and_no_relations(tmp_path: Path) -> None:
    found = explain(reader(tmp_path), noise(0), CAPTION)
    assert (found.swapped, found.entities, found.reply.relations) == (None, (), ())
    assert found.caption_box is not None
    assert "ask for 'subject; relation; object'" in found.notes[0]


def test_a_relation_that_mrc_does_not_know_is_only_noted(tmp_path: Path) -> None:
    found = explain(reader(tmp_path), noise(0), read_query("man; and; horse"))
    assert found.notes == ("'and' is none of the 3 relations that MRC knows; the sentence is read all the same.",)
    assert "and" not in [bar.name for bar in found.reply.relations]


@pytest.mark.parametrize(
    ("config", "boxes", "relations", "said"),
    [
        (ALBEF, False, False, ["no box head", "no relation head"]),
        (XVLM, True, False, ["no relation head"]),
        (REALBEF, False, False, ["no box head", "give --subject-box and --object-box"]),
    ],
    ids=["albef", "x-vlm", "realbef"],
)
def test_other_families_show_what_they_have_and_say_what_is_missing(
    tmp_path: Path, config: ModelConfig, boxes: bool, relations: bool, said: list[str]
) -> None:
    found = explain(reader(tmp_path, config), noise(0), TRIPLET)
    assert [bool(e.predicted) for e in found.entities] == [boxes, boxes]
    assert bool(found.reply.relations) == relations
    assert len(found.notes) == len(said) and all(part in note for part, note in zip(said, found.notes, strict=True))


def test_a_model_without_box_head_relates_given_boxes(tmp_path: Path) -> None:
    found = explain(reader(tmp_path, REALBEF), noise(0), TRIPLET, BOXES)
    assert len(found.reply.relations) == 3 and len(found.notes) == 1
