"""Tars that other programs wrote: members in any order, keys that are there twice."""

import hashlib
import json

import pytest
from support.shards import toy_photo, toy_sample, write_tar

from relvlm.data.shards.store import DataFault, ShardSet, encode_sample
from relvlm.data.shards.tar_index import scan_members


def shard_set(folder, members, samples):
    """A set of one shard of these members, for which the manifest promises `samples`."""
    folder.mkdir()
    tar = write_tar(folder / "0.tar", members)
    data = tar.read_bytes()
    entry = {"name": tar.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "samples": samples}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "source": "toy", "shards": [entry]}))
    return ShardSet(folder)


def image(key, number):
    return f"{key}.png", toy_photo(number)


def annotation(key, number):
    return f"{key}.json", encode_sample(toy_sample(number))


def test_an_image_and_its_json_may_lie_apart(tmp_path):
    members = [annotation("b", 2), image("a", 1), image("b", 2), annotation("a", 1)]
    shards = shard_set(tmp_path / "set", members, 2)
    found = {(r.key, r.image, r.sample) for r in map(shards.read, range(2))}
    assert found == {(key, toy_photo(n), toy_sample(n)) for key, n in (("a", 1), ("b", 2))}


@pytest.mark.parametrize(
    "twice",
    [
        [image("a", 1), annotation("a", 1), annotation("a", 2)],
        [image("a", 1), annotation("a", 1), image("a", 2), annotation("a", 2)],
        [image("a", 1), ("a.jpg", toy_photo(2)), annotation("a", 1)],
    ],
)
def test_a_key_that_is_there_twice_is_a_fault_and_no_guess(tmp_path, twice):
    shards = shard_set(tmp_path / "set", [*twice, image("b", 3), annotation("b", 3)], 2)
    with pytest.raises(DataFault, match=r"0\.tar: a: the key is there more than once"):
        shards.read(0)
    assert shards.read(1).sample == toy_sample(3)
    assert scan_members(tmp_path / "set" / "0.tar").repeated == {"a"}


def test_samples_beyond_those_promised_are_a_fault_of_the_shard(tmp_path):
    members = [m for n in range(3) for m in (image(f"k{n}", n), annotation(f"k{n}", n))]
    assert shard_set(tmp_path / "sound", members, 3).read(1).key == "k1"
    with pytest.raises(DataFault, match=r"3 samples found in the tar, manifest.json says 2"):
        shard_set(tmp_path / "set", members, 2).read(0)


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff", b'{"schema": NaN}', b""])
def test_json_that_is_no_record_is_a_fault(tmp_path, data):
    shards = shard_set(tmp_path / "set", [image("a", 1), ("a.json", data)], 1)
    with pytest.raises(DataFault, match=r"0\.tar: a: invalid"):
        shards.read(0)
