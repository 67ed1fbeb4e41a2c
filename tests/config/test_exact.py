"""Options that are not exact: which a config uses, and the config without them."""

import pytest

from relvlm.config.exact import exact, not_exact
from relvlm.config.load import load_config

KEEP, LOW = "model.vision.patch_keep=0.5", "low_resolution={steps: 1000, image_size: 160}"
SWIN = "model.vision={kind: swin, drop_path: 0.1}"


def test_options_that_are_not_exact_are_named_so_each_alone(file):
    config, plain = load_config(file, [KEEP, LOW, "steps=5000"]), load_config(file, ["steps=5000"])
    found = not_exact(config)
    assert list(found) == [
        "model.vision.patch_keep: 0.5 (not exact)",
        "low_resolution: 1,000 steps at 160 px (not exact)",
    ]
    assert list(found.values()) == [load_config(file, [option, "steps=5000"]) for option in (KEEP, LOW)]
    assert exact(config) == plain and not_exact(plain) == {}


@pytest.mark.parametrize("overrides", [[], ["model.vision.layers=3"], [SWIN]])
def test_what_is_exact_stays_as_it_is(file, overrides):
    config = load_config(file, overrides)
    assert exact(config) == config and not_exact(config) == {}
