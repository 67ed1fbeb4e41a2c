"""`relvlm data index`: of a set that another program wrote."""

import argparse
import json

import pytest
from support.shards import shard_set, toy_photo, toy_sample, write_tar, write_toys

from relvlm.config.cache import CacheConfig
from relvlm.data import cli
from relvlm.data.shards import fetching
from relvlm.data.shards.shard_file import encode_sample
from relvlm.data.shards.store import DataFault, ShardSet
from relvlm.errors import UserError


def run(*flags):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.main(parser.parse_args(["index", *map(str, flags)]))


def strip(folder):
    """As a builder without indexes leaves a set."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["shards"] = [{k: s[k] for k in ("name", "sha256", "bytes", "samples")} for s in manifest["shards"]]
    file.write_text(json.dumps(manifest))
    for index in folder.glob("*.idx.npy"):
        index.unlink()


def test_it_writes_what_the_builder_writes(tmp_path, capsys):
    folder = write_toys(tmp_path / "set", 5)
    built = {file.name: file.read_bytes() for file in folder.iterdir()}
    strip(folder)
    assert run(folder) == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == built
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("set: 5 records: 5 have captions, 5 have entities, 5 have relations\n")


def test_records_that_cannot_be_read_are_named_and_have_no_use(tmp_path, capsys):
    members = [("a.png", toy_photo(0)), ("a.json", b"[]"), ("b.png", toy_photo(1)), ("c.json", b"{}")]
    members += [("d.png", toy_photo(2)), ("d.json", encode_sample(toy_sample(2))), ("e.png", b"")]
    members += [("f.png", toy_photo(2)), ("f.json", encode_sample(toy_sample(2))), ("f.jpg", toy_photo(3))]
    shards = shard_set(tmp_path / "set", members, 6)
    assert run(tmp_path / "set") == 1
    assert capsys.readouterr().out.splitlines() == [
        "0.tar: a: invalid sample: record: [] is no JSON object",
        "0.tar: b: no json",
        "0.tar: c: no image",
        "0.tar: e: no json",
        "0.tar: f: the key is there more than once",
    ]
    entry = shards.shards[0]
    assert (entry.captions, entry.entities, entry.relations) == (1, 1, 1)
    assert shards.index(0).positions(1).tolist() == [3]
    for position, reason in ((1, "no JSON"), (2, "no image"), (5, "more than once")):
        with pytest.raises(DataFault, match=reason):
            shards.read(position)


def test_an_address_is_refused():
    with pytest.raises(UserError, match=r"s3://bucket/set: indexes are written into a folder"):
        run("s3://bucket/set")


def tars_alone(tmp_path, count=7):
    """The tars of a set behind a command that says what it is asked for, and nothing else."""
    folder = write_toys(tmp_path / "set", count)
    for file in folder.iterdir():
        if file.suffix != ".tar":
            file.unlink()
    return f"pipe:echo {{}} >> {tmp_path}/asked; cat {folder}/{{}}"


def test_tars_behind_a_command_are_indexed_in_one_pass_and_then_exact(tmp_path, capsys):
    other = ShardSet(write_toys(tmp_path / "other", 7))
    here = [other.read(i) for i in range(7)]
    place = f"{tmp_path / 'index'}::{tars_alone(tmp_path)}"
    assert run(place, "--tars", "{000000..000002}.tar") == 0
    assert (tmp_path / "asked").read_text().split() == ["000000.tar", "000001.tar", "000002.tar"]
    assert capsys.readouterr().err.endswith("7 records: 7 have captions, 7 have entities, 7 have relations\n")
    made = {file.name for file in (tmp_path / "index").iterdir()}
    assert made == {"manifest.json", "relations.txt", *(f"00000{n}.idx.npy" for n in range(3))}
    shards = ShardSet(place, CacheConfig(str(tmp_path / "cache")))
    assert [shards.read(i) for i in range(7)] == here
    assert shards.manifest["totals"]["samples"] == shards.manifest["totals"]["captions"] == 7
    for name in ("000000.idx.npy", "relations.txt"):
        assert (tmp_path / "index" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_stream_that_gives_other_bytes_than_were_indexed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    place = f"{tmp_path / 'index'}::{tars_alone(tmp_path)}"
    run(place, "--tars", "{000000..000002}.tar")
    data = bytearray((tmp_path / "set" / "000001.tar").read_bytes())
    data[700] ^= 1
    (tmp_path / "set" / "000001.tar").write_bytes(data)
    shards = ShardSet(place, CacheConfig(str(tmp_path / "cache"), tries=2))
    assert shards.read(0).key == "k0"
    with pytest.raises(UserError, match=r"000001\.tar.*: cannot be fetched, 2 tries; the last: Corrupt: SHA-256"):
        shards.read(3)


def test_a_record_of_a_stream_that_cannot_be_read_is_named_and_counted(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    members = [("a.png", toy_photo(0)), ("a.json", b"[]"), ("b.png", toy_photo(1))]
    write_tar(tmp_path / "set" / "0.tar", [*members, ("b.json", encode_sample(toy_sample(1)))])
    place = f"{tmp_path / 'index'}::pipe:cat {tmp_path}/set/{{}}"
    assert run(place, "--tars", "0.tar") == 1
    assert capsys.readouterr().out == "0.tar: a: invalid sample: record: [] is no JSON object\n"
    assert len(ShardSet(place, CacheConfig(str(tmp_path / "cache")))) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("set", "--tars", "0.tar"), "--tars goes with DIR::ADDRESS"),
        (("index::pipe:cat set/{}",), "--tars goes with DIR::ADDRESS"),
        (("index::pipe:cat set/{}", "--tars", "{0..2.tar"), "--tars .*: Unbalanced braces"),
        (("index::pipe:cat set/{}", "--tars", "{0..2}"), "--tars .*: '0' is no plain name"),
        (("index::pipe:cat set/{}", "--tars", "{0,0}.tar"), "--tars .*: '0.tar' is .* there twice"),
        (("index::pipe:cat set/{}", "--tars", "../0.tar"), "--tars .*: '../0.tar' is no plain name"),
        (
            ("index::pipe:cat none/{}", "--tars", "0.tar"),
            "cannot be fetched, 5 tries; the last: OSError: exit status 1",
        ),
        (("index::pipe:printf ''; true {}", "--tars", "0.tar"), "no tar has a sample"),
        (("index::memory://none", "--tars", "0.tar"), r"memory://none/0\.tar: no such file \(check --tars\)"),
    ],
)
def test_what_cannot_be_indexed_leaves_nothing(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    write_toys(tmp_path / "set", 3)
    with pytest.raises(UserError, match=message):
        run(*flags)
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_a_tar_that_is_not_the_manifests_is_refused_and_nothing_changes(tmp_path):
    folder = write_toys(tmp_path / "set", 5)
    strip(folder)
    before = (folder / "manifest.json").read_bytes()
    data = bytearray((folder / "000001.tar").read_bytes())
    data[700] ^= 1
    (folder / "000001.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"000001\.tar: SHA-256 differs from manifest\.json"):
        run(folder)
    assert (folder / "manifest.json").read_bytes() == before
    with pytest.raises(UserError, match="lists no index"):
        ShardSet(folder)
