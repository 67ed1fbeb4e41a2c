"""SBU, CC3M and CC12M: tables whose photos were downloaded, and tars."""

import pytest
from support.raw_files import img2dataset_members, run, tar_of, web_photos

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import cc3m, cc12m, sbu
from relvlm.errors import UserError

URLS = [f"http://a.org/pictures/p{n}.jpg?x=1" for n in range(4)]
FLICKR = "http://static.flickr.com/2723/4385058960_b0f291553e.jpg"


def table(path, rows):
    path.write_bytes(b"".join("\t".join(row).encode() + b"\n" for row in rows))
    return path


def captions(folder):
    shards = ShardSet(folder)
    return {s.image_id: s.captions for s in (shards.read(i).sample for i in range(len(shards)))}


def test_cc3m_is_caption_then_url_and_cc12m_url_then_caption(tmp_path):
    images = web_photos(tmp_path / "images", [f"{n:09d}.jpg" for n in range(4)])
    rows = [(f"a  photo of <PERSON>, {n}", url) for n, url in enumerate(URLS)]
    run(cc3m, "--table", table(tmp_path / "a.tsv", rows), "--images", images, "--out", tmp_path / "cc3m")
    turned = [(url, caption) for caption, url in rows]
    run(cc12m, "--table", table(tmp_path / "b.tsv", turned), "--images", images, "--out", tmp_path / "cc12m")
    expected = {f"{n:09d}": (f"a photo of <PERSON>, {n}",) for n in range(4)}
    assert captions(tmp_path / "cc3m") == captions(tmp_path / "cc12m") == expected


@pytest.mark.parametrize(("source", "header"), [(cc3m, ("caption", "url")), (cc12m, ("url", "caption"))])
def test_a_table_may_have_a_header_which_is_no_row(tmp_path, source, header):
    images = web_photos(tmp_path / "images", ["0.jpg"])
    row = [{"caption": "a dog", "url": URLS[0]}[column] for column in header]
    flags = ("--images", images, "--photo-name", "{row}.jpg", "--out", tmp_path / "out")
    run(source, "--table", table(tmp_path / "a.tsv", [header, row]), *flags)
    assert captions(tmp_path / "out") == {"0": ("a dog",)}


def test_columns_the_wrong_way_round_are_an_error(tmp_path):
    images = web_photos(tmp_path / "images", ["000000000.jpg"])
    rows = table(tmp_path / "a.tsv", [(url, "a dog") for url in URLS])
    with pytest.raises(UserError, match="are the columns in another order"):
        run(cc3m, "--table", rows, "--images", images, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_odd_rows_are_faults_and_photos_that_are_gone_are_not(tmp_path):
    images = web_photos(tmp_path / "images", ["p0.jpg"])
    rows = [("a dog", URLS[0]), ("a", "b", URLS[1]), ("a cat", "no address"), ("  ", URLS[2]), ("gone", URLS[3])]
    file = table(tmp_path / "a.tsv", rows)
    file.write_bytes(file.read_bytes() + b"\xff\t" + URLS[0].encode() + b"\n\n")
    run(cc3m, "--table", file, "--images", images, "--photo-name", "{url_name}", "--out", tmp_path / "out")
    assert captions(tmp_path / "out") == {"p0": ("a dog",)}
    log = (tmp_path / "out" / "build.log").read_text()
    for line in (
        "1 of 6 image records left out, faulty: not 2 columns with tabs between",
        "1 of 6 image records left out, faulty: not UTF-8",
        "1 of 6 image records left out, faulty: url: no address",
        "1 of 6 image records left out, by rule: caption: empty",
        "1 of 2 photo records left out, by rule: no such photo",
        "a.tsv[1]: not 2 columns",
    ):
        assert line in log
    assert (tmp_path / "out" / "skipped.txt").read_text() == "p3.jpg: no such photo\n"


@pytest.mark.parametrize("form", ["photo.jpg", "{line}.jpg", "{row", "{row.a}", "{}"])
def test_a_form_of_names_that_tells_no_photos_apart_is_refused(tmp_path, form):
    file = table(tmp_path / "a.tsv", [("a dog", URLS[0])])
    with pytest.raises(UserError, match="--photo-name"):
        run(cc3m, "--table", file, "--images", tmp_path, "--photo-name", form, "--out", tmp_path / "out")


def test_sbu_has_flickr_ids_from_tables_pairs_of_files_and_tars(tmp_path):
    images = web_photos(tmp_path / "images", ["4385058960_b0f291553e.jpg"])
    run(sbu, "--table", table(tmp_path / "a.tsv", [("a dog", FLICKR)]), "--images", images, "--out", tmp_path / "table")
    (tmp_path / "urls.txt").write_text(FLICKR + "\n")
    (tmp_path / "captions.txt").write_text("a dog\n")
    pair = ("--urls", tmp_path / "urls.txt", "--captions", tmp_path / "captions.txt", "--images", images)
    run(sbu, *pair, "--out", tmp_path / "pair")
    run(
        sbu, "--tars", tar_of(tmp_path / "0.tar", img2dataset_members("1", "a dog", FLICKR)), "--out", tmp_path / "tars"
    )
    for name in ("table", "pair", "tars"):
        assert captions(tmp_path / name) == {"4385058960": ("a dog",)}


def test_sbu_files_of_unequal_length_are_an_error(tmp_path):
    images = web_photos(tmp_path / "images", ["4385058960_b0f291553e.jpg"])
    (tmp_path / "urls.txt").write_text(FLICKR + "\n" + FLICKR + "\n")
    (tmp_path / "captions.txt").write_text("a dog\n")
    with pytest.raises(UserError, match="not as many lines"):
        run(
            sbu,
            *("--urls", tmp_path / "urls.txt", "--captions", tmp_path / "captions.txt"),
            *("--images", images, "--out", tmp_path / "out"),
        )


@pytest.mark.parametrize("flags", [(), ("--table", "a.tsv"), ("--table", "a.tsv", "--tars", "a.tar")])
def test_what_to_give_is_said(tmp_path, flags):
    with pytest.raises(UserError, match=r"--table|--images"):
        run(cc3m, *flags, "--out", tmp_path / "out")
