"""`relvlm data index`: of a set that another program wrote."""

import argparse
import json

import pytest
from support.shards import shard_set, toy_photo, toy_sample, write_toys

from relvlm.data import cli
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
    with pytest.raises(UserError, match=r"s3://bucket/set: indexes are written beside the shards"):
        run("s3://bucket/set")


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
