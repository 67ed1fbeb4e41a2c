"""config.json as transformers' configuration."""

import json

import pytest
from transformers import AutoConfig

import relvlm.hub
from relvlm.errors import UserError
from relvlm.hub import RelVLMConfig


def test_a_checkpoint_is_known_by_its_config_and_described_as_it_was(folder, tmp_path):
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is RelVLMConfig and relvlm.hub.RelVLMConfig is RelVLMConfig
    assert (config.sizes.image_size, config.sep, config.step, len(config.relations)) == (32, True, 0, 7)
    config.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_keys_of_a_soup_or_a_conversion_are_kept(folder, tmp_path):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"soup": {"how": "uniform"}}, indent=1))
    AutoConfig.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_bytes() == path.read_bytes()


def test_a_config_from_before_gets_its_type_when_saved(folder, tmp_path):
    path = folder / "config.json"
    description = json.loads(path.read_text())
    assert description.pop("model_type") == "relvlm"
    path.write_text(json.dumps(description, indent=1))
    RelVLMConfig.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text()) == {"model_type": "relvlm"} | description


@pytest.mark.parametrize("gone", ["vocab_size", "data", "model"])
def test_what_describes_no_relvlm_is_refused(gone, folder):
    path = folder / "config.json"
    description = json.loads(path.read_text())
    del description[gone]
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match=f"no {gone}: not the description"):
        AutoConfig.from_pretrained(folder)
