"""The shapes' masks, their textures and outlines."""

import numpy as np
import pytest

from relvlm.relworld.lexicon import COLOURS, SHAPES, TEXTURES
from relvlm.relworld.scene import Look
from relvlm.relworld.shapes import CORES, shape_mask, solid_mask, tile

# Of ten rows from the top of a shape 40 pixels wide: how many pixels are covered, and which is the first.
ROWS = {
    "circle": [(20, 10), (30, 5), (36, 2), (38, 1), (40, 0), (40, 0), (38, 1), (34, 3), (28, 6), (16, 12)],
    "square": [(40, 0), (40, 0), (40, 0), (40, 0), (40, 0), (40, 0), (40, 0), (40, 0), (40, 0), (40, 0)],
    "triangle": [(2, 19), (6, 17), (10, 15), (14, 13), (18, 11), (22, 9), (26, 7), (30, 5), (34, 3), (38, 1)],
    "star": [(2, 19), (6, 17), (8, 16), (24, 8), (32, 4), (24, 8), (20, 10), (20, 10), (16, 9), (4, 8)],
    "cross": [(14, 13), (14, 13), (14, 13), (40, 0), (40, 0), (40, 0), (40, 0), (14, 13), (14, 13), (14, 13)],
    "heart": [(24, 4), (36, 1), (40, 0), (38, 1), (35, 2), (29, 5), (21, 9), (12, 14), (6, 17), (1, 19)],
    "diamond": [(5, 17), (13, 13), (22, 9), (30, 5), (38, 1), (34, 3), (26, 7), (19, 10), (11, 14), (3, 18)],
    "moon": [(23, 13), (30, 6), (27, 3), (27, 1), (27, 0), (27, 0), (27, 1), (27, 4), (30, 8), (19, 15)],
    "hourglass": [(36, 2), (30, 5), (22, 9), (16, 12), (8, 16), (10, 15), (18, 11), (24, 8), (31, 4), (38, 1)],
    "house": [(6, 17), (14, 13), (24, 8), (32, 4), (28, 6), (28, 6), (28, 6), (28, 6), (28, 6), (28, 6)],
}


def rows(shape: str) -> list[tuple[int, int]]:
    covered = solid_mask(shape, 40)[2::4]
    return [(int(row.sum()), int(row.argmax())) for row in covered]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_what_its_name_says(shape: str) -> None:
    assert rows(shape) == ROWS[shape]


@pytest.mark.parametrize("shape", CORES)
def test_a_third_of_the_box_fits_in_the_core(shape: str) -> None:
    x, y = CORES[shape]
    side = 60
    left, top = round(x * side - 0.16 * side), round(y * side - 0.16 * side)
    core = solid_mask(shape, side)[top : top + 19, left : left + 19]
    assert core.mean() > 0.9


def test_a_pixel_half_covered_is_covered() -> None:
    alpha = np.asarray(shape_mask("circle", 9))
    assert (solid_mask("circle", 9) == (alpha >= 128)).all() and 0 < solid_mask("circle", 9).mean() < 1


def texture(name: str, side: int) -> list[str]:
    """The square's tile without its outline: # where the texture is dark."""
    red = np.asarray(tile(Look("square", "red", name), side))[1:-1, 1:-1, 0]
    assert set(np.unique(red)) <= {COLOURS["red"][0], round(0.35 * COLOURS["red"][0])}
    return ["".join(" #"[int(dark)] for dark in row) for row in red < 100]


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("striped", ["######", "######", "      ", "      ", "      ", "######"]),
        ("dotted", [" ##   ", "####  ", "####  ", " ##   ", "      ", "      "]),
        ("checkered", ["##   #", "##   #", "  ### ", "  ### ", "  ### ", "##   #"]),
    ],
)
def test_textures_repeat_four_times_a_side(name: str, period: list[str]) -> None:
    found = texture(name, 24)
    assert [row[:6] for row in found[:6]] == period
    for square in (found, list(zip(*found, strict=True))):
        assert square[6:] == square[:-6]


def test_a_texture_is_no_finer_than_four_pixels() -> None:
    assert texture("striped", 8) == ["######", "      ", "      ", "######", "######", "      "]


def test_the_outline_is_one_pixel_of_half_the_colour() -> None:
    pixels = np.asarray(tile(Look("square", "red"), 8))
    edge = np.ones((8, 8), bool)
    edge[1:-1, 1:-1] = False
    red, green, blue = COLOURS["red"]
    assert (pixels[edge] == (red // 2, green // 2, blue // 2, 255)).all()
    assert (pixels[~edge] == (red, green, blue, 255)).all()


@pytest.mark.parametrize("name", TEXTURES)
def test_a_tile_is_clear_outside_its_shape(name: str) -> None:
    pixels = np.asarray(tile(Look("circle", "blue", name), 20))
    assert (pixels[..., 3] == np.asarray(shape_mask("circle", 20))).all()
