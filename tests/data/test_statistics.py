"""What a collection of samples holds."""

from support.pets import sample

from relvlm.data.shards.schema import Entity, Relation
from relvlm.data.statistics import BAR, TOP, Pairs, as_text, describe


def test_statistics_count_what_is_there():
    figures = describe([sample(0), sample(1, captions=(), relations=())])
    assert figures["totals"] == {
        "images": 2,
        "captions": 1,
        "entities": 4,
        "relations": 1,
        "images_without_caption": 1,
        "images_without_entity": 0,
        "images_without_relation": 1,
    }
    assert figures["labels"] == {"cat": 2, "dog": 2} and figures["attributes"] == {"red": 2}
    assert figures["predicates"] == {"left of": 1}
    assert figures["caption_words"] == {"min": 6, "median": 6, "mean": 6, "max": 6}
    assert figures["per_image"] == {"captions": 0.5, "entities": 2, "relations": 0.5}


def test_the_most_frequent_come_first_and_equals_by_name():
    labels = ("cow", "ant", "cow", "bee")
    entities = tuple(Entity(str(n), label, (0, 0, 1, 1)) for n, label in enumerate(labels))
    figures = describe([sample(0, entities=entities, relations=()), sample(1, entities=(), relations=(), captions=())])
    assert list(figures["labels"].items()) == [("cow", 2), ("ant", 1), ("bee", 1)]
    assert figures["distinct"] == {"labels": 3, "attributes": 0, "predicates": 0, "sources": 1}
    assert figures["totals"]["images_without_entity"] == 1
    assert figures["per_image"]["entities"] == 2


def test_means_are_of_two_digits():
    figures = describe([sample(0), sample(1), sample(2, captions=("a", "b c"), entities=(), relations=())])
    assert figures["per_image"] == {"captions": 1.33, "entities": 1.33, "relations": 0.67}
    assert figures["caption_words"] == {"min": 1, "median": 4.0, "mean": 3.75, "max": 6}
    assert describe([])["caption_words"] == {}


def test_the_text_has_bars_of_the_most_frequent():
    entities = tuple(Entity(str(n), f"l{n % (TOP + 2):02}", (0, 0, 1, 1)) for n in range(2 * TOP + 5))
    lines = as_text(describe([sample(0, entities=entities, relations=(), captions=())])).splitlines()
    assert lines[0] == f"{'images':24}{1:>12,}"
    assert f"{'entities per image':24}{45.0:>12}" in lines
    start = lines.index(f"labels ({TOP + 2})")
    assert lines[start - 1] == ""
    assert lines[start + 1] == f"  {'l00':30}{3:>10,} " + "#" * BAR
    assert lines[start + 2] == f"  {'l01':30}{2:>10,} " + "#" * (BAR * 2 // 3)
    assert lines[start + TOP + 1 :] == ["  ... and 2 more"]


def test_the_text_says_nothing_of_what_is_not_there():
    text = as_text(describe([sample(0, captions=(), relations=())]))
    assert "words per caption" not in text and "predicates" not in text and "more" not in text
    assert "words per caption       min 6, median 6, mean 6, max 6" in as_text(describe([sample(0)]))


def test_what_is_rare_has_a_mark_all_the_same():
    captions = tuple(str(n) for n in range(3))
    many = [sample(n, captions=captions) for n in range(100)]
    rare = sample(0, relations=(Relation("a", "x" * 40, "b"),))
    line = next(line for line in as_text(describe([*many, rare])).splitlines() if "xxx" in line)
    assert line == f"  {'x' * 30}{1:>10,} #"


def test_all_of_a_full_list_are_shown():
    entities = tuple(Entity(str(n), f"l{n:02}", (0, 0, 1, 1)) for n in range(TOP))
    assert "more" not in as_text(describe([sample(0, entities=entities, relations=())]))


def test_pairs_of_a_triplets_parts_are_counted_as_samples_pass():
    pairs = Pairs()
    triplets = (Relation("a", "near", "b"), Relation("b", "near", "a"), Relation("a", "on", "b"))
    samples = [sample(0, relations=triplets), sample(1)]
    assert list(pairs.count(samples)) == samples
    assert pairs.counts["subject", "predicate"][("dog", "near")] == 1
    of_object = pairs.counts["object", "predicate"]
    assert of_object == dict.fromkeys([("cat", "near"), ("dog", "near"), ("cat", "on"), ("cat", "left of")], 1)
    assert pairs.counts["subject", "object"] == {("dog", "cat"): 3, ("cat", "dog"): 1}
