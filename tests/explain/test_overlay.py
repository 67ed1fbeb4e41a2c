"""Heat maps as images, photos as data, boxes in units of the photo."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from support.readers import noise

from relvlm.explain.overlay import LONGEST, DrawnBox, heat_address, photo_address, view


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_a_heat_map_is_a_pixel_a_patch_row_by_row() -> None:
    rgba = pixels(heat_address(torch.tensor([0.0, 1.0, -5.0, 0.0, 0.0, 0.5]), (2, 3)))
    assert rgba.shape == (2, 3, 4)
    opacity = rgba[..., 3]
    assert opacity[0, 1] == opacity.max() > opacity[1, 2] > 0
    assert (opacity == 0).sum() == 4  # none, and what speaks against
    assert tuple(rgba[0, 1, :3]) == (252, 255, 164)


def test_a_map_has_a_scale_of_its_own() -> None:
    small, large = (heat_address(scale * torch.tensor([0.0, 1.0, 0.5, 0.25]), (2, 2)) for scale in (0.01, 100))
    assert small == large


def test_a_map_without_heat_is_blank() -> None:
    assert pixels(heat_address(torch.tensor([-1.0, 0.0, 0.0, 0.0]), (2, 2)))[..., 3].max() == 0


def test_a_large_photo_is_shrunk_and_a_tiny_one_kept_exactly() -> None:
    assert pixels(photo_address(Image.new("RGB", (2000, 1000)))).shape[:2] == (LONGEST // 2, LONGEST)
    assert (pixels(photo_address(noise(0, (40, 30)))) == np.asarray(noise(0, (40, 30)))).all()


def test_a_box_is_drawn_in_its_colour_dashed_if_given() -> None:
    drawn = view([DrawnBox((0.25, 0.5, 0.75, 1.0), "subject", "<man>"), DrawnBox((0, 0, 1, 1), "object", "", True)])
    assert 'class="subject" x="0.2500" y="0.5000" width="0.5000" height="0.5000"' in drawn
    assert 'class="object given"' in drawn and "&lt;man&gt;" in drawn and "<man>" not in drawn
    assert drawn.count("class=edge") == 2 and drawn.count('class="tag') == 1


@pytest.mark.parametrize(
    ("kind", "box", "top", "risen"),
    [
        ("subject", (0.8, 0.0, 1.0, 1.0), 0, False),
        ("subject", (0.8, 0.5, 1.0, 1.0), 50, True),
        ("object", (0.8, 0.0, 1.0, 0.5), 50, False),
        ("object", (0.8, 0.0, 1.0, 1.0), 100, True),
    ],
)
def test_a_label_stays_in_the_photo(kind: str, box: tuple[float, ...], top: int, risen: bool) -> None:
    drawn = view([DrawnBox(box, kind, "man")])
    assert ("translateY(-100%)" in drawn) == risen
    assert f"right:0.00%;top:{top}.00%" in drawn
