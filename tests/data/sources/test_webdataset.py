"""Tars of img2dataset and of others."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_files import encoded, img2dataset_members, run, tar_of

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import cc12m
from relvlm.data.sources.faults import LeftOut, RecordFault
from relvlm.data.sources.webdataset import caption_and_url
from relvlm.errors import UserError


def records(folder):
    shards = ShardSet(folder)
    return [shards.read(i) for i in range(len(shards))]


def test_img2dataset_tars_become_shards_of_captions(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for tar in range(2):
        members = [m for n in range(3) for m in img2dataset_members(f"{tar:05d}{n:04d}", f"photo  {tar}{n}")]
        tar_of(folder / f"{tar:05d}.tar", members)
    run(cc12m, "--tars", folder, "--out", tmp_path / "out", "--shard-size", 4, "--processes", 2)
    found = records(tmp_path / "out")
    assert [r.sample.captions for r in found] == [(f"photo {tar}{n}",) for tar in range(2) for n in range(3)]
    assert found[0].key == "00000-000000000" and found[0].image == img2dataset_members("000000000", "")[0][1]
    assert {r.sample.source for r in found} == {"cc12m"}


def test_webp_and_caption_in_json_alone(tmp_path):
    image, described, _ = img2dataset_members("a/b c é", "a dog", kind="webp")
    run(cc12m, "--tars", tar_of(tmp_path / "0.tar", [image, described]), "--out", tmp_path / "out")
    [record] = records(tmp_path / "out")
    assert record.sample.captions == ("a dog",) and record.image.startswith(b"\xff\xd8\xff")


def test_what_is_missing_is_a_fault(tmp_path):
    members = [*img2dataset_members("1", "a dog"), ("2.jpg", encoded()), ("3.txt", b"no photo")]
    members += [("4.jpg", encoded()), ("4.txt", b"\xff"), *img2dataset_members("5", " ")]
    flags = ("--out", tmp_path / "out", "--max-faults", ".9")
    run(cc12m, "--tars", tar_of(tmp_path / "0.tar", members), *flags)
    assert [r.key for r in records(tmp_path / "out")] == ["0-1"]
    log = (tmp_path / "out" / "build.log").read_text()
    for reason in ("caption: missing", "no photo", "txt: not UTF-8", "caption: empty"):
        assert f"1 of 5 image records left out, {'by rule' if 'empty' in reason else 'faulty'}: {reason}" in log


def test_a_tar_cut_short_gives_what_it_has(tmp_path):
    members = [m for n in range(5) for m in img2dataset_members(str(n), f"dog {n}")]
    tar = tar_of(tmp_path / "0.tar", members)
    tar.write_bytes(tar.read_bytes()[: 3 * 512 * 7 + 600])
    run(cc12m, "--tars", tar, "--out", tmp_path / "out", "--max-faults", ".9")
    assert 1 <= len(records(tmp_path / "out")) < 5


def test_no_tar_and_the_same_name_twice_are_errors(tmp_path):
    with pytest.raises(UserError, match="no tar"):
        run(cc12m, "--tars", tmp_path, "--out", tmp_path / "out")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tar_of(tmp_path / name / "0.tar", img2dataset_members("1", "a dog"))
    with pytest.raises(UserError, match=r"0\.tar is there twice"):
        run(cc12m, "--tars", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda inner: st.lists(inner), max_leaves=4
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from(["caption", "url", "key"]), ANY), st.none() | st.binary(max_size=9))
def test_odd_texts_are_a_caption_that_stood_there_or_a_fault(described, txt):
    texts = {"json": json.dumps(described).encode()} | ({} if txt is None else {"txt": txt})
    try:
        caption, _ = caption_and_url(texts)
    except (RecordFault, LeftOut):
        return
    told = described["caption"] if txt is None else txt.decode()
    assert caption == " ".join(told.split()) and caption
