import io
import json
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import DataFault, ShardSet, write_shards
from relvlm.data.shards.tar_walk import scan_members
from relvlm.errors import UserError


def encoded(number, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (number * 20 % 256, 0, 0)).save(stream, kind)
    return stream.getvalue()


def sample(number):
    entities = (Entity("a", "dog", (0, 0, 4, 4)), Entity("b", "cat", (4, 1, 8, 6), ("red",)))
    return Sample(str(number), 8, 6, "toy", (f"caption {number}",), entities, (Relation("a", "near", "b"),))


def samples(count, kind="PNG"):
    return [(f"{n:04d}", encoded(n, kind), sample(n)) for n in range(count)]


def build(out, count=7, shard_size=3, kind="PNG"):
    write_shards(out, samples(count, kind), source="toy", builder_args={"n": count}, shard_size=shard_size)
    return ShardSet(out)


def poke(path, offset, data):
    """Overwrite bytes in place: the file keeps its size."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def header_of(path, name):
    with tarfile.open(path) as tar:
        return tar.getmember(name).offset


def data_of(path, name):
    with tarfile.open(path) as tar:
        return tar.getmember(name).offset_data


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_reads_what_was_written(tmp_path, kind):
    shards = build(tmp_path / "set", kind=kind)
    assert len(shards) == 7
    for number in (6, 0, 3, 2):
        record = shards.read(number)
        assert (record.key, record.shard) == (f"{number:04d}", f"{number // 3:06d}.tar")
        assert record.image == encoded(number, kind)
        assert record.sample == sample(number)


def test_manifest_counts_shards_samples_and_bytes(tmp_path):
    manifest = build(tmp_path / "set").manifest
    sizes = [(tmp_path / "set" / s["name"]).stat().st_size for s in manifest["shards"]]
    assert [s["samples"] for s in manifest["shards"]] == [3, 3, 1]
    assert [s["bytes"] for s in manifest["shards"]] == sizes
    counts = {"samples": 7, "captions": 7, "entities": 14, "relations": 7, "predicates": 1}
    assert manifest["totals"] == {"shards": 3, "bytes": sum(sizes), **counts}
    assert manifest["source"] == "toy" and manifest["builder"]["arguments"] == {"n": 7}
    assert (tmp_path / "set" / "manifest.json").read_text() == json.dumps(manifest, indent=2) + "\n"


def test_equal_input_gives_equal_bytes(tmp_path):
    build(tmp_path / "one")
    build(tmp_path / "two")
    names = sorted(f.name for f in (tmp_path / "one").iterdir())
    shards = [f"{number:06d}.{suffix}" for number in range(3) for suffix in ("idx.npy", "tar")]
    assert names == [*shards, "manifest.json", "relations.txt"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_lists_the_predicates_and_what_was_skipped(tmp_path):
    skipped = []

    def lossy():
        yield from samples(1)
        skipped.append("2.jpg: no such photo")

    write_shards(tmp_path / "set", lossy(), source="toy", builder_args={}, skipped=skipped)
    assert (tmp_path / "set" / "relations.txt").read_text() == "near\n"
    assert (tmp_path / "set" / "skipped.txt").read_text() == "2.jpg: no such photo\n"


def test_webdataset_streams_the_same_samples(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    build(tmp_path / "set", kind="JPEG")
    stream = webdataset.WebDataset(str(tmp_path / "set" / "000000.tar"), shardshuffle=False)
    assert [(r["__key__"], json.loads(r["json"])["captions"]) for r in stream] == [
        (f"{n:04d}", [f"caption {n}"]) for n in range(3)
    ]


def test_a_failing_builder_leaves_nothing_behind(tmp_path):
    def broken():
        yield from samples(4)
        raise RuntimeError("photo lost")

    with pytest.raises(RuntimeError, match="photo lost"):
        write_shards(tmp_path / "set", broken(), source="toy", builder_args={}, shard_size=2)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "note").write_text("keep me")
    with pytest.raises(UserError, match="not an empty folder"):
        build(tmp_path)
    assert (tmp_path / "note").read_text() == "keep me"


def test_writes_into_an_empty_folder(tmp_path):
    (tmp_path / "set").mkdir()
    assert len(build(tmp_path / "set")) == 7


@pytest.mark.parametrize("key", ["a.b", "", "../up", "0000"])
def test_refuses_keys_that_are_unsafe_or_repeated(tmp_path, key):
    with pytest.raises(ValueError, match="key"):
        write_shards(tmp_path / "set", [*samples(1), (key, encoded(1), sample(1))], source="toy", builder_args={})


def test_refuses_a_box_outside_the_image(tmp_path):
    bad = Sample("1", 8, 6, entities=(Entity("a", "dog", (0, 0, 9, 6)),))
    with pytest.raises(ValueError, match="box"):
        write_shards(tmp_path / "set", [("k", encoded(1), bad)], source="toy", builder_args={})


def test_missing_manifest_names_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match=rf"no manifest.json in {tmp_path} \(run: relvlm data build"):
        ShardSet(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"schema": 99}', "schema: 99"),
        ('{"schema": 1}', "shards: empty"),
        ("[]", "schema"),
    ],
)
def test_a_bad_manifest_is_one_clear_error(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        ShardSet(tmp_path)


def test_a_shard_name_cannot_leave_the_folder(tmp_path):
    build(tmp_path / "set")
    file = tmp_path / "set" / "manifest.json"
    file.write_text(file.read_text().replace("000001.tar", "../000001.tar"))
    with pytest.raises(UserError, match="no plain file name"):
        ShardSet(tmp_path / "set")


def test_truncated_or_missing_shard_is_found_before_any_work(tmp_path):
    build(tmp_path / "set")
    shard = tmp_path / "set" / "000001.tar"
    os.truncate(shard, 1000)
    with pytest.raises(UserError, match=r"000001.tar: 1000 bytes"):
        ShardSet(tmp_path / "set")
    shard.unlink()
    with pytest.raises(UserError, match=r"000001.tar: missing"):
        ShardSet(tmp_path / "set")


def test_a_corrupt_header_costs_its_own_sample_only(tmp_path):
    build(tmp_path / "set")
    shard = tmp_path / "set" / "000000.tar"
    picture, annotation = (header_of(shard, f"0001.{suffix}") for suffix in ("png", "json"))
    for offset in (annotation, picture):
        poke(shard, offset, b"\x7f" * 512)
        shards = ShardSet(tmp_path / "set")
        with pytest.raises(DataFault, match="position 1: no image and JSON of one key") as fault:
            shards.read(1)
        assert fault.value.shard == "000000.tar"
        assert [shards.read(i).key for i in (0, 2, 3, 6)] == ["0000", "0002", "0003", "0006"]
    assert shards.verify() == ["000000.tar: SHA-256 differs from the manifest"]


def test_corrupt_json_is_a_fault_of_one_sample(tmp_path):
    build(tmp_path / "set")
    shard = tmp_path / "set" / "000000.tar"
    poke(shard, data_of(shard, "0001.json"), b"!!")
    shards = ShardSet(tmp_path / "set")
    with pytest.raises(DataFault, match=r"000000.tar: 0001: invalid JSON"):
        shards.read(1)
    assert shards.read(2).key == "0002"
    assert shards.verify() == ["000000.tar: SHA-256 differs from the manifest"]


@pytest.mark.parametrize("junk", [b"\x00", b"\xff", b"\x80\x00\xff7"])
def test_any_rubbish_in_a_shard_gives_faults_and_no_other_error(tmp_path, junk):
    build(tmp_path / "set", count=6, shard_size=6)
    shard = tmp_path / "set" / "000000.tar"
    size = shard.stat().st_size
    for start in range(0, size, 1536):
        poke(shard, start, (junk * 700)[:700][: size - start])
        shards = ShardSet(tmp_path / "set")
        for index in range(6):
            try:
                shards.read(index)
            except DataFault:
                continue
    with pytest.raises(DataFault):
        shards.read(5)


def test_a_member_that_claims_more_than_the_file_holds_is_not_indexed(tmp_path):
    info = tarfile.TarInfo("a.json")
    info.size = 2**50
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1024))
    assert scan_members(tmp_path / "x.tar") == []


def test_a_sound_set_verifies(tmp_path):
    assert build(tmp_path / "set").verify() == []


@pytest.mark.parametrize("index", [-1, 7])
def test_an_index_outside_the_set_is_an_error(tmp_path, index):
    with pytest.raises(IndexError):
        build(tmp_path / "set").read(index)


def test_members_that_would_escape_are_never_files_on_disk(tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("../x.json", tarfile.REGTYPE), ("y.json", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert [found.key for found in scan_members(path)] == ["../x"]
    assert [f.name for f in tmp_path.iterdir()] == ["evil.tar"]


def test_pickled_and_forked_readers_agree(tmp_path):
    shards = build(tmp_path / "set")
    expected = [shards.read(i) for i in range(7)]
    again = pickle.loads(pickle.dumps(shards))
    assert [again.read(i) for i in range(7)] == expected
    child = os.fork()
    if child == 0:
        os._exit(0 if [shards.read(i) for i in range(7)] == expected else 1)
    assert [shards.read(i) for i in range(7)] == expected
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_agree_though_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("relvlm.data.shards.store.OPEN_SHARDS", 1)
    shards = build(tmp_path / "set")
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda i: shards.read(i % 7).key, range(700)))
    assert keys == [f"{i % 7:04d}" for i in range(700)]


def test_a_fault_survives_the_way_from_a_worker():
    fault = pickle.loads(pickle.dumps(DataFault("0.tar", "k", "torn")))
    assert (fault.shard, fault.key, fault.reason, str(fault)) == ("0.tar", "k", "torn", "0.tar: k: torn")
