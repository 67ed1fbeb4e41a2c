"""A folder or an address: what is which, and which is refused."""

from pathlib import Path

import pytest

from relvlm.data.shards.address import Address, SplitPlace, place_of
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError


@pytest.mark.parametrize("text", ["pipe:cat x.tar", "data/coco::pipe:aws s3 cp s3://a/b -"])
def test_a_command_that_gives_one_file_is_refused_with_what_to_write(text):
    with pytest.raises(UserError, match=r"^pipe:.*gives one file.*\(pipe:cat FOLDER/\{\}\)"):
        place_of(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pipe:cat /data/coco/{}", "coco"),
        ("pipe:aws s3 cp s3://bucket/sets/coco/{} -", "coco"),
        ("pipe:cat '/data/my sets/coco'/{} | zstd -d", "coco"),
        ("pipe:fetch {}", "pipe"),
    ],
)
def test_a_command_has_the_name_of_the_folder_before_a_file(text, name):
    assert place_of(text).name == name


def test_a_files_name_is_put_into_a_command_as_one_word():
    place = place_of("pipe:cat a/{} b/{}")
    assert place / "0.tar" == "pipe:cat a/0.tar b/0.tar"
    assert place / "x; rm y" == "pipe:cat a/'x; rm y' b/'x; rm y'"


@pytest.mark.parametrize("address", ["s3://bucket/coco", "pipe:cat /x/{}"])
def test_tars_may_lie_elsewhere_than_what_tells_of_them(address):
    place = place_of(f"data/coco::{address}")
    assert isinstance(place, SplitPlace) and (place.folder, place.tars) == (Path("data/coco"), address)
    assert place / "0.tar" == place_of(address) / "0.tar"
    assert place / "manifest.json" == Path("data/coco/manifest.json") and place.name == "coco"
    assert place_of(str(place)) == place


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UserError, match=r"^nonsense://a/manifest\.json: .*nonsense"):
        ShardSet("nonsense://a")


@pytest.mark.parametrize(
    ("text", "address"), [("a/b", False), ("/a:b", False), ("s3://a/b", True), ("file.v2", False), ("a::b", False)]
)
def test_an_address_is_told_from_a_folder(text, address):
    assert isinstance(place_of(text), Address) == address and str(place_of(text)) == text


def test_names_are_put_behind_an_address_as_behind_a_folder():
    for text in ("s3://bucket/sets/coco", "s3://bucket/sets/coco/"):
        assert place_of(text).name == "coco" and place_of(text) / "0.tar" == "s3://bucket/sets/coco/0.tar"


def test_a_package_that_is_missing_is_named_with_what_brings_it(monkeypatch):
    fsspec = pytest.importorskip("fsspec")

    def without(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without)
    with pytest.raises(UserError, match=r"Install s3fs to access S3 \(pip install 'relvlm\[remote\]'\)"):
        ShardSet("s3://bucket/set")
