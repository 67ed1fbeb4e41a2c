"""An index says what a walk through the tar finds; one that is not the manifest's is refused by name."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from support.shards import shard_set, toy_photo, toy_sample, write_toys

from relvlm.data.shards.index import (
    CAPTION,
    ENTITY,
    LARGEST_TEXT,
    NOTHING,
    RELATION,
    IndexRows,
    ShardIndex,
    vocabulary_keys,
)
from relvlm.data.shards.manifest import file_sha256
from relvlm.data.shards.schema import Entity, Relation
from relvlm.data.shards.shard_file import encode_sample, write_shard
from relvlm.data.shards.store import DataFault, ShardSet, write_shards
from relvlm.data.tools.index import index_set
from relvlm.errors import UserError


def made(path, samples):
    rows = IndexRows()
    for number, sample in enumerate(samples):
        rows.add((1024 * number + 512, 7), (1024 * number + 1024, 9), sample)
    rows.write(path)
    return ShardIndex(path, file_sha256(path), len(samples))


@pytest.mark.parametrize("bytes_more", [0, 1, 300, 511, 512])
def test_it_equals_a_walked_tar_whatever_the_sizes(tmp_path, bytes_more):
    """Also where a member ends with its last block, or needs a new one for a byte."""
    photo = toy_photo(1)
    photo += b"\0" * (-len(photo) % 512) + b"\0" * bytes_more
    entry = write_shard(tmp_path / "0.tar", [(f"k{n}", photo, toy_sample(n)) for n in range(3)])
    index = ShardIndex(tmp_path / "0.idx.npy", entry.index, 3)
    with tarfile.open(tmp_path / "0.tar") as tar:
        for number in range(3):
            members = [tar.getmember(f"k{number}.{suffix}") for suffix in ("png", "json")]
            assert [(m.offset_data, m.size) for m in members] == list(index[number][:2])


def test_a_record_takes_sixteen_bytes(tmp_path):
    sizes = []
    for count in (100, 200):
        made(tmp_path / str(count), [replace(toy_sample(n), relations=()) for n in range(count)])
        sizes.append((tmp_path / str(count)).stat().st_size)
    assert sizes[1] - sizes[0] == 16 * 100


BARE = replace(toy_sample(0), captions=(), entities=(), relations=())
WORDLESS = Entity("w", " ...", (0, 0, 4, 4))


@pytest.mark.parametrize(
    ("sample", "bits"),
    [
        (toy_sample(0), CAPTION | ENTITY | RELATION),
        (BARE, 0),
        (replace(BARE, captions=("?!", "a")), CAPTION),
        (replace(BARE, captions=("?!", " - ", "")), 0),
        (replace(BARE, entities=(WORDLESS,)), 0),
        (replace(toy_sample(0), captions=(), relations=()), ENTITY),
        (replace(BARE, entities=(*toy_sample(0).entities, WORDLESS), relations=(Relation("a", "on", "w"),)), ENTITY),
    ],
)
def test_bits_tell_what_has_words(tmp_path, sample, bits):
    assert made(tmp_path / "index", [sample])[0].bits == bits


def test_positions_are_of_records_with_all_that_is_needed_and_a_relation_of_the_vocabulary(tmp_path):
    near, none = toy_sample(0), replace(toy_sample(1), relations=())
    on = replace(toy_sample(2), captions=(), relations=(Relation("a", "on", "b"), Relation("b", "near", "a")))
    index = made(tmp_path / "index", [near, none, on, near])
    assert index.positions(ENTITY).tolist() == [0, 1, 2, 3]
    assert index.positions(RELATION).tolist() == [0, 2, 3]
    assert index.positions(RELATION | CAPTION).tolist() == [0, 3]
    assert index.positions(RELATION, vocabulary_keys(["on", "under"])).tolist() == [2]
    assert index.positions(RELATION, vocabulary_keys(["near"])).tolist() == [0, 2, 3]
    assert index.positions(RELATION, vocabulary_keys(["under"])).tolist() == []
    assert made(tmp_path / "bare", [none]).positions(CAPTION, vocabulary_keys(["near"])).tolist() == []


def test_a_json_that_no_row_can_say_is_refused():
    rows = IndexRows()
    rows.add(NOTHING, (512, LARGEST_TEXT), BARE)
    with pytest.raises(ValueError, match="JSON of 16777216 bytes"):
        rows.add(NOTHING, (512, LARGEST_TEXT + 1), BARE)


NAMES = ["plain", "folder/plain", f"{'long' * 40}", f"{'a/' * 70}k", "\u00e9\u4e2d", f"{'x' * 80}/{'y' * 90}"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_records_of_odd_names_and_among_odd_members_are_found(tmp_path, form):
    names = [name for name in NAMES if form != tarfile.USTAR_FORMAT or len(name) < 100 or "x/y" in name]
    (tmp_path / "set").mkdir()
    tar = tmp_path / "set" / "0.tar"
    with tarfile.open(tar, "w", format=form) as stream:
        for number, name in enumerate(names):
            add(stream, f"{name}.txt", b"of no use")
            add(stream, f"{name}.png", toy_photo(number))
            add(stream, f"{name}.json", encode_sample(toy_sample(number)))
        link = tarfile.TarInfo("link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "plain.json"
        stream.addfile(link)
    entry = {"name": "0.tar", "sha256": file_sha256(tar), "bytes": tar.stat().st_size, "samples": len(names)}
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({"schema": 1, "shards": [entry]}))
    faulty = []
    index_set(tmp_path / "set", faulty)
    assert faulty == []
    shards = ShardSet(tmp_path / "set")
    found = [(r.key, r.image, r.sample) for r in map(shards.read, range(len(names)))]
    assert found == [(name, toy_photo(n), toy_sample(n)) for n, name in enumerate(names)]


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("change", [flipped, lambda data: data[:-16], lambda data: b"", lambda data: data + b"\0"])
def test_an_index_that_is_not_the_manifests_is_named(tmp_path, change):
    file = write_toys(tmp_path / "set", 4) / "000000.idx.npy"
    file.write_bytes(change(file.read_bytes()))
    shards = ShardSet(tmp_path / "set")
    with pytest.raises(UserError, match=r"000000\.idx\.npy: (is not|cannot be read).* run: relvlm data index \S+set\)"):
        shards.read(0)
    assert shards.read(3).key == "k3"


def test_a_missing_index_is_found_before_any_work(tmp_path):
    (write_toys(tmp_path / "set", 4) / "000001.idx.npy").unlink()
    with pytest.raises(UserError, match=r"000001\.idx\.npy: missing"):
        ShardSet(tmp_path / "set")


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), "<u4"), np.zeros((3, 4), "<i8"), np.zeros(12, "<u4")])
def test_an_index_of_another_form_is_refused(tmp_path, wrong):
    np.save(tmp_path / "0.idx.npy", wrong)
    with pytest.raises(UserError, match="holds no index of 3 records"):
        ShardIndex(tmp_path / "0.idx.npy", file_sha256(tmp_path / "0.idx.npy"), 3)


def test_a_set_without_indexes_says_how_to_make_them(tmp_path):
    manifest = write_toys(tmp_path / "set", 4) / "manifest.json"
    told = json.loads(manifest.read_text())
    del told["shards"][1]["index"]
    manifest.write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"lists no index of 000001\.tar \(run once: relvlm data index \S+set\)"):
        ShardSet(tmp_path / "set")
    index_set(tmp_path / "set", [])
    assert ShardSet(tmp_path / "set").read(3).key == "k3"


@pytest.mark.parametrize("more", [3, 30])  # within a block; elsewhere
def test_another_tar_of_the_same_size_is_a_fault_of_its_samples(tmp_path, more):
    def build(name, order, more):
        toys = [(f"k{n}", toy_photo(n) + bytes(more * n), toy_sample(n)) for n in order]
        write_shards(tmp_path / name, toys, source="toy", builder_args={})
        return tmp_path / name / "000000.tar"

    one, other = build("one", (0, 60, 1), more), build("other", (60, 0, 1), more)
    assert one.stat().st_size == other.stat().st_size
    one.write_bytes(other.read_bytes())
    shards = ShardSet(tmp_path / "one")
    with pytest.raises(DataFault, match=r"000000\.tar: position 1: no image and JSON of one key where the index says"):
        shards.read(1)


def test_places_beyond_the_tar_are_a_fault(tmp_path):
    shards = shard_set(tmp_path / "set", [("k.png", toy_photo(0)), ("k.json", encode_sample(toy_sample(0)))], 1)
    rows = IndexRows()
    rows.add((2**40, 2**32 - 1), (512, 9), toy_sample(0))
    rows.write(tmp_path / "set" / "0.idx.npy")
    shards.shards[0] = replace(shards.shards[0], index=file_sha256(tmp_path / "set" / "0.idx.npy"))
    with pytest.raises(DataFault, match="its index leads beyond the tar"):
        shards.read(0)
