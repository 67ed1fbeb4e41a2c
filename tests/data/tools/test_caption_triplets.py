"""What captions state of the entities: which sentences are read, which are left alone, how often it is right."""

import pytest

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import ShardSet
from relvlm.data.tools.caption_triplets import CaptionParser, read_predicates
from relvlm.errors import UserError
from relvlm.relworld.lexicon import PREDICATES

PARSER = CaptionParser(["on", "on top of", "riding", "with", "near", "left of"])
BOX = (0, 0, 9, 9)
THINGS = (
    Entity("m", "man", BOX),
    Entity("h", "horse", BOX, ("brown",)),
    Entity("p", "horse", BOX, ("white",)),
    Entity("d", "dog", BOX),
    Entity("t", "table", BOX, ("old",)),
    Entity("b", "hot dog", BOX),
    Entity("hat", "hat", BOX),
)


def said(*captions, entities=THINGS):
    sample = Sample("1", 10, 10, captions=captions, entities=entities)
    return [(r.subject, r.predicate, r.object) for r in PARSER.triplets(sample)]


@pytest.mark.parametrize(
    ("caption", "triplets"),
    [
        ("A man riding a brown horse.", [("m", "riding", "h")]),
        ("The man is on the white horse, near a dog.", [("m", "on", "p")]),
        ("man on top of old table", [("m", "on top of", "t")]),
        ("a hot dog on a table", [("b", "on", "t")]),
        ("a picture of a dog near a man", [("d", "near", "m")]),
        ("a dog on a table and a man riding a white horse", [("d", "on", "t"), ("m", "riding", "p")]),
        ("a dog with a hat on a table", [("d", "with", "hat")]),
        ("A DOG NEAR A HAT", [("d", "near", "hat")]),
    ],
)
def test_a_caption_states(caption, triplets):
    assert said(caption) == triplets


@pytest.mark.parametrize(
    "caption",
    [
        "a man riding a horse",  # which of the two?
        "a man with a tall hat riding a brown horse",  # not the hat
        "a dog on a table cloth",
        "a dog on a big table",  # whose attributes are another's
        "a dog sitting on a table",
        "a dog, on a table",
        "a dog near a dog",
        "a table",
        "",
    ],
)
def test_what_would_take_a_grammar_is_left_out(caption):
    assert said(caption) == []


def test_a_triplet_is_found_once_and_says_where_it_is_from():
    sample = Sample("1", 10, 10, captions=("man near dog", "a man near a dog"), entities=THINGS)
    (relation,) = PARSER.triplets(sample)
    assert relation == Relation("m", "near", "d") and relation.provenance == "parser"


def test_relworlds_captions_are_read_rightly(relworld, capsys):
    """Precision and recall against the drawn truth; a caption's one wrong word may still make a false triplet."""
    parser, shards = CaptionParser(list(PREDICATES)), ShardSet(relworld / "graphs")
    right = found = stated = 0
    for index in range(len(shards)):
        sample = shards.read(index).sample
        inverse = {(r.object, PREDICATES[r.predicate].inverse, r.subject) for r in sample.relations}
        truth = {(r.subject, r.predicate, r.object) for r in sample.relations} | inverse
        triplets = {(r.subject, r.predicate, r.object) for r in parser.triplets(sample)}
        right, found = right + len(triplets & truth), found + len(triplets)
        stated += any(f" {name} " in caption for name in PREDICATES for caption in sample.captions)
    with capsys.disabled():
        print(f"\nRelWorld: {found} triplets of {stated} captions with a predicate, {right} right")
    assert found > 10 and right / found > 0.95 and right / stated > 0.5


def test_a_list_of_predicates_is_checked_under_its_flags_name(tmp_path):
    (tmp_path / "twice.txt").write_text("on\non\n")
    with pytest.raises(UserError, match="--captions: repeated"):
        read_predicates(tmp_path / "twice.txt")
