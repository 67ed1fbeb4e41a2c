"""A folder or an address: what is which, and which is refused."""

import pytest

from relvlm.data.shards.address import Address, place_of
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError


@pytest.mark.parametrize("text", ["pipe:cat x.tar", "pipe:aws s3 cp s3://a/b -"])
def test_a_pipe_is_refused_with_a_reason(text):
    with pytest.raises(UserError, match=r"^pipe:.*once and in its own order"):
        place_of(text)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UserError, match=r"^nonsense://a/manifest\.json: .*nonsense"):
        ShardSet("nonsense://a")


@pytest.mark.parametrize(("text", "address"), [("a/b", False), ("/a:b", False), ("s3://a/b", True), ("file.v2", False)])
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
