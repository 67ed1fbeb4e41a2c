"""COCO: boxes and captions of photos, and what is left out."""

import json

import pytest
from PIL import Image
from support.raw_files import coco_files, dump, photo, run

from relvlm.data.pictures import decode
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import coco
from relvlm.data.sources.driver import Options
from relvlm.errors import UserError


def test_coco_builds_the_real_photos(shared, tmp_path, capsys):
    folder = shared / "data" / "coco_cc"
    status = run(
        coco,
        *("--captions", folder / "annotations" / "captions.json"),
        *("--instances", folder / "annotations" / "instances.json"),
        *("--images", folder / "images", "--out", tmp_path / "coco", "--shard-size", 50),
    )
    assert status == 0
    shards = ShardSet(tmp_path / "coco")
    samples = [shards.read(i).sample for i in range(len(shards))]
    crowds = 7
    assert len(samples) == 136 and len(shards.shards) == 3
    assert sum(len(s.captions) for s in samples) == 555
    assert sum(len(s.entities) for s in samples) == 971 - crowds
    assert {e.label for s in samples for e in s.entities} >= {"person", "dog", "dining table"}
    assert "136 samples, 555 captions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("gone.jpg", None, "no such photo"),
        ("7.jpg", (30, 40), "is 30x40, its annotation is for 40x30"),
        ("../7.jpg", (40, 30), "leaves the photo folder"),
    ],
)
def test_coco_lists_photos_it_cannot_use(tmp_path, name, size, reason):
    captions, instances = coco_files(tmp_path)
    content = json.loads(captions.read_text())
    content["images"].append({"id": 8, "file_name": name, "width": 40, "height": 30})
    dump(captions, content)
    photo(tmp_path / "images" / "7.jpg")
    if name == "7.jpg":
        content["images"][1]["file_name"] = "8.jpg"
        dump(captions, content)
        photo(tmp_path / "images" / "8.jpg", size)
    manifest, skipped = coco.build(captions, instances, tmp_path / "images", tmp_path / "out")
    assert manifest["totals"]["samples"] == 1
    [line] = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert skipped == 1 and reason in line


def test_coco_without_any_photo_is_one_error(tmp_path):
    captions, instances = coco_files(tmp_path)
    with pytest.raises(UserError, match=r"none of the 1 photos.*7.jpg: no such photo \(check --images\)"):
        coco.build(captions, instances, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_coco_shrinks_photos_and_their_boxes_with_them(tmp_path):
    boxes = [(20, 15, 20, 15), (4, 4, 3, 20)]  # the second is left under a pixel wide
    captions, instances = coco_files(tmp_path, boxes)
    (tmp_path / "images").mkdir()
    picture = Image.new("RGB", (40, 30), "black")
    picture.paste("white", (20, 15, 40, 30))
    picture.save(tmp_path / "images" / "7.jpg", quality=95)
    paths = ("--captions", captions, "--instances", instances, "--images", tmp_path / "images")
    run(coco, *paths, "--out", tmp_path / "out", "--max-side", 9)
    record = ShardSet(tmp_path / "out").read(0)
    small = decode(record.image, 1000)
    assert (record.sample.width, record.sample.height) == small.size == (9, 7)
    assert record.sample.captions == ("A dog.",)
    assert [e.box for e in record.sample.entities] == [(4.5, 3.5, 9, 7)]
    assert min(small.getpixel((7, 5))) > 200 and max(small.getpixel((1, 1))) < 50


def test_coco_leaves_photos_that_are_small_enough_byte_for_byte(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    coco.build(captions, instances, tmp_path / "images", tmp_path / "out", options=Options(max_side=40))
    record = ShardSet(tmp_path / "out").read(0)
    assert record.image == (tmp_path / "images" / "7.jpg").read_bytes()
    assert record.sample.entities[0].box == (1, 2, 11, 12)


def test_coco_lists_a_photo_cut_short_that_it_cannot_shrink(tmp_path):
    captions, instances = coco_files(tmp_path)
    content = json.loads(captions.read_text())
    content["images"].append({"id": 8, "file_name": "8.jpg", "width": 40, "height": 30})
    dump(captions, content)
    photo(tmp_path / "images" / "7.jpg")
    cut = tmp_path / "images" / "8.jpg"
    Image.effect_noise((40, 30), 100).save(cut, "JPEG")
    cut.write_bytes(cut.read_bytes()[:-100])
    manifest, skipped = coco.build(
        captions, instances, tmp_path / "images", tmp_path / "out", options=Options(max_side=8)
    )
    assert manifest["totals"]["samples"] == 1
    assert skipped == 1 and "8.jpg: corrupt image" in (tmp_path / "out" / "skipped.txt").read_text()


def test_excluded_images_stay_out(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    (tmp_path / "ids.txt").write_text("7\n")
    common = ("--captions", captions, "--instances", instances, "--images", tmp_path / "images")
    with pytest.raises(UserError, match="no samples"):
        run(coco, *common, "--out", tmp_path / "out", "--exclude", tmp_path / "ids.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "top level is a list, expected a dict"), ("{}", "'images' is missing")],
)
def test_coco_names_the_fault_of_a_wrong_file(tmp_path, content, message):
    captions, instances = coco_files(tmp_path)
    captions.write_text(content)
    with pytest.raises(UserError, match=message):
        coco.build(captions, instances, tmp_path, tmp_path / "out")


def test_coco_excludes_by_file_name_and_tells_what_it_hit(tmp_path):
    captions, instances = coco_files(tmp_path)
    content = json.loads(captions.read_text())
    content["images"].append({"id": 8, "file_name": "000000000008.jpg", "width": 40, "height": 30})
    dump(captions, content)
    photo(tmp_path / "images" / "7.jpg")
    (tmp_path / "ids.txt").write_bytes("\ufeffCOCO_val2014_000000000008.jpg\r\n000000000099\r\n".encode())
    paths = ("--captions", captions, "--instances", instances, "--images", tmp_path / "images")
    assert run(coco, *paths, "--out", tmp_path / "out", "--exclude", tmp_path / "ids.txt") == 0
    arguments = ShardSet(tmp_path / "out").manifest["builder"]["arguments"]
    assert arguments["excluded"] == {"entries": 2, "images": 1, "not_found": 1}
    assert "1 of 2 entries name no image of coco, such as '000000000099'" in (tmp_path / "out/build.log").read_text()


def test_coco_names_files_of_one_name_by_their_folders(tmp_path):
    captions, instances = (f.rename(f.with_suffix("") / "a.json") for f in folders(coco_files(tmp_path, [[]])))
    photo(tmp_path / "images" / "7.jpg")
    with pytest.raises(UserError, match=r"instances/a\.json: annotations\[0\]: bbox: no list of four numbers"):
        coco.build(captions, instances, tmp_path / "images", tmp_path / "out")


def folders(files):
    for file in files:
        file.with_suffix("").mkdir()
    return files


def test_a_list_that_excludes_nothing_is_an_error(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    with pytest.raises(UserError, match="--exclude: 1 of 1 entries name no image of coco"):
        options = Options(exclude=["VG_100K/7.jpg"])
        coco.build(captions, instances, tmp_path / "images", tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_either_file_alone_will_do(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    for flag, file, kinds in (("--captions", captions, (1, 0)), ("--instances", instances, (0, 1))):
        run(coco, flag, file, "--images", tmp_path / "images", "--out", tmp_path / flag)
        sample = ShardSet(tmp_path / flag).read(0).sample
        assert (len(sample.captions), len(sample.entities)) == kinds
    with pytest.raises(UserError, match="neither --captions nor --instances"):
        run(coco, "--images", tmp_path / "images", "--out", tmp_path / "out")


def karpathy(folder):
    """The official form, a photo a split, in COCO's two folders."""
    images = []
    for n, (split, place) in enumerate((("train", "train2014"), ("restval", "val2014"), ("test", "val2014"))):
        name = f"COCO_{place}_{n + 7:012d}.jpg"
        told = {"filepath": place, "filename": name, "imgid": n, "cocoid": n + 7, "split": split}
        images.append({**told, "sentences": [{"raw": f" A {split}  photo.", "tokens": []}]})
        (folder / "coco").mkdir(exist_ok=True)
        photo(folder / "coco" / place / name)
    return dump(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})


@pytest.mark.parametrize(("flags", "ids"), [((), ["7", "8"]), (("--splits", "test"), ["9"])])
def test_karpathys_file_gives_captions_of_its_splits_under_cocos_ids(tmp_path, flags, ids):
    run(coco, "--karpathy", karpathy(tmp_path), "--images", tmp_path / "coco", "--out", tmp_path / "out", *flags)
    shards = ShardSet(tmp_path / "out")
    records = [shards.read(i) for i in range(len(shards))]
    assert [r.sample.image_id for r in records] == ids and records[0].key == ids[0].zfill(12)
    assert records[0].sample.captions == (f"A {flags[1] if flags else 'train'} photo.",)
    assert {r.sample.source for r in records} == {"coco"}


def test_karpathys_file_goes_alone(tmp_path):
    captions, _ = coco_files(tmp_path)
    with pytest.raises(UserError, match="--karpathy goes without --captions"):
        run(coco, "--karpathy", "a", "--captions", captions, "--images", tmp_path, "--out", tmp_path / "out")
