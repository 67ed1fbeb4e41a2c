"""Files as they go round become the published names."""

import pytest
import torch
from support.official_toys import MODELS, family, official

from relvlm.convert.links import Link
from relvlm.convert.official import convert
from relvlm.convert.variants import check_family, complete, published
from relvlm.errors import UserError

CROSS = "text_encoder.bert.encoder.layer.0.crossattention.self.query.weight"
HEADS = ["vision_proj.weight", "text_proj.weight", "itm_head.weight"]


def assert_same(tensors: dict, name: str) -> None:
    found, expected = (convert(t, {}, family(name)) for t in (tensors, official(name)))
    assert (found.config, found.new, found.unused) == (expected.config, [], [])
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[key], tensor) for key, tensor in expected.tensors.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("name", ["albef", "xvlm"])
def test_what_wraps_a_model_leaves_no_trace(prefix, name):
    assert_same({prefix + key: tensor for key, tensor in official(name).items()}, name)


@pytest.mark.parametrize("name", MODELS)
def test_what_follows_from_sizes_or_is_tied_need_not_be_there(name):
    left_out = ("position_ids", "relative_position_index", "cls.predictions.decoder.weight", "decoder.bias")
    assert_same({key: tensor for key, tensor in official(name).items() if not key.endswith(left_out)}, name)


@pytest.mark.parametrize("name", ["albef", "xvlm"])
def test_a_model_fine_tuned_for_retrieval_has_a_new_mlm_head_alone(name):
    tuned = {key.replace(".bert.", "."): t for key, t in official(name).items() if ".cls." not in key}
    tuned["idx_queue"] = torch.zeros(1)
    found, expected = (convert(t, {}, family(name)) for t in (tuned, official(name)))
    parts = {key for key in expected.tensors if "mlm_head." in key}
    assert set(found.new) == parts and parts
    assert found.unused == ["idx_queue"]
    assert all(torch.equal(found.tensors[key], expected.tensors[key]) for key in expected.tensors.keys() - parts)
    assert all(found.tensors[key].shape == expected.tensors[key].shape for key in parts)
    again = convert(tuned, {}, family(name))
    assert all(torch.equal(found.tensors[key], again.tensors[key]) for key in parts)


def test_an_mlm_head_in_parts_is_no_new_one():
    broken = official("xvlm")
    del broken["text_encoder.cls.predictions.transform.dense.bias"]
    with pytest.raises(UserError, match=r"1 missing: text_encoder\.cls\.predictions\.transform\.dense\.bias"):
        convert(broken, {}, "xvlm")


def test_an_albef_without_momentum_is_one_without_a_teacher():
    student = {key: t for key, t in official("albef").items() if "_m." not in key and "queue" not in key}
    found = convert(student, {}, "albef")
    assert not found.config.momentum.enabled and not any(key.startswith("teacher.") for key in found.tensors)


@pytest.mark.parametrize(
    ("names", "family", "message"),
    [
        (["vision_encoder.x", *HEADS], "albef", "is a checkpoint of the family xvlm, not albef: relvlm convert xvlm"),
        (["visual_encoder.x", *HEADS], "xvlm", "is a checkpoint of the family albef, not xvlm: relvlm convert albef"),
        (["visual_encoder.x", CROSS, *HEADS], "albef", "no checkpoint of ALBEF or X-VLM but BLIP"),
        (["vision_model.x"], "xvlm", "but a CLIP"),
        (["visual.x"], "albef", "but a CLIP"),
        (["bert.encoder.x"], "albef", "but one encoder alone"),
        (["vision.backbone.x"], "albef", "but relvlm's own"),
        (["fc.weight"], "albef", r"but something else; first names: \['fc\.weight'\]"),
        (["visual_encoder.x", *HEADS[1:]], "albef", "has no vision_proj.weight: pairs cannot be scored"),
        (["visual_encoder.x", *HEADS[:2]], "albef", "has no itm_head: pairs cannot be scored"),
    ],
)
def test_another_family_or_task_is_named(names, family, message):
    with pytest.raises(UserError, match=f"^in.pth: .*{message}"):
        check_family(names, family, "in.pth")


def test_no_name_without_use_is_dropped_unknown():
    named = {"module.visual_encoder.x": 1, "module.cls_head.0.weight": 2, "module.more": 3} | {
        f"module.{name}": 0 for name in HEADS
    }
    found = published(named, "albef", "in.pth")
    assert found.unused == ["cls_head.0.weight"]
    assert set(found.tensors) == {"visual_encoder.x", "more", *HEADS}


def test_a_tensor_that_is_there_is_not_replaced():
    links = [Link("", ("ids",), "derived", torch.zeros(1)), Link("a", ("x", "y"), "tied")]
    there = {"ids": torch.ones(1), "x": torch.ones(2), "y": torch.zeros(2)}
    assert complete(links, there) == (links, there)
    whole = complete(links, {"y": there["y"]})[1]
    assert torch.equal(whole["x"], there["y"]) and torch.equal(whole["ids"], torch.zeros(1))
