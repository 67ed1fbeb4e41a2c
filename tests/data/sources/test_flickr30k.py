"""Flickr30K by Karpathy's splits."""

from support.raw_files import dump, run, web_photos

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import flickr30k


def annotations(folder):
    """The official form, a photo a split."""
    images = [
        {
            "sentids": [n],
            "imgid": n,
            "filename": f"{1000 + n}.jpg",
            "split": split,
            "sentences": [{"raw": f" A {split}  photo."}],
        }
        for n, split in enumerate(("train", "val", "test"))
    ]
    return dump(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})


def captions(tmp_path, *flags):
    images = web_photos(tmp_path / "flickr30k-images", [f"{1000 + n}.jpg" for n in range(3)])
    run(flickr30k, "--annotations", annotations(tmp_path), "--images", images, "--out", tmp_path / "out", *flags)
    shards = ShardSet(tmp_path / "out")
    return {s.image_id: s.captions for s in (shards.read(i).sample for i in range(len(shards)))}


def test_the_training_split_alone_unless_more_is_asked_for(tmp_path):
    assert captions(tmp_path) == {"1000": ("A train photo.",)}
    log = (tmp_path / "out" / "build.log").read_text()
    assert "1 of 3 image records left out, by rule: of the test split" in log


def test_other_splits_on_request(tmp_path):
    assert set(captions(tmp_path, "--splits", "train", "val")) == {"1000", "1001"}
