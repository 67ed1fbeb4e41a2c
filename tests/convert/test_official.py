"""A whole model under the official names and back, its position tables for another image size."""

import warnings
from dataclasses import replace

import pytest
import torch
from support.official_toys import MODELS, WORDS, family, official, pretraining

from relvlm.convert.official import (
    check_shapes,
    convert,
    from_official,
    split,
    teacher_from_official,
    tensors_of,
    to_official,
)
from relvlm.errors import UserError

LATE = {"local_attn_depth": 2}
WORD, TIED = "text.embeddings.word.weight", "mlm_head.decoder.weight"


def assert_identical(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_forth_and_back(name):
    whole, kind = pretraining(name), family(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_official(official(name), LATE, kind)
    assert not model.training
    assert_identical(model.state_dict(), whole.model.state_dict())
    teacher = teacher_from_official(official(name), LATE, kind)
    assert (teacher is None) == (whole.teacher is None)
    assert_identical(to_official(model, kind, teacher), official(name))


def test_double_precision_stays():
    double = {k: t.double() if t.is_floating_point() else t for k, t in official("xvlm").items()}
    assert from_official(double, LATE, "xvlm").text_projection.weight.dtype == torch.float64


def test_an_unknown_family_is_named():
    with pytest.raises(UserError, match=r"^family: 'blip' is none of albef, xvlm"):
        convert(official("albef"), {}, "blip")


@pytest.mark.parametrize(
    ("name", "size", "tables"),
    [
        ("albef", 64, {"vision.backbone.position", "teacher.vision.backbone.position"}),
        ("clip", 64, {"vision.backbone.position"}),
        ("swin", 128, set()),
    ],
)
def test_another_image_size_resizes_the_tables_alone(name, size, tables):
    before, after = (convert(official(name), {}, family(name), image_size=s) for s in (0, size))
    assert after.config == replace(before.config, image_size=size)
    changed = {key for key, tensor in after.tensors.items() if not torch.equal(tensor, before.tensors[key])}
    assert changed == tables
    check_shapes(after.config, after.tensors, "in.pth")


def test_a_swin_of_another_window_has_other_bias_tables():
    found = convert(official("swin"), {"vision": {"window_size": 8, "image_res": 128}}, "xvlm")
    shapes = {key: tuple(t.shape) for key, t in found.tensors.items() if "relative_position_bias" in key}
    assert {shape[0] for shape in shapes.values()} == {15**2}
    check_shapes(found.config, found.tensors, "in.pth")


def test_a_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(UserError, match=r"in\.pth: as albef: model\.image_size: 50 is no multiple of patch_size 8"):
        convert(official("albef"), {}, "albef", "in.pth", image_size=50)


def test_a_shape_that_the_configuration_does_not_say_is_named():
    found = convert(official("albef"), {}, "albef")
    name = "itm_head.layers.0.bias"
    wrong = found.tensors | {name: torch.zeros(3)}
    with pytest.raises(UserError, match=rf"in\.pth: {name} \(ours\): is \(3,\), the configuration says \(2,\)"):
        check_shapes(found.config, wrong, "in.pth")
    with pytest.raises(UserError, match=f"1 missing: {name}"):
        check_shapes(found.config, {k: t for k, t in wrong.items() if k != name}, "in.pth")


def test_what_is_new_is_named_in_a_warning():
    headless = {key: tensor for key, tensor in official("xvlm").items() if ".cls." not in key}
    with pytest.warns(UserWarning, match=r"at random: mlm_head\.decoder\.bias, mlm_head\.norm\.bias"):
        from_official(headless, LATE, "xvlm")


def test_a_model_that_lost_its_teacher_does_not_go_back():
    whole = pretraining("albef")
    with pytest.raises(UserError, match=r"missing: teacher\.fusion\.layers\.0"):
        to_official(whole.model, "albef")


def test_tied_tensors_are_kept_once_and_given_back_twice():
    whole = pretraining("albef")
    tensors = tensors_of(whole.model, whole.teacher.state_dict())
    assert TIED not in tensors and f"teacher.{TIED}" not in tensors
    student, teacher = split(tensors)
    assert student[TIED] is student[WORD] and teacher[TIED] is teacher[WORD] and len(student[WORD]) == WORDS
    student, teacher = split(tensors, tied=False)
    assert TIED not in student and TIED not in teacher and WORD in teacher
