"""Photos that look like those of a test set."""

import io

import numpy as np
import pytest
from PIL import Image
from support.raw_files import dump, gqa_graph, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import gqa
from relvlm.data.sources.faults import LeftOut
from relvlm.data.sources.lookalike import Lookalikes, difference_hash, read_lookalikes
from relvlm.errors import UserError


def picture(seed, size=(40, 30)):
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bits(a, b):
    return (difference_hash(a) ^ difference_hash(b)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_the_same_picture_in_another_file_is_near_and_another_is_far(seed):
    photo = encoded(picture(seed, (640, 480)), quality=95)
    small = encoded(picture(seed, (640, 480)).resize((200, 150)), quality=60)
    assert bits(photo, small) <= 4 and bits(photo, encoded(picture(seed, (640, 480)), "WEBP")) <= 4
    assert bits(photo, encoded(picture(seed + 5, (640, 480)))) > 15


@pytest.mark.parametrize(("flipped", "refused"), [(4, True), (5, False)])
def test_four_bits_are_near_and_five_are_not(flipped, refused):
    photo = encoded(picture(0))
    others = Lookalikes([difference_hash(photo) ^ ((1 << flipped) - 1)])
    if refused:
        with pytest.raises(LeftOut, match="looks like"):
            others.refuse(photo)
    else:
        others.refuse(photo)


def test_a_build_leaves_them_out_and_counts_them(tmp_path):
    for folder in ("images", "test"):
        (tmp_path / folder).mkdir()
    for n in range(3):
        (tmp_path / "images" / f"{n}.jpg").write_bytes(encoded(picture(n)))
    (tmp_path / "test" / "any name.png").write_bytes(encoded(picture(1), "PNG"))
    graphs = dump(tmp_path / "graphs.json", {str(n): gqa_graph() for n in range(3)})
    flags = ("--scene-graphs", graphs, "--images", tmp_path / "images", "--unlike", tmp_path / "test")
    run(gqa, *flags, "--out", tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert [shards.read(i).sample.image_id for i in range(len(shards))] == ["0", "2"]
    assert "1 of 3 image records left out, by rule: looks like a photo" in (tmp_path / "out" / "build.log").read_text()


def test_photos_of_a_linked_folder_are_test_photos_too(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    picture(1).save(tmp_path / "elsewhere/a.jpg")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LeftOut):
        read_lookalikes([tmp_path / "test"]).refuse(encoded(picture(1)))


def test_a_folder_without_photos_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no photo in it"):
        read_lookalikes([tmp_path])
