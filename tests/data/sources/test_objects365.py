"""Objects365, in COCO's form with folders of its own."""

import pytest
from support.raw_files import dump, photo, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import objects365


@pytest.mark.parametrize("name", ["images/v1/patch8/objects365_v1_00420917.jpg", "patch8/objects365_v1_00420917.jpg"])
def test_photos_are_found_in_their_patches(tmp_path, name):
    (tmp_path / "train").mkdir()
    photo(tmp_path / "train" / "patch8" / "objects365_v1_00420917.jpg")
    content = {
        "images": [{"id": 420917, "file_name": name, "width": 40, "height": 30, "license": 1, "url": ""}],
        "categories": [{"id": 1, "name": "Cabinet/shelf"}],
        "annotations": [{"id": 1, "image_id": 420917, "category_id": 1, "bbox": [1.5, 2, 50, 9], "isfake": 0}],
    }
    annotations = dump(tmp_path / "objv2.json", content)
    run(objects365, "--annotations", annotations, "--images", tmp_path / "train", "--out", tmp_path / "out")
    sample = ShardSet(tmp_path / "out").read(0).sample
    assert (sample.source, sample.image_id) == ("objects365", "420917")
    assert [(e.label, e.box) for e in sample.entities] == [("cabinet/shelf", (1.5, 2, 40, 11))]
