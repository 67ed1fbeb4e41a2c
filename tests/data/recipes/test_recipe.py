"""The 13M mix from raw files in their official forms, a few images each."""

import json
from pathlib import Path

import pytest
from support.launched import rows, start
from support.raw_files import dump, gqa_graph, img2dataset_members, node, photo, tar_of

from relvlm.data import cli
from relvlm.data.recipes.recipe import PARTS, sets_of
from relvlm.data.shards.store import ShardSet
from relvlm.data.tools.lint import lint
from relvlm.errors import UserError
from relvlm.paths import Parser

CONFIG = Path(__file__).parents[3] / "configs" / "13m" / "rex_vlm.yaml"
FLICKR = "http://static.flickr.com/2723/{}_b0f291553e.jpg"


def recipe(raw):
    parser = Parser()
    cli.add_arguments(parser)
    return cli.main(parser.parse_args(["recipe", "--config", str(CONFIG), "--raw", str(raw)]))


def write_coco(folder):
    """Image 2, a test image, is Flickr's 4385058962."""
    folder.mkdir()
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", "width": 40, "height": 30, "flickr_url": FLICKR.format(4385058960 + n)}
        for n in (1, 2)
    ]
    captions = [{"id": n, "image_id": n, "caption": "a dog"} for n in (1, 2)]
    boxes = [{"id": n, "image_id": n, "category_id": 18, "bbox": [1, 2, 10, 10]} for n in (1, 2)]
    dump(folder / "captions_train2017.json", {"images": images, "annotations": captions})
    categories = [{"id": 18, "name": "dog"}]
    instances = {"images": images, "annotations": boxes, "categories": categories}
    dump(folder / "instances_train2017.json", instances)
    for n in (1, 2):
        photo(folder / "train2017" / f"{n:012d}.jpg")


def write_vg(folder):
    """Image 12 is COCO's 2, a test image; 13 is of Paragraphs."""
    folder.mkdir()
    numbers = (11, 12, 13)
    pair = {"predicate": "ON", "subject": node(1, "man"), "object": node(2, "ice")}
    dump(folder / "relationships.json", [{"image_id": n, "relationships": [pair]} for n in numbers])
    for name in ("objects", "attributes"):
        dump(folder / f"{name}.json", [{"image_id": n, name: []} for n in numbers])
    region = {"region_id": 1, "phrase": "a man", "x": 1, "y": 2, "width": 9, "height": 9}
    dump(folder / "region_descriptions.json", [{"id": n, "regions": [region]} for n in numbers])
    data = [{"image_id": n, "coco_id": {11: 1, 12: 2}.get(n), "flickr_id": None} for n in numbers]
    dump(folder / "image_data.json", data)
    (folder / "VG_100K_2").mkdir()
    for n in numbers:
        photo(folder / "VG_100K" / f"{n}.jpg")


def write_benchmarks(folder):
    for name in ("vsr", "sugarcrepe", "paragraphs", "whatsup"):
        (folder / name).mkdir(parents=True)
    splits = [{"filename": f"COCO_val2014_{n:012d}.jpg", "split": s} for n, s in ((1, "train"), (2, "test"))]
    dump(folder / "dataset_coco.json", {"images": splits})
    dump(folder / "dataset_flickr30k.json", {"images": [{"filename": "4385058960.jpg", "split": "test"}]})
    (folder / "vsr" / "test.jsonl").write_text(json.dumps({"image": "000000000099.jpg"}) + "\n")
    dump(folder / "sugarcrepe" / "swap_obj.json", {"0": {"filename": "000000000098.jpg"}})
    for split in ("val", "test"):
        dump(folder / "paragraphs" / f"{split}_split.json", [13])
    for name in ("COCO", "VG"):
        dump(folder / "whatsup" / f"{name}_QA_one_obj.json", [[97, "a", "b"]])


@pytest.fixture
def raw(tmp_path, monkeypatch):
    folder = tmp_path / "raw"
    folder.mkdir()
    write_coco(folder / "coco")
    write_vg(folder / "vg")
    write_benchmarks(folder / "benchmarks")
    (folder / "gqa").mkdir()
    dump(folder / "gqa" / "train_sceneGraphs.json", {str(n): gqa_graph() for n in (11, 12)})
    for n in (11, 12):
        photo(folder / "gqa" / "images" / f"{n}.jpg")
    for name in ("sbu", "cc3m", "cc12m"):
        (folder / name).mkdir()
        urls = [FLICKR.format(4385058960 + n) for n in range(3)]
        members = [m for n, url in enumerate(urls) for m in img2dataset_members(str(n), f"dog {n}", url)]
        tar_of(folder / name / "0.tar", members)
    monkeypatch.chdir(tmp_path)
    return folder


def images(name):
    shards = ShardSet(Path("data") / name)
    return sorted(shards.read(i).sample.image_id for i in range(len(shards)))


def test_every_set_of_the_recipe_is_built_without_the_test_images(raw, capsys):
    assert recipe(raw) == 0
    assert images("coco") == images("coco_od") == ["1"]
    assert images("vg") == images("vg_rd") == images("vg_od") == images("gqa") == ["11"]
    assert images("sbu") == ["4385058961"]
    assert images("cc3m") == images("cc12m") == ["0-0", "0-1", "0-2"]
    assert "visual_genome: 2 by id, 1 by another id" in capsys.readouterr().out
    assert recipe(raw) == 0  # nothing left to do
    faults = {name: list(lint(Path("data") / name)) for name in sets_of(CONFIG)}
    assert not any(faults.values()), faults


TINY = [
    "model={image_size: 32, embed_dim: 8, mrc_hidden: 8, vision: {width: 16, layers: 1, heads: 2, patch_size: 8},"
    " text: {width: 16, layers: 1, heads: 2, max_positions: 128}, fusion: {layers: 1, heads: 2}, localisation: true,"
    " relations: true, itm_head: mlp}",
    "data.batch={captions: 4, entities: 8, mrc: 2, vsg: 2}", "data.negative_pool={captions: 4, entities: 2, vsg: 2}",
    "data.vocab=vocab.txt", "data.workers=1", "init=random", "steps=20", "dtype=fp32", "optim.warmup_steps=2",
    "log_every=5", "checkpoint.every=20", "out=run",
]  # fmt: skip


@pytest.mark.slow
def test_the_recipe_trains_on_the_sets_that_it_has_built(raw, tmp_path):
    """All nine: 20 steps of the 13M config, its model made tiny."""
    assert recipe(raw) == 0
    letters = [c for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for c in (letter, f"##{letter}")]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]))
    (process,) = start(["--config", str(CONFIG), *TINY], cwd=tmp_path)
    said = process.communicate()[1]
    assert process.returncode == 0, said[-3000:]
    found = rows(tmp_path / "run")
    assert len(found) == 20 and all(row["skipped"] == "0" for row in found)
    assert {row["dataset"] for row in found} <= set(sets_of(CONFIG)) and len(sets_of(CONFIG)) == 9


def test_what_is_missing_is_named_and_the_rest_is_built(raw, capsys):
    (raw / "gqa" / "train_sceneGraphs.json").unlink()
    assert recipe(raw) == 1
    error = capsys.readouterr().err
    assert "gqa: " in error and "train_sceneGraphs.json is missing (get it at https://cs.stanford.edu/" in error
    assert images("coco") == ["1"] and not Path("data/gqa").exists()


@pytest.mark.parametrize("file", ["benchmarks/dataset_coco.json", "coco/captions_train2017.json"])
def test_without_what_tells_test_images_nothing_is_built_unless_asked_for(raw, file):
    (raw / file).unlink()
    with pytest.raises(UserError, match="--with-test-images"):
        recipe(raw)
    assert not Path("data").exists()


def test_every_recipe_names_sets_that_can_be_built():
    for size in ("3m", "13m"):
        for config in sorted(CONFIG.parents[1].joinpath(size).glob("*.yaml")):
            assert set(sets_of(config)) <= set(PARTS)


def test_a_set_of_no_recipe_is_an_error():
    with pytest.raises(UserError, match="no set of the recipes"):
        sets_of(CONFIG.parents[1] / "mini" / "rex_vlm.yaml")


def test_a_set_in_two_folders_is_an_error(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        CONFIG.read_text().replace("- {path: data/coco}", "- {path: elsewhere/coco}\n    - {path: data/coco}")
    )
    with pytest.raises(UserError, match="elsewhere/coco, data/coco: one set of the recipes"):
        sets_of(file)
