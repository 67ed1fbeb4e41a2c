"""A checkpoint through transformers' AutoModel, and back."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.model_folders import write_toy
from toys import LATE_CLIP, SWIN, VIT
from transformers import AutoConfig, AutoModel

import relvlm
from relvlm.errors import UserError
from relvlm.hub import RelVLMModel

KINDS = pytest.mark.parametrize("config", [VIT, SWIN, LATE_CLIP], ids=["vit", "swin", "clip_vit, late"])


def inputs(texts: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(5, 50, (texts, 6))
    mask = torch.ones_like(ids)
    mask[-1, 4:] = 0
    return {"pixel_values": torch.randn(texts, 3, 32, 32), "input_ids": ids, "attention_mask": mask}


@KINDS
def test_what_was_trained_is_what_is_loaded(config, tmp_path):
    """Swin's tables too, which no file holds."""
    folder = write_toy(tmp_path, config)
    theirs, ours = AutoModel.from_pretrained(folder).eval(), relvlm.load(folder)
    assert type(theirs) is RelVLMModel
    for name, tensor in [*ours.named_parameters(), *ours.named_buffers()]:
        assert torch.equal(dict([*theirs.relvlm.named_parameters(), *theirs.relvlm.named_buffers()])[name], tensor)
    assert theirs.relvlm.mlm_head.decoder.weight is theirs.relvlm.text.embeddings.word.weight
    assert (theirs.relvlm.relation_names, theirs.relvlm.sep) == (ours.relation_names, ours.sep)


@KINDS
def test_saved_again_it_has_the_same_bytes(config, tmp_path):
    folder = write_toy(tmp_path, config)
    model = AutoModel.from_pretrained(folder)
    for again in (tmp_path / "once", tmp_path / "twice"):
        model.save_pretrained(again)
        for name in ("model.safetensors", "config.json"):
            assert (again / name).read_bytes() == (folder / name).read_bytes(), name
        model = AutoModel.from_pretrained(again)
    assert sorted(path.name for path in again.iterdir()) == ["config.json", "model.safetensors"]


def test_its_outputs_are_those_of_the_library(folder):
    theirs, ours, given = AutoModel.from_pretrained(folder).eval(), relvlm.load(folder), inputs()
    mask = given["attention_mask"].bool()
    with torch.no_grad():
        found = theirs(**given)
        image, text = ours.encode_image(given["pixel_values"]), ours.encode_text(given["input_ids"], mask)
        assert torch.equal(found.match_logits, ours.match_logits(ours.fuse(text, mask, image)))
        assert torch.equal(found.image_features, ours.image_features(image))
        assert torch.equal(found.text_features, theirs.get_text_features(given["input_ids"], given["attention_mask"]))
        assert torch.equal(found.image_features, theirs.get_image_features(given["pixel_values"]))


def test_one_image_goes_with_every_text_and_other_numbers_are_refused(folder):
    model, given = AutoModel.from_pretrained(folder).eval(), inputs(3)
    with torch.no_grad():
        one = model(**given | {"pixel_values": given["pixel_values"][:1]}).match_logits
        each = model(**given | {"pixel_values": given["pixel_values"][:1].repeat(3, 1, 1, 1)}).match_logits
    torch.testing.assert_close(one, each)
    with pytest.raises(ValueError, match="2 images and 3 texts"):
        model(**given | {"pixel_values": given["pixel_values"][:2]})


def test_it_is_loaded_in_the_dtype_asked_for(folder):
    assert AutoModel.from_pretrained(folder).dtype == torch.float32
    assert AutoModel.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_that_are_absent_are_named(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["itm_head.layers.0.weight"], tensors["temperature"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"2 weights absent or of other shapes: itm_head\.layers\.0\.weight, temperature"
    ):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("lenient", [False, True])
def test_weights_of_another_shape_are_refused(lenient, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["itm_head.layers.0.weight"] = tensors["itm_head.layers.0.weight"][:, :-1].contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError if lenient else RuntimeError, match="weights absent" if lenient else "mismatched"):
        AutoModel.from_pretrained(folder, ignore_mismatched_sizes=lenient)


def test_a_model_of_a_config_has_weights_of_its_own(folder):
    """With the deviations of relvlm's initialisation, not of transformers'."""
    torch.manual_seed(0)
    made = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    torch.manual_seed(0)
    wanted = relvlm.RelVLM(VIT, 50, 7)
    assert all(torch.equal(made.relvlm.state_dict()[name], tensor) for name, tensor in wanted.state_dict().items())


def test_no_code_comes_with_a_folder_and_transformers_alone_does_not_know_it(folder):
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    tells = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", tells], capture_output=True, text=True)
    assert done.returncode and "`relvlm`" in done.stderr
