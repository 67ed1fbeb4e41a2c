"""Any folder of photos with a JSONL of samples."""

import json

import pytest
from support.raw_files import photo, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import records
from relvlm.errors import UserError

GRAPH = {
    "entities": [
        {"id": "a", "label": "man", "box": [0, 0, 9, 9]},
        {"id": "b", "label": "horse", "box": [5, 5, 40, 30]},
    ],
    "relations": [{"subject": "a", "predicate": "riding", "object": "b", "provenance": "model"}],
}


def build(folder, lines, *flags):
    photo(folder / "images" / "a.jpg")
    photo(folder / "images" / "b.jpg")
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--jsonl", folder / "mine.jsonl", "--images", folder / "images", "--out", folder / "out", *flags)
    run(records, *flags)
    shards = ShardSet(folder / "out")
    return [shards.read(i).sample for i in range(len(shards))]


def test_lines_become_samples(tmp_path):
    first, second = build(
        tmp_path, [{"image": "a.jpg", **GRAPH}, {"image": "b.jpg", "captions": ["x"], "source": "mine"}]
    )
    assert (first.image_id, first.width, first.source) == ("a", 40, "records")
    assert (first.relations[0].predicate, first.relations[0].provenance) == ("riding", "model")
    assert second.captions == ("x",) and second.source == "mine"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"image": "a.jpg", "caption": ["x"]}, "caption: no sample"),
        ({"image": "a.jpg", "captions": "x"}, "captions: no sample"),
        ({"captions": ["x"]}, "image: missing"),
        ({"image": "a.jpg", **GRAPH, "relations": [{"subject": "a", "predicate": "on", "object": "c"}]}, "relations"),
        (
            {"image": "a.jpg", "entities": [{"id": "a", "label": "x", "box": [0, 0, 41, 9]}]},
            r"entities\[n\].box: no sample",
        ),
        *(
            (
                {"image": "a.jpg", **GRAPH, "relations": [{"subject": "a", "predicate": p, "object": "b"}]},
                "predicate: empty, or",
            )
            for p in ("", "on ", "on  top of", "on\ntop of")
        ),
        ({"image": "a.jpg", "width": 41, "height": 30}, "another size"),
        ([], "record: no JSON object"),
    ],
)
def test_a_line_that_is_no_sample_is_a_fault(tmp_path, line, reason):
    with pytest.raises(UserError, match=reason):
        build(tmp_path, [line, {"image": "b.jpg"}], "--max-faults", "0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flags", "kept"), [((), ["c", "d"]), (("--source", "coco"), ["d"])])
def test_test_images_are_known_by_their_folder_and_by_the_source(tmp_path, flags, kept):
    names = ["val2014/42.jpg", "coco/COCO_val2014_000000000042.jpg", "42.jpg", "val2014/43.jpg"]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(tmp_path / "images" / name)
    lines = [{"image": name, "captions": [caption]} for name, caption in zip(names, "abcd", strict=True)]
    (tmp_path / "overlap.txt").write_text("val2014/42.jpg\n")
    samples = build(tmp_path, lines, "--overlap", tmp_path / "overlap.txt", *flags)
    assert [caption for sample in samples for caption in sample.captions] == kept
