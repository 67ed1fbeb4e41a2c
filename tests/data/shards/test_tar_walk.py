"""Tars that other programs wrote: members in any order, keys that are there twice."""

import pytest
from support.shards import shard_set, toy_photo, toy_sample

from relvlm.data.shards.index import REPEATED
from relvlm.data.shards.members import PositionedFile
from relvlm.data.shards.shard_file import encode_sample
from relvlm.data.shards.store import DataFault
from relvlm.data.shards.tar_walk import scan_members
from relvlm.errors import UserError


def image(key, number):
    return f"{key}.png", toy_photo(number)


def annotation(key, number):
    return f"{key}.json", encode_sample(toy_sample(number))


def test_an_image_and_its_json_may_lie_apart(tmp_path):
    members = [annotation("b", 2), image("a", 1), image("b", 2), annotation("a", 1)]
    shards = shard_set(tmp_path / "set", members, 2)
    found = {(r.key, r.image, r.sample) for r in map(shards.read, range(2))}
    assert found == {(key, toy_photo(n), toy_sample(n)) for key, n in (("a", 1), ("b", 2))}


@pytest.mark.parametrize(("between", "reads"), [([], 1), ([("x.bin", bytes(10_000))], 2)])
def test_neighbours_are_read_at_once_and_nothing_that_lies_between_others(tmp_path, monkeypatch, between, reads):
    shards = shard_set(tmp_path / "set", [image("a", 1), *between, annotation("a", 1)], 1)
    found, real = [], PositionedFile.read
    monkeypatch.setattr(PositionedFile, "read", lambda *of: found.append(of[2]) or real(*of))
    assert shards.read(0).sample == toy_sample(1)
    assert len(found) == reads and sum(found) < 4000


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
    assert [(found.key, found.marks) for found in scan_members(tmp_path / "set" / "0.tar")] == [
        ("a", REPEATED),
        ("b", 0),
    ]


@pytest.mark.parametrize("promised", [2, 4])
def test_a_tar_of_more_or_fewer_samples_than_promised_is_refused(tmp_path, promised):
    members = [m for n in range(3) for m in (image(f"k{n}", n), annotation(f"k{n}", n))]
    assert shard_set(tmp_path / "sound", members, 3).read(1).key == "k1"
    with pytest.raises(UserError, match=f"holds 3 samples, manifest.json says {promised}"):
        shard_set(tmp_path / "set", members, promised)


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff", b'{"schema": NaN}', b""])
def test_json_that_is_no_record_is_a_fault(tmp_path, data):
    shards = shard_set(tmp_path / "set", [image("a", 1), ("a.json", data)], 1)
    with pytest.raises(DataFault, match=r"0\.tar: a: invalid"):
        shards.read(0)
