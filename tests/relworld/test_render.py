"""What a picture shows of its scene."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.worlds import FULL, fingerprint, scenes

from relvlm.relworld.config import PRESETS, world_config
from relvlm.relworld.lexicon import ACTIONS, BACKGROUNDS, PATTERNS
from relvlm.relworld.render import draw, jpeg
from relvlm.relworld.scene import Background, Look, Scene, Thing

SHEET = Path(__file__).with_name("actions.png")  # a row each of ACTIONS, a column each of PLACES
PLACES = [((14, 25, 28, 39), (40, 22, 58, 40)), ((38, 38, 56, 56), (12, 10, 24, 22))]


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


def acted(action: str, boxes: tuple[tuple[int, int, int, int], ...], ground: str = "white") -> Scene:
    looks = (Look("square", "red"), Look("circle", "blue"))
    things = tuple(Thing(look, box) for look, box in zip(looks, boxes, strict=True))
    return Scene(64, things, Background(ground), actions=((0, action, 1),))


def test_actions_look_as_they_did_in_every_version() -> None:
    sheet = np.asarray(Image.open(SHEET)).astype(int)
    for row, action in enumerate(ACTIONS):
        for column, boxes in enumerate(PLACES):
            stored = sheet[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
            assert abs(np.asarray(draw(acted(action, boxes))) - stored).max() <= 40, action


def test_marks_are_light_on_black_and_dark_on_all_else() -> None:
    for ground in BACKGROUNDS:
        pixels = np.asarray(draw(acted("pulling", PLACES[0], ground)))
        assert tuple(pixels[31, 34]) == ((240,) * 3 if ground == "black" else (20,) * 3)


def test_a_background_follows_from_its_seed_in_every_version() -> None:
    made = [
        [
            list(draw(Scene(8, (), Background(word, pattern, seed))).tobytes())
            for word in BACKGROUNDS
            for seed in range(9)
        ]
        for pattern in PATTERNS
    ]
    assert [fingerprint(pattern) for pattern in made] == ["653674385d88", "9692b8645924", "1984649eb279"]


def test_a_jpeg_keeps_the_colours_of_single_pixels() -> None:
    picture = Image.open(io.BytesIO(jpeg(scenes(FULL, 1)[0])))
    assert {layer[1:3] for layer in picture.layer} == {(1, 1)}  # type: ignore[attr-defined]
    assert max(picture.quantization[0]) == 19  # type: ignore[attr-defined]


def test_eyes_are_white_and_their_pupils_black() -> None:
    colours = {tuple(pixel) for pixel in np.asarray(draw(acted("facing", PLACES[1]))).reshape(-1, 3).tolist()}
    assert {(255, 255, 255), (0, 0, 0)} <= colours
