"""Words and their tokens, as training and evaluation read them."""

from pathlib import Path

import pytest
import torch
from support.readers import VIT, reader

from relvlm.data.text import pre_caption
from relvlm.errors import UserError
from relvlm.explain.reading import encode, read_text


@pytest.mark.parametrize("sep", [True, False])
def test_ids_are_those_of_the_tokenizer_for_the_whole_text(tmp_path: Path, sep: bool) -> None:
    model = reader(tmp_path)
    model.sep = sep
    text = "Dogs, left of the red-blue men!"
    reading = read_text(model, text)
    assert [list(reading.ids)] == model.tokenizer.encode([pre_caption(text, 40)], 40, sep)
    assert reading.words == ("dogs", "left", "of", "the", "red", "blue", "men")


def test_each_token_knows_its_word(tmp_path: Path) -> None:
    assert read_text(reader(tmp_path), "dogs on").word_T == (-1, 0, 0, 1, -1)


@pytest.mark.parametrize(("words", "fits"), [(VIT.text.max_positions - 2, True), (VIT.text.max_positions - 1, False)])
def test_a_text_that_does_not_fit_is_refused_rather_than_cut(tmp_path: Path, words: int, fits: bool) -> None:
    model = reader(tmp_path)
    if fits:
        assert len(read_text(model, "man " * words).ids) == VIT.text.max_positions
    else:
        with pytest.raises(UserError, match="13 tokens, the model has positions for 12"):
            read_text(model, "man " * words)


def test_texts_side_by_side_are_encoded_as_alone(tmp_path: Path) -> None:
    model = reader(tmp_path)
    both, mask = encode(model, ["a man", "a red dog on a cart"])
    alone, _ = encode(model, ["a man"])
    assert mask.sum(1).tolist() == [4, 8]
    torch.testing.assert_close(both[0, :4], alone[0], atol=1e-5, rtol=1e-4)
