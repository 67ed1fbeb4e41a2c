"""Backbones made by transformers, with the names and shapes of the published ones, become our encoders."""

import hashlib
import json
import re
from dataclasses import asdict, replace

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from relvlm.config.schema import FusionConfig, InitConfig, ModelConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.convert.backbones import _ours, _sort_out, _vision_links, _without_prefix, fit, read_bert
from relvlm.convert.init import initialise
from relvlm.convert.links import to_theirs
from relvlm.convert.names import vision_links
from relvlm.encoders.packing import offsets_of
from relvlm.encoders.vision import VisionEncoder
from relvlm.errors import UserError
from relvlm.model import RelVLM

WORDS = 40
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = ViTConfig(width=32, layers=2, heads=2, patch_size=8, mlp_ratio=2)
CLIP = replace(VIT, kind="clip_vit")
SWIN = SwinConfig(width=8, heads=[1, 4], patch_size=4, depths=[2, 2], window=4)  # heads as they come
CONFIG = ModelConfig(
    image_size=32, embed_dim=8, vision=VIT, localisation=True, relations=True, mrc_hidden=8,
    text=TextConfig(layers=1, heads=2, width=32, mlp_ratio=2, max_positions=16),
    fusion=FusionConfig(layers=1, heads=2),
)  # fmt: skip


def model_of(**changes) -> RelVLM:
    torch.manual_seed(1)
    return RelVLM(replace(CONFIG, **changes), WORDS, relations=3).eval()


def randomised(model):
    """Norms and biases too, so that a swapped tensor shows."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def hf_vit():
    return randomised(hf.ViTModel(hf.ViTConfig(image_size=32, patch_size=8, layer_norm_eps=1e-6, **SMALL)))


def hf_swin():
    config = hf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[1, 4], window_size=4)
    return randomised(hf.SwinModel(config))


def hf_clip():
    return randomised(hf.CLIPVisionModel(hf.CLIPVisionConfig(image_size=32, patch_size=8, **SMALL)))


def hf_bert(kind=hf.BertForPreTraining):
    return randomised(kind(hf.BertConfig(vocab_size=WORDS, max_position_embeddings=16, **SMALL)))


@pytest.fixture
def bert(tmp_path):
    hf_bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.parametrize(("make", "vision"), [(hf_vit, VIT), (hf_swin, SWIN), (hf_clip, CLIP)])
def test_a_vision_backbone_gives_the_tokens_it_gives_in_transformers(make, vision, tmp_path):
    theirs, ours = make(), model_of(vision=vision)
    theirs.save_pretrained(tmp_path / "backbone")
    report = initialise(ours, InitConfig(vision=str(tmp_path / "backbone"), text="random"), [])
    theirs, ours, pixels = theirs.double(), ours.double(), torch.randn(2, 3, 32, 32).double()
    expected = theirs(pixels).last_hidden_state
    if vision.kind == "clip_vit":  # transformers norms [CLS] alone, X-VLM every token
        expected = theirs.post_layernorm(expected)
    found = ours.encode_image(pixels)
    torch.testing.assert_close(found[:, 1:] if vision.kind == "swin" else found, expected)
    assert not any(name.startswith("vision.") for name in report.new)


def test_bert_is_split_into_text_and_fusion_layers(bert):
    ours, theirs = model_of(), hf_bert()
    initialise(ours, InitConfig(vision="random", text=str(bert)), [])
    ours, theirs = ours.double(), theirs.double()
    ids = torch.randint(0, WORDS, (1, 7))
    expected = theirs.bert(ids, output_hidden_states=True).hidden_states
    cu = offsets_of(torch.tensor([7]))
    text = ours.text(ids[0], cu)
    torch.testing.assert_close(text, expected[1][0])
    fusion = ours.fusion.layers[0]
    after = fusion.feed_forward(fusion.attention(text, cu))  # the second layer of BERT, without the image
    torch.testing.assert_close(after, expected[2][0])
    torch.testing.assert_close(ours.mlm_head(after), theirs.cls.predictions(after))


def test_the_report_names_what_is_loaded_new_and_unused_with_a_hash(bert, tmp_path):
    hf_vit().save_pretrained(tmp_path / "vit")
    ours = model_of()
    report = initialise(ours, InitConfig(vision=str(tmp_path / "vit"), text=str(bert)), [])
    file = bert / "model.safetensors"
    assert report.sources[str(file)] == hashlib.sha256(file.read_bytes()).hexdigest()
    first_words = {name.split(".")[0] for name in report.new if not name.startswith("fusion")}
    heads = {"itm_head", "box_head", "mrc_head", "temperature", "image_projection", "text_projection"}
    assert first_words == heads
    fused = [name for name in report.new if name.startswith("fusion")]
    assert fused and all(".cross_attention." in name for name in fused)
    assert {"bert.pooler.dense.weight", "cls.seq_relationship.bias", "pooler.dense.bias"} <= set(report.unused)
    named = {*report.loaded, *report.new, "mlm_head.decoder.weight"}
    assert named == set(ours.state_dict()) and asdict(report)["sources"]


@pytest.mark.parametrize("form", ["hub", "headless"])
def test_the_names_of_older_files_are_understood(form, bert, tmp_path):
    """bert-base-uncased on the Hub says gamma and beta; a BertModel has no prefix and no MLM head."""
    initialise(expected := model_of(), InitConfig(vision="random", text=str(bert)), [])
    if form == "hub":
        tensors = load_file(bert / "model.safetensors")
        renamed = {re.sub(r"LayerNorm\.bias", "LayerNorm.beta", k): t for k, t in tensors.items()}
        renamed = {re.sub(r"LayerNorm\.weight", "LayerNorm.gamma", k): t for k, t in renamed.items()}
        renamed["cls.predictions.decoder.weight"] = renamed["bert.embeddings.word_embeddings.weight"].clone()
        (tmp_path / "old").mkdir()
        torch.save(renamed, tmp_path / "old/pytorch_model.bin")
    else:
        hf_bert(hf.BertModel).save_pretrained(tmp_path / "old")
        tensors = load_file(bert / "model.safetensors")
        names = {k.removeprefix("bert."): t for k, t in tensors.items() if k.startswith("bert.")}
        save_file(names, tmp_path / "old/model.safetensors")
    ours = model_of()
    report = initialise(ours, InitConfig(vision="random", text=str(tmp_path / "old")), [])
    for name, tensor in expected.state_dict().items():
        if name.startswith("text.") or (name.startswith("mlm_head.") and form == "hub"):
            assert torch.equal(ours.state_dict()[name], tensor), name
    assert ("mlm_head.norm.weight" in report.new) == (form == "headless")


def test_prefixes_and_heads_of_whole_models_are_left_aside(tmp_path):
    config = hf.ViTConfig(image_size=32, patch_size=8, num_labels=5, **SMALL)
    whole = randomised(hf.ViTForImageClassification(config))
    whole.save_pretrained(tmp_path / "vit")
    ours = model_of()
    report = initialise(ours, InitConfig(vision=str(tmp_path / "vit"), text="random"), [])
    assert report.unused == ["classifier.bias", "classifier.weight"]
    assert torch.equal(ours.vision.backbone.class_token, whole.vit.embeddings.cls_token)


@pytest.mark.parametrize(("vision", "extra"), [(VIT, "head.weight"), (SWIN, "layers.0.blocks.1.attn_mask")])
def test_the_authors_own_names_will_do(vision, extra, tmp_path):
    """timm's safetensors of ViT and DeiT, and the .pth of Swin."""
    source = model_of(vision=vision)
    links = [link for link in vision_links(vision, 32) if link.value is None]
    tensors = to_theirs(links, source.vision.backbone.state_dict(), "made")
    torch.save({"model": tensors | {extra: torch.zeros(1)}}, tmp_path / "backbone.pth")
    torch.manual_seed(7)
    ours = RelVLM(replace(CONFIG, vision=vision), WORDS, relations=3)
    report = initialise(ours, InitConfig(vision=str(tmp_path / "backbone.pth"), text="random"), [])
    assert report.unused == [extra]
    for name, tensor in source.vision.state_dict().items():
        assert torch.equal(ours.vision.state_dict()[name], tensor)


def test_another_image_size_resizes_the_positions_and_says_so(tmp_path):
    hf_vit().save_pretrained(tmp_path / "vit")
    ours = model_of(image_size=48)
    report = initialise(ours, InitConfig(vision=str(tmp_path / "vit"), text="random"), [])
    assert report.resized == ["vision.backbone.position"]


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        (replace(VIT, layers=1), r"keys do not fit: \d+ unknown: encoder\.layer\.1"),
        (replace(VIT, layers=3), r"keys do not fit: \d+ missing: encoder\.layer\.2"),
        (replace(VIT, mlp_ratio=3.0), r"mlp\.0\.weight \(ours\): is \(64, 32\)"),
    ],
)
def test_a_backbone_of_another_size_is_refused(vision, message, tmp_path):
    hf_vit().save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match=message):
        initialise(model_of(vision=vision), InitConfig(vision=str(tmp_path / "vit"), text="random"), [])


@pytest.mark.parametrize(
    ("make", "part", "message"),
    [
        (hf_vit, "vision", r"num_attention_heads: 2, the config has model\.vision\.heads=4"),
        (hf_clip, "vision", r"num_attention_heads: 2, the config has model\.vision\.heads=4"),
        (hf_bert, "text", r"num_attention_heads: 2, the config has model\.text\.heads=4"),
        (hf_bert, "fusion", r"num_attention_heads: 2, the config has model\.fusion\.heads=4"),
    ],
)
def test_other_heads_than_the_config_beside_the_weights_names_are_refused(make, part, message, tmp_path):
    make().save_pretrained(tmp_path / "backbone")
    config = replace(CONFIG, vision=CLIP) if make is hf_clip else CONFIG
    ours = model_of(**{part: replace(getattr(config, part), heads=4)})
    chosen = {
        "vision": "random",
        "text": "random",
        "vision" if part == "vision" else "text": str(tmp_path / "backbone"),
    }
    with pytest.raises(UserError, match=rf"config\.json: {message} \(set it to 2\)"):
        initialise(ours, InitConfig(**chosen), [])


@pytest.mark.parametrize("whole", [False, True])
def test_a_clip_with_another_activation_is_refused(whole, tmp_path):
    """LAION's have GELU under the same names."""
    hf_clip().save_pretrained(tmp_path)
    named = json.loads((tmp_path / "config.json").read_text()) | {"hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": named} if whole else named))
    with pytest.raises(UserError, match=r"config\.json: hidden_act: 'gelu', the encoder of this kind has quick_gelu"):
        initialise(model_of(vision=CLIP), InitConfig(vision=str(tmp_path), text="random"), [])


@pytest.mark.parametrize(
    ("name", "found", "wanted"),
    [
        ("vision.backbone.position", (1, 17, 8), (1, 37, 8)),
        ("a.relative_position_bias", (49, 2), (225, 2)),
        ("text.embeddings.position.weight", (20, 8), (16, 8)),
    ],
)
def test_a_table_of_positions_takes_the_size_of_the_model(name, found, wanted):
    assert fit(name, torch.randn(found), torch.empty(wanted), "in.pth").shape == wanted


@pytest.mark.parametrize(
    ("name", "found", "wanted"),
    [
        ("vision.backbone.position", (1, 17, 8), (1, 37, 16)),
        ("a.relative_position_bias", (49, 2), (225, 4)),
        ("text.embeddings.position.weight", (12, 8), (16, 8)),
        ("itm_head.weight", (3, 8), (2, 8)),
    ],
)
def test_no_other_tensor_is_made_to_fit(name, found, wanted):
    with pytest.raises(UserError, match=rf"^in\.pth: {name} \(ours\): is "):
        fit(name, torch.randn(found), torch.empty(wanted), "in.pth")


SWIN_B = SwinConfig(width=128, heads=[4, 8, 16, 32], patch_size=4, depths=[2, 2, 18, 2], window=7)
CLIP_B = {"patch_size": 16, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


@pytest.mark.parametrize(
    ("make", "vision"),
    [
        (lambda: hf.ViTModel(hf.ViTConfig()), ViTConfig()),
        (
            lambda: hf.SwinModel(hf.SwinConfig(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32])),
            SWIN_B,
        ),
        (lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**CLIP_B)), ViTConfig(kind="clip_vit")),
    ],
    ids=["ViT-B/16", "Swin-B", "CLIP-ViT-B/16"],
)
def test_the_published_sizes_fit(make, vision, tmp_path):
    """By names and shapes alone; names as they are on disk."""
    with torch.device("meta"):
        model, ours = make(), VisionEncoder(vision, 224).state_dict()
    on_disk = pytest.importorskip("transformers.core_model_loading").revert_weight_conversion
    names = on_disk(model, model.state_dict())
    theirs, unused = _sort_out({_without_prefix(name): tensor for name, tensor in names.items()})
    links = [link for link in _vision_links(ModelConfig(vision=vision), theirs) if link.value is None]
    found = _ours(links, theirs, tmp_path)
    shapes = {f"backbone.{name}": tensor.shape for name, tensor in found.items()}
    assert shapes == {name: tensor.shape for name, tensor in ours.items()}
    assert all(name.startswith("pooler.") for name in unused)


def test_bert_needs_norms_after_the_sum(bert):
    with pytest.raises(UserError, match=r"model\.text\.norm: pre"):
        read_bert(bert, replace(CONFIG, text=replace(CONFIG.text, norm="pre")))
