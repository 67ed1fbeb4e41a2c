"""The images of test sets by every id they have."""

import pytest
from support.raw_files import dump

from relvlm.data.recipes.overlap import Image, held_out, with_twins, write_overlap
from relvlm.errors import UserError


def karpathy(path, name="COCO_val2014_{:012d}.jpg", numbers=(1, 2, 3, 4)):
    splits = ("train", "val", "test", "restval")
    images = [{"filename": name.format(n), "split": s} for n, s in zip(numbers, splits, strict=True)]
    return dump(path, {"images": images})


def test_karpathy_gives_validation_and_test(tmp_path):
    found = held_out({"coco": karpathy(tmp_path / "c.json"), "flickr30k": karpathy(tmp_path / "f.json", "{}.jpg")})
    assert found["coco"] == {Image("coco", "2"), Image("coco", "3")}
    assert found["flickr30k"] == {Image("flickr", "2"), Image("flickr", "3")}


def test_the_real_benchmarks(shared, tmp_path):
    folder = shared / "data" / "benchmarks"
    found = held_out(
        {
            "vsr": folder / "vsr" / "random_2022",
            "sugarcrepe": folder / "sugarcrepe",
            "paragraphs": folder / "paragraphs",
        }
    )
    assert len(found["paragraphs"]) == 2487 + 2489
    assert Image("coco", "85329") in found["sugarcrepe"]
    assert {image.dataset for image in found["vsr"]} == {"coco"} and len(found["vsr"]) > 1000


def test_photos_of_vsr_that_are_trained_on_stay(tmp_path):
    for split, number in (("train", 1), ("dev", 2), ("test", 3)):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"image": "{number:012d}.jpg"}}\n')
    assert held_out({"vsr": tmp_path})["vsr"] == {Image("coco", "2"), Image("coco", "3")}


@pytest.mark.parametrize("names", [("COCO_QA_one_obj", "VG_QA_two_obj"), ("coco_qa_one_obj", "vg_qa_two_obj")])
def test_whatsup_names_coco_and_visual_genome(tmp_path, names):
    dump(tmp_path / f"{names[0]}.json", [[397133, "a", "b"]])
    dump(tmp_path / f"{names[1]}.json", [["2345", "a", "b"]])
    assert held_out({"whatsup": tmp_path})["whatsup"] == {Image("coco", "397133"), Image("visual_genome", "2345")}


def test_cola_names_visual_genomes_photos(shared):
    path = shared / "data/benchmarks/cola/multi_object.json"
    found = held_out({"cola": path})["cola"]
    assert Image("visual_genome", "2390970") in found and len(found) == 218


def test_refcoco_names_cocos_photos_but_those_of_training(tmp_path):
    for split, number in (("train", 1), ("val", 2), ("testA", 3)):
        image = {"file_name": f"COCO_train2014_{number:012}.jpg", "caption": "left"}
        dump(tmp_path / f"finetune_refcoco_{split}.json", {"images": [image], "annotations": []})
    assert held_out({"refcoco": tmp_path})["refcoco"] == {Image("coco", "2"), Image("coco", "3")}


def test_twins_are_followed_across_the_three_datasets():
    vg, coco, flickr = Image("visual_genome", "1"), Image("coco", "2"), Image("flickr", "3")
    twins = [(vg, coco), (coco, flickr), (Image("visual_genome", "9"), Image("coco", "8"))]
    assert with_twins({flickr}, twins) == {vg, coco, flickr}
    assert with_twins({Image("coco", "1")}, twins) == {Image("coco", "1")}


def test_the_list_holds_every_name_and_the_counts_say_which(tmp_path):
    rows = [{"image_id": 7, "coco_id": 2, "flickr_id": None}, {"image_id": 8, "coco_id": 1, "flickr_id": 5}]
    image_data = dump(tmp_path / "image_data.json", rows)
    photo = {"id": 3, "flickr_url": "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg"}
    captions = dump(tmp_path / "captions.json", {"images": [photo]})
    coco = {"coco": karpathy(tmp_path / "c.json")}
    lines = write_overlap(tmp_path / "out.txt", coco, image_data, [captions])
    assert set((tmp_path / "out.txt").read_text().split()) == {
        *("val2014/2.jpg", "val2014/3.jpg", "VG_100K/7.jpg"),
        "flickr30k-images/2970773875.jpg",
    }
    assert lines == [
        "coco: 2 images",
        "coco: 2 by id, 0 by another id",
        "visual_genome: 0 by id, 1 by another id",
        "flickr: 0 by id, 1 by another id",
    ]


@pytest.mark.parametrize("content", [{}, {"images": [{}]}, {"images": 3}, {"images": []}])
def test_another_file_is_one_error(tmp_path, content):
    with pytest.raises(UserError, match=r"a\.json"):
        held_out({"coco": dump(tmp_path / "a.json", content)})


def test_no_benchmark_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no benchmark given"):
        write_overlap(tmp_path / "out.txt", {}, None, [])


COCO_PHOTO = {"id": 2, "flickr_url": "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg"}


@pytest.mark.parametrize(
    "content", [{}, [], {"images": []}, {"images": ["a"]}, {"images": [{"flickr_url": "/1_a.jpg"}]}, {"images": 3},
                {"images": [{"id": 2}]}, {"images": [{"id": 2, "flickr_url": None}]}],
)  # fmt: skip
def test_a_file_that_tells_no_image_at_flickr_is_one_error(tmp_path, content):
    benchmark, file = {"coco": karpathy(tmp_path / "c.json")}, dump(tmp_path / "captions.json", content)
    with pytest.raises(UserError, match=r"captions\.json: "):
        write_overlap(tmp_path / "out.txt", benchmark, None, [file])
    assert not (tmp_path / "out.txt").exists()


def test_an_image_without_address_leaves_the_others_their_twins(tmp_path):
    captions = dump(tmp_path / "captions.json", {"images": [{"id": 3, "flickr_url": None}, COCO_PHOTO]})
    write_overlap(tmp_path / "out.txt", {"coco": karpathy(tmp_path / "c.json")}, None, [captions])
    assert "flickr30k-images/2970773875.jpg" in (tmp_path / "out.txt").read_text().split()


def test_cocos_twins_do_not_hide_that_visual_genomes_file_is_another(tmp_path):
    captions = dump(tmp_path / "captions.json", {"images": [COCO_PHOTO]})
    other = dump(tmp_path / "relationships.json", [{"image_id": 1, "relationships": []}])
    with pytest.raises(UserError, match=r"relationships\.json: no image with a coco_id .* image_data"):
        write_overlap(tmp_path / "out.txt", {"coco": karpathy(tmp_path / "c.json")}, other, [captions])


@pytest.mark.parametrize("place", ["c.json/out.txt", "folder"])
def test_a_list_that_cannot_be_written_is_one_error_before_any_work(tmp_path, place):
    karpathy(tmp_path / "c.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="--out"):
        write_overlap(tmp_path / place, {"coco": tmp_path / "none.json"}, None, [])
