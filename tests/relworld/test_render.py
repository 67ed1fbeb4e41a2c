"""What a picture shows of its scene."""

import io

import numpy as np
import pytest
from PIL import Image
from support.worlds import FULL, scenes

from relvlm.relworld.config import PRESETS, world_config
from relvlm.relworld.render import draw, jpeg
from relvlm.relworld.scene import Scene


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_pixels_outside_the_boxes_are_background(preset: str) -> None:
    config = world_config(preset, patterns=1, action_share=0.0)
    for scene in scenes(config, 30):
        pixels, inside = np.asarray(draw(scene)), np.zeros((scene.size, scene.size), bool)
        for x0, y0, x1, y1 in (thing.box for thing in scene.things):
            inside[y0:y1, x0:x1] = True
        assert len(np.unique(pixels[~inside], axis=0)) == 1
        assert (pixels[inside] != pixels[~inside][0]).any()


@pytest.mark.parametrize("action", FULL.actions)
def test_an_action_shows_its_direction_in_the_pixels(action: str) -> None:
    """Exchanging subject and object of an otherwise equal scene changes the picture."""
    for scene in scenes(FULL, 5, predicate=action):
        i, _, j = scene.main
        turned = Scene(scene.size, scene.things, scene.background, actions=((j, action, i),))
        silent = Scene(scene.size, scene.things, scene.background)
        pictures = [np.asarray(draw(s)).astype(int) for s in (scene, turned, silent)]
        for a, b in ((0, 1), (0, 2)):
            changed = (abs(pictures[a] - pictures[b]).max(-1) > 60).sum()
            assert changed >= 12, f"{action}: {changed} pixels differ"


def test_an_image_survives_jpeg() -> None:
    for scene in scenes(FULL, 5):
        stored = np.asarray(Image.open(io.BytesIO(jpeg(scene)))).astype(int)
        assert abs(stored - np.asarray(draw(scene)).astype(int)).mean() < 6
