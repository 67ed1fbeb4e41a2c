"""What has no words is of no use, and its relations with it."""

from dataclasses import replace

import pytest
from support.shards import toy_sample

from relvlm.data.shards.schema import Entity, Relation
from relvlm.data.shards.words import has_words, with_words
from relvlm.data.text import pre_caption


@pytest.mark.parametrize("text", ["a", "?a", "\u00e9", "7", "@", "- x", "\u732b", "$"])
def test_a_text_of_which_a_word_is_left(text):
    assert has_words(text) and pre_caption(text, 1)


@pytest.mark.parametrize("text", ["", " ", "...", "?!", "- /", "#*()"])
def test_a_text_of_which_none_is_left(text):
    assert not has_words(text) and not pre_caption(text, 1)


def test_what_has_words_stays_as_it_is():
    sample = toy_sample(1)
    assert with_words(sample) is sample


def test_a_wordless_entity_goes_with_its_relations_and_a_wordless_caption_alone():
    sample = toy_sample(1)
    other = Entity("w", "?", (0, 0, 1, 1))
    relations = (*sample.relations, Relation("w", "on", "a"), Relation("b", "on", "w"))
    more = replace(sample, captions=("!", *sample.captions), entities=(*sample.entities, other), relations=relations)
    assert with_words(more) == sample
