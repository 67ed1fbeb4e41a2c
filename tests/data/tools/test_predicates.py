"""The list of GQA's predicates, by its policy, beside the paper's figures."""

import pytest
from support.raw_files import dump, gqa_graph, photo, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import gqa
from relvlm.data.tools import predicates
from relvlm.errors import UserError


def graph(*relations):
    """One in which 5 has these to 9, and 9 is right of 5."""
    found = gqa_graph()
    found["objects"]["5"]["relations"] = [{"name": name, "object": "9"} for name in relations]
    found["objects"]["9"]["relations"] = [{"name": "to the right of", "object": "5"}]
    return found


def listed(tmp_path, graphs, *flags):
    file = dump(tmp_path / "graphs.json", graphs)
    run(predicates, "--scene-graphs", file, "--out", tmp_path / "list.txt", *flags)
    return (tmp_path / "list.txt").read_text().splitlines()


GRAPHS = {"1": graph("Riding", "to the left of"), "2": graph(" near  by"), "3": graph("near by", "riding", "riding")}


def test_every_relation_that_a_build_keeps_names_a_predicate(tmp_path, capsys):
    assert listed(tmp_path, GRAPHS) == ["near by", "riding", "to the left of", "to the right of"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["graphs", "3", "74,942", ".1M"] in lines
    assert ["objects", "9", "1,231,134"] in lines
    assert ["relations", "stated", "12", "3,795,907"] in lines  # the thin rope's three among them
    assert ["relations", "kept", "8", "1.4M"] in lines  # one stands twice
    assert ["predicates", "4", "310"] in lines


@pytest.mark.parametrize(
    ("count", "names"), [("2", ["near by", "riding", "to the right of"]), ("3", ["to the right of"])]
)
def test_a_predicate_is_listed_from_a_count_on(tmp_path, count, names):
    assert listed(tmp_path, GRAPHS, "--min-count", count) == names


def test_of_mirrored_pairs_one_counts(tmp_path):
    assert "to the right of" in listed(tmp_path, GRAPHS, "--mirrored", "drop")
    (tmp_path / "list.txt").unlink()
    assert listed(tmp_path, {"1": GRAPHS["1"]}, "--mirrored", "drop") == ["riding", "to the left of"]


def test_an_image_of_two_files_counts_once(tmp_path, capsys):
    files = [dump(tmp_path / f"{n}.json", GRAPHS) for n in range(2)]
    run(predicates, "--scene-graphs", *files, "--out", tmp_path / "list.txt")
    said = capsys.readouterr().out
    assert "graphs                       3 " in said
    assert "3 of 6 image records left out, faulty: image id: stands twice" in said


def test_a_build_by_the_list_keeps_its_classes(tmp_path):
    """Also where the photo is missing that has one of them."""
    listed(tmp_path, GRAPHS)
    photo(tmp_path / "images" / "2.jpg")
    common = ("--scene-graphs", tmp_path / "graphs.json", "--images", tmp_path / "images")
    run(gqa, *common, "--relations", tmp_path / "list.txt", "--out", tmp_path / "gqa")
    assert (tmp_path / "gqa" / "relations.txt").read_text() == (tmp_path / "list.txt").read_text()
    assert len(ShardSet(tmp_path / "gqa")) == 1


def test_a_list_is_not_written_over(tmp_path):
    listed(tmp_path, GRAPHS)
    with pytest.raises(UserError, match="already exists"):
        listed(tmp_path, GRAPHS)


def test_a_list_comes_into_a_folder_that_is_made_for_it(tmp_path):
    file = dump(tmp_path / "graphs.json", GRAPHS)
    run(predicates, "--scene-graphs", file, "--out", tmp_path / "new" / "list.txt")
    assert (tmp_path / "new" / "list.txt").exists()
    with pytest.raises(UserError, match=r"--out: .*graphs\.json is a file"):  # before the graphs are looked for
        run(predicates, "--scene-graphs", tmp_path / "none.json", "--out", file / "list.txt")


def test_without_a_predicate_there_is_no_list(tmp_path):
    with pytest.raises(UserError, match="no predicate of 9 relations"):
        listed(tmp_path, GRAPHS, "--min-count", "9")
