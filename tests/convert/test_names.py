"""Every tensor of the official models has a link, under the name and in the place that it has there."""

import json

import pytest
import torch

from relvlm.convert.names import bert_links, official_links, vision_links
from relvlm.convert.sizes import describe

NAMES = ["albef_small", "xvlm_small", "xvlm_vit_small", "xvlm_clipvit_small"]


def full_size(shared, family: str) -> tuple[dict[str, torch.Tensor], dict]:
    listed = json.loads((shared / f"parity/{family}_base_keys.json").read_text())
    tensors = {name: torch.empty(entry["shape"], device="meta") for name, entry in listed["keys"].items()}
    return tensors, listed["config"] | {"bert_config": listed["bert_config"]}


@pytest.mark.parametrize("family", ["albef", "xvlm"])
def test_the_names_are_those_of_the_published_models(family, shared):
    tensors, config = full_size(shared, family)
    links = official_links(describe(tensors, config, family), family)
    names = [name for link in links for name in link.theirs]
    assert sorted(names) == sorted(tensors)
    for link in links:
        assert link.value is None or link.value.shape == tensors[link.theirs[0]].shape, link.theirs


@pytest.mark.parametrize("name", NAMES)
def test_the_names_are_those_of_each_vision_encoder(name, vectors):
    official = vectors(name)
    family = official["config"]["model"]
    links = official_links(describe(official["state_dict"], official["config"], family), family)
    assert {name for link in links for name in link.theirs} == set(official["state_dict"])
    for link in links:
        if link.value is not None:
            assert torch.equal(link.value, official["state_dict"][link.theirs[0]].to(link.value.dtype))


def test_the_upper_layers_of_bert_are_the_fusion_encoder():
    links = {link.ours: link for link in bert_links(text_layers=2, fusion_layers=1, positions=8)}
    inner = "attention.inner.out.weight"
    assert links[f"text.layers.1.{inner}"].theirs == ("bert.encoder.layer.1.attention.output.dense.weight",)
    assert links[f"fusion.layers.0.{inner}"].theirs == ("bert.encoder.layer.2.attention.output.dense.weight",)
    keys, values = links["fusion.layers.0.cross_attention.inner.kv.weight"].theirs
    assert keys.endswith("layer.2.crossattention.self.key.weight") and values.endswith(".value.weight")
    assert not any(name.startswith(("text.layers.2.", "fusion.layers.1.")) for name in links)
    assert not any("cross_attention" in name for name in links if name.startswith("text."))


def test_each_stage_of_a_swin_is_followed_by_its_merge():
    from support.official_toys import SWIN

    links = {link.ours: link.theirs for link in vision_links(SWIN.vision, 64) if link.ours}
    assert links["merges.0.reduction.weight"] == ("layers.0.downsample.reduction.weight",)
    assert links["stages.1.0.norm1.bias"] == ("layers.1.blocks.0.norm1.bias",)
    assert not any(name.startswith("merges.1") for name in links)
