"""Tars that other programs wrote: members in any order, keys that are there twice."""

import io
import tarfile

import pytest
from support.shards import shard_set, toy_photo, toy_sample
from webdataset import TarWriter

from relvlm.data.shards import tar_walk
from relvlm.data.shards.index import REPEATED
from relvlm.data.shards.members import PositionedFile
from relvlm.data.shards.shard_file import encode_sample
from relvlm.data.shards.store import DataFault
from relvlm.data.shards.tar_walk import headers, scan_members
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


def written(path, members, times=False, format=tarfile.PAX_FORMAT):
    """A tar of (name, size), with the odd times that webdataset's writer gives if asked for."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, size in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = size, 1.5 if times else 1
            tar.addfile(info, io.BytesIO(b"x" * size))
    return path


def by_tarfile(path):
    with tarfile.open(path, "r:", ignore_zeros=True) as tar:
        return [(m.name, m.size, m.offset_data) for m in tar if m.isreg()]


PLAIN = [("a.jpg", 700), ("a.json", 0), ("b/c.jpg", 512), ("b/c.txt", 1)]
LONG = [("a.jpg", 3), (f"{'x' * 120}.jpg", 5), ("\u00e9.jpg", 7), ("d.jpg", 9)]


@pytest.fixture
def without_tarfile(monkeypatch):
    monkeypatch.setattr(tar_walk, "_by_tarfile", lambda path: pytest.fail("tarfile was asked"))


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ordinary_members_are_found_without_tarfile(tmp_path, without_tarfile, times, format):
    path = written(tmp_path / "a.tar", PLAIN, times and format == tarfile.PAX_FORMAT, format)
    assert list(headers(path)) == by_tarfile(path)


def test_a_tar_of_webdatasets_writer_is_ordinary(tmp_path, without_tarfile):
    with TarWriter(str(tmp_path / "a.tar"), encoder=False) as writer:
        for n in range(3):
            writer.write({"__key__": f"{n}", "jpg": b"x" * 600 * n, "txt": b"a"})
    assert list(headers(tmp_path / "a.tar")) == by_tarfile(tmp_path / "a.tar") and by_tarfile(tmp_path / "a.tar")


def extended(path):
    with tarfile.open(path, "w") as tar:
        for kind, name in ((tarfile.REGTYPE, "a.jpg"), (tarfile.DIRTYPE, "d"), (tarfile.SYMTYPE, "l")):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("d/b.jpg"))


def one_behind_the_other(path):
    path.write_bytes(written(path, PLAIN).read_bytes() + written(path, LONG).read_bytes())


def behind_many_zeros(path):
    path.write_bytes(written(path, PLAIN).read_bytes() + bytes(1 << 17) + written(path, LONG).read_bytes())


def damaged(path):
    data = bytearray(written(path, PLAIN).read_bytes())
    data[1536 + 5] ^= 1  # in the second header
    path.write_bytes(data)


def cut(path):
    path.write_bytes(written(path, PLAIN).read_bytes()[:2300])


@pytest.mark.parametrize("make", [extended, one_behind_the_other, behind_many_zeros, damaged, cut])
def test_what_is_not_ordinary_is_found_as_by_tarfile(tmp_path, make):
    make(tmp_path / "a.tar")
    assert list(headers(tmp_path / "a.tar")) == list(tar_walk._by_tarfile(tmp_path / "a.tar"))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_found_as_by_tarfile(tmp_path, format):
    path = written(tmp_path / "a.tar", LONG, format=format)
    assert [name for name, *_ in headers(path)] == [name for name, _ in LONG]
    assert list(headers(path)) == by_tarfile(path)
