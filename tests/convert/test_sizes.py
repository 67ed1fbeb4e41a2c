"""The sizes of a model, read off its official tensors."""

import pytest
from support.official_toys import ALBEF, MODELS, SWIN, family, official

from relvlm.convert.sizes import describe
from relvlm.errors import UserError


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_described_by_its_own_tensors(name):
    """But for the last blocks that mask regions, which no tensor tells."""
    config = {} if name == "albef" else {"local_attn_depth": 2}
    assert describe(official(name), config, family(name)) == MODELS[name]


def test_what_no_tensor_tells_is_read_from_the_configuration():
    given = {
        "image_res": 64,
        "temp": 0.05,
        "momentum": 0.9,
        "alpha": 0.3,
        "bert_config": {"num_attention_heads": 4, "hidden_dropout_prob": 0.2},
    }
    found = describe(official("albef"), given, "albef")
    assert (found.image_size, found.temperature) == (64, 0.05)
    assert (found.momentum.decay, found.momentum.alpha) == (0.9, 0.3)
    assert (found.text.heads, found.fusion.heads, found.text.dropout) == (4, 4, 0.2)


def test_what_nothing_tells_is_as_in_the_published_models():
    found = describe(official("albef"), {}, "albef")
    assert (found.temperature, found.momentum.decay, found.momentum.alpha) == (0.07, 0.995, 0.4)
    assert found.text.dropout == 0.1 and found.vision.late_blocks == 3  # of 4 that there would be
    assert describe(official("swin"), {}, "xvlm").vision.drop_path == 0.1


@pytest.mark.parametrize("key", ["heads", "num_heads", "num_attention_heads"])
def test_heads_of_the_vision_encoder_have_several_names(key):
    assert describe(official("xvlm"), {"vision_config": {key: 4}}, "xvlm").vision.heads == 4


@pytest.mark.parametrize("given", [{"local_attn_depth": 1}, {"vision": {"local_attn_depth": 1}, "local_attn_depth": 2}])
def test_late_blocks_are_local_attn_depth(given):
    assert describe(official("xvlm"), given, "xvlm").vision.late_blocks == 1


def test_regions_are_masked_in_one_block_at_least():
    with pytest.raises(UserError, match="local_attn_depth: 0"):
        describe(official("xvlm"), {"local_attn_depth": 0}, "xvlm")


def test_the_window_of_a_swin_may_be_another():
    found = describe(official("swin"), {"vision": {"window_size": 8, "image_res": 128}}, "xvlm")
    assert (found.vision.window, found.image_size) == (8, 128)


def test_file_names_in_place_of_sections_tell_nothing():
    given = {"bert_config": "configs/config_bert.json", "vision_config": "configs/config_swinB.json"}
    assert describe(official("swin"), given, "xvlm") == SWIN


def test_an_image_size_that_nothing_tells_is_asked_for():
    tensors = {name: tensor for name, tensor in official("swin").items() if not name.endswith("attn_mask")}
    with pytest.raises(UserError, match="image_res: cannot be read off this Swin"):
        describe(tensors, {}, "xvlm")
    assert describe(tensors, {"image_res": 64}, "xvlm") == SWIN


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("albef", {"vision": {"hidden_act": "relu"}}, r"vision\.hidden_act: 'relu', the vit has gelu"),
        (
            "clip",
            {"vision": {"hidden_act": "gelu"}},
            r"vision\.hidden_act: 'gelu', the clip_vit has quick_gelu",
        ),
        ("swin", {"vision": {"hidden_act": "relu"}}, r"vision\.hidden_act: 'relu', the swin has gelu"),
        ("albef", {"vision": {"ln_eps": 1e-5}}, r"vision\.ln_eps: 1e-05, the vit has 1e-06"),
        ("clip", {"vision": {"ln_eps": 1e-6}}, r"vision\.ln_eps: 1e-06, the clip_vit has 1e-05"),
        ("swin", {"vision": {"ln_eps": 1e-6}}, r"vision\.ln_eps: 1e-06, the swin has 1e-05"),
        ("albef", {"text": {"hidden_act": "relu"}}, r"text\.hidden_act: 'relu', this BERT has gelu"),
        ("albef", {"text": {"act": "relu"}}, r"text\.act: 'relu', this BERT has gelu"),
    ],
)
def test_an_encoder_that_ours_is_not_is_refused(name, given, message):
    with pytest.raises(UserError, match=f"^official config: {message}"):
        describe(official(name), given, family(name))


def test_an_encoder_that_ours_is_is_taken():
    assert describe(official("albef"), {"vision": {"hidden_act": "gelu", "ln_eps": 1e-6}}, "albef") == ALBEF


def test_a_tensor_that_is_missing_is_named():
    tensors = official("albef")
    del tensors["image_queue"]
    with pytest.raises(UserError, match=r"^no tensor image_queue: not a checkpoint of this family"):
        describe(tensors, {}, "albef")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_res": "large"}, "image_res: expected a number, found 'large'"),
        ({"image_res": 48.5}, r"image_res: expected a whole number, found 48\.5"),
        ({"temp": float("nan")}, "temp: expected a number, found nan"),
        ({"momentum": True}, "momentum: expected a number, found True"),
        ({"bert_config": {"num_attention_heads": [12]}}, r"text\.heads: expected a number, found \[12\]"),
    ],
)
def test_a_number_that_is_none_is_refused(given, message):
    with pytest.raises(UserError, match=f"^official config: {message}"):
        describe(official("albef"), given, "albef")


def test_a_small_number_may_be_text():
    """As YAML 1.1 reads the 1e-06 of JSON."""
    assert describe(official("albef"), {"vision": {"ln_eps": "1e-06"}, "temp": "7e-2"}, "albef") == ALBEF


def test_an_albef_without_momentum_and_an_xvlm_without_boxes_are_described_so():
    student = {name: t for name, t in official("albef").items() if "_m." not in name and "queue" not in name}
    assert not describe(student, {}, "albef").momentum.enabled
    boxless = {name: t for name, t in official("xvlm").items() if not name.startswith("bbox_head.")}
    assert not describe(boxless, {}, "xvlm").localisation
