"""What is asked: captions, triplets, and what is neither."""

import pytest

from relvlm.errors import UserError
from relvlm.explain.query import Query, Triplet, read_query, words_of


def test_a_text_without_semicolon_is_a_caption() -> None:
    assert read_query("A man, riding.") == Query("A man, riding.", None)
    assert read_query("A man, riding.").words == ["a", "man", "riding"]


def test_three_parts_are_a_triplet_and_its_text_verbalises_it() -> None:
    query = read_query(" man ;left of;  red horse")
    assert query.triplet == Triplet("man", "left of", "red horse")
    assert query.text == "man left of red horse"


def test_swapping_exchanges_subject_and_object_alone() -> None:
    assert Triplet("man", "on", "horse").swapped == Triplet("horse", "on", "man")


@pytest.mark.parametrize("text", ["man; riding", "man; riding;", "; ; ", "a;b;c;d", "man;?!;horse"])
def test_a_triplet_of_other_than_three_parts_with_words_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a triplet has three parts"):
        read_query(text)


@pytest.mark.parametrize("text", ["", "  ", "?!."])
def test_a_caption_without_words_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="has no word"):
        read_query(text)


def test_no_word_of_a_long_text_is_left_out() -> None:
    assert len(words_of("word " * 500)) == 500
