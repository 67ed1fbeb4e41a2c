"""Pictures of tails and of pairs: what they are drawn from."""

import pytest

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.statistics import Pairs, describe
from relvlm.data.tools.plots import TOP, tails, together, write_plots
from relvlm.errors import UserError


def samples(relations=True):
    for n in range(TOP + 5):
        entities = (Entity("a", f"thing {n % 7}", (0, 0, 9, 9)), Entity("b", "cat $", (0, 0, 5, 5)))
        triplets = tuple(Relation("a", f"p{k}", "b") for k in range(n)) if relations else ()
        yield Sample(str(n), 10, 10, "toy", (), entities, triplets)


def counted(**kwargs):
    pairs = Pairs()
    return describe(pairs.count(samples(**kwargs))), pairs


def test_tails_are_the_counts_by_rank():
    figures, _ = counted()
    ranked, share = tails(figures).axes
    curve = next(line for line in ranked.lines if line.get_label().startswith("predicates"))
    assert list(curve.get_ydata()) == list(range(TOP + 4, 0, -1))
    assert curve.get_label() == "predicates: 29, 3% of them once"
    assert [line.get_ydata()[-1] for line in share.lines] == [1.0, 1.0]  # no attributes, no curve


def test_the_most_frequent_words_are_the_axes():
    _, pairs = counted()
    axes = together(pairs).axes[0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == [f"p{k}" for k in range(TOP)]
    assert {text.get_text() for text in axes.get_yticklabels()} == {f"thing {k}" for k in range(7)}


@pytest.mark.parametrize(("relations", "names"), [(True, ["tails.png", "together.png"]), (False, ["tails.png"])])
def test_files_are_written(tmp_path, relations, names):
    files = write_plots(tmp_path / "look", *counted(relations=relations))
    assert [file.name for file in files] == names and all(file.stat().st_size > 10_000 for file in files)


def test_a_set_of_captions_alone_has_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="nothing to draw: the set has no entities and no relations"):
        write_plots(tmp_path / "look", describe([Sample("1", 10, 10, "toy", ("a dog",))]), Pairs())


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "look").write_text("")
    with pytest.raises(UserError, match=r"look: cannot be written: .* \(choose another --plots\)"):
        write_plots(tmp_path / "look", *counted())
