"""The sizes of a model, read off its official tensors."""

from dataclasses import replace

import pytest
import torch

from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.convert.official import to_official
from relvlm.convert.sizes import describe
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.pretraining.step import Pretraining

VIT = ViTConfig(width=128, layers=3, heads=2, patch_size=8, mlp_ratio=2.0, late_blocks=3)
ALBEF = ModelConfig(
    image_size=48,
    embed_dim=12,
    vision=VIT,
    text=TextConfig(layers=2, heads=2, width=128, mlp_ratio=3.0, max_positions=20),
    fusion=FusionConfig(layers=1, heads=2),
    momentum=MomentumConfig(enabled=True, queue=24),
    localisation=False,
    relations=False,
    negatives="official",
)
XVLM = replace(
    ALBEF,
    vision=replace(VIT, late_blocks=2),
    fusion=replace(ALBEF.fusion, region_mask="late_vision"),
    momentum=MomentumConfig(),
    localisation=True,
    itm_head="mlp",
    itm_floor=1e-5,
    itc_gradient="own_rank",
)
SWIN = replace(
    XVLM,
    image_size=64,
    vision=SwinConfig(width=8, depths=[2, 1], heads=[1, 4], window=4, patch_size=4, mlp_ratio=2.0, drop_path=0.1),
    fusion=replace(XVLM.fusion, region_mask="cross_attention"),
)
CLIP = replace(XVLM, vision=replace(XVLM.vision, kind="clip_vit"))
MODELS = {"albef": ALBEF, "xvlm": XVLM, "swin": SWIN, "clip": CLIP}


def family(name: str) -> str:
    return "albef" if name == "albef" else "xvlm"


@pytest.fixture(scope="module")
def official():
    """The official tensors of each model."""
    made = {}
    for name, config in MODELS.items():
        torch.manual_seed(0)
        whole = Pretraining(RelVLM(config, 30, relations=0))
        teacher = whole.teacher.state_dict() if whole.teacher else None
        made[name] = to_official(whole.model, family(name), teacher)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_described_by_its_own_tensors(name, official):
    """But for the last blocks that mask regions, which no tensor tells."""
    config = {} if name == "albef" else {"local_attn_depth": 2}
    assert describe(official[name], config, family(name)) == MODELS[name]


def test_what_no_tensor_tells_is_read_from_the_configuration(official):
    given = {
        "image_res": 64,
        "temp": 0.05,
        "momentum": 0.9,
        "alpha": 0.3,
        "bert_config": {"num_attention_heads": 4, "hidden_dropout_prob": 0.2},
    }
    found = describe(official["albef"], given, "albef")
    assert (found.image_size, found.temperature) == (64, 0.05)
    assert (found.momentum.decay, found.momentum.alpha) == (0.9, 0.3)
    assert (found.text.heads, found.fusion.heads, found.text.dropout) == (4, 4, 0.2)


def test_what_nothing_tells_is_as_in_the_published_models(official):
    found = describe(official["albef"], {}, "albef")
    assert (found.temperature, found.momentum.decay, found.momentum.alpha) == (0.07, 0.995, 0.4)
    assert found.text.dropout == 0.1 and found.vision.late_blocks == 3  # of 4 that there would be
    assert describe(official["swin"], {}, "xvlm").vision.drop_path == 0.1


@pytest.mark.parametrize("key", ["heads", "num_heads", "num_attention_heads"])
def test_heads_of_the_vision_encoder_have_several_names(key, official):
    assert describe(official["xvlm"], {"vision_config": {key: 4}}, "xvlm").vision.heads == 4


@pytest.mark.parametrize("given", [{"local_attn_depth": 1}, {"vision": {"local_attn_depth": 1}, "local_attn_depth": 2}])
def test_late_blocks_are_local_attn_depth(given, official):
    assert describe(official["xvlm"], given, "xvlm").vision.late_blocks == 1


def test_regions_are_masked_in_one_block_at_least(official):
    with pytest.raises(UserError, match="local_attn_depth: 0"):
        describe(official["xvlm"], {"local_attn_depth": 0}, "xvlm")


def test_the_window_of_a_swin_may_be_another(official):
    found = describe(official["swin"], {"vision": {"window_size": 8, "image_res": 128}}, "xvlm")
    assert (found.vision.window, found.image_size) == (8, 128)


def test_file_names_in_place_of_sections_tell_nothing(official):
    given = {"bert_config": "configs/config_bert.json", "vision_config": "configs/config_swinB.json"}
    assert describe(official["swin"], given, "xvlm") == SWIN


def test_an_image_size_that_nothing_tells_is_asked_for(official):
    tensors = {name: tensor for name, tensor in official["swin"].items() if not name.endswith("attn_mask")}
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
def test_an_encoder_that_ours_is_not_is_refused(name, given, message, official):
    with pytest.raises(UserError, match=f"^official config: {message}"):
        describe(official[name], given, family(name))


def test_an_encoder_that_ours_is_is_taken(official):
    assert describe(official["albef"], {"vision": {"hidden_act": "gelu", "ln_eps": 1e-6}}, "albef") == ALBEF


def test_a_tensor_that_is_missing_is_named(official):
    tensors = dict(official["albef"])
    del tensors["image_queue"]
    with pytest.raises(UserError, match=r"^no tensor image_queue: not a checkpoint of this family"):
        describe(tensors, {}, "albef")
