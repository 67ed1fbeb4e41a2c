"""Heat is gradient times input of the plain model's logit, taken apart by the text's tokens."""

from pathlib import Path

import pytest
import torch
from support.readers import LATE, SWIN, VIT, noise, reader

from relvlm.config.schema import ModelConfig
from relvlm.data.batches.transforms import eval_transform
from relvlm.errors import UserError
from relvlm.explain.heat import heat, positive
from relvlm.explain.reading import encode, read_text
from relvlm.model import RelVLM

TEXT = "a man riding dogs"
FAMILIES = pytest.mark.parametrize("config", [VIT, SWIN, LATE], ids=["vit", "swin", "late vision"])


def image_tokens(model: RelVLM, seed: int = 0) -> torch.Tensor:
    """In fp64, where rounding is no question."""
    with torch.no_grad():
        return model.encode_image(eval_transform(32)(noise(seed))[None].double())[0]


def plain(model: RelVLM, tokens_SD: torch.Tensor, text: str) -> tuple[float, torch.Tensor]:
    """Odds, and gradient times input of one copy of the image's tokens, by the model's own methods."""
    leaf = tokens_SD[None].clone().requires_grad_()
    seen = leaf
    if model.vision.kind == "swin":
        seen = torch.cat([leaf[:, 1:].mean(1, keepdim=True), leaf[:, 1:]], dim=1)
    text_tokens, mask = encode(model, [text])
    logits = model.match_logits(model.fuse(text_tokens.detach(), mask, seen))[0]
    odds = logits[1] - logits[0]
    odds.backward()
    return odds.item(), (leaf.grad * leaf.detach()).sum(-1)[0, 1:]


@FAMILIES
def test_tokens_add_up_to_the_gradient_of_the_whole(tmp_path: Path, config: ModelConfig) -> None:
    model = reader(tmp_path, config).double()
    tokens_SD = image_tokens(model)
    found = heat(model, tokens_SD, read_text(model, TEXT))
    odds, whole_N = plain(model, tokens_SD, TEXT)
    assert found.odds == pytest.approx(odds, abs=1e-10)
    torch.testing.assert_close(found.whole_N, whole_N, atol=1e-10, rtol=1e-8)
    assert found.token_TN.shape == (len(found.reading.ids), model.vision.grid[0] ** 2)
    assert found.token_TN.abs().sum(1).min() > 0


def test_the_probability_is_that_of_evaluation(tmp_path: Path) -> None:
    model = reader(tmp_path).double()
    tokens_SD = image_tokens(model)
    text_tokens, mask = encode(model, [TEXT])
    expected = model.match_logits(model.fuse(text_tokens, mask, tokens_SD[None])).softmax(-1)[0, 1].item()
    assert heat(model, tokens_SD, read_text(model, TEXT)).probability == pytest.approx(expected, abs=1e-6)


def test_words_and_special_tokens_are_all_there_is(tmp_path: Path) -> None:
    model = reader(tmp_path)
    found = heat(model, image_tokens(model.double()), read_text(model, TEXT))
    words = [found.of_words(i, i + 1) for i in range(4)]
    special = found.token_TN[0] + found.token_TN[-1]
    torch.testing.assert_close(torch.stack(words).sum(0) + special, found.whole_N)
    torch.testing.assert_close(found.of_words(1, 3), words[1] + words[2])
    torch.testing.assert_close(words[3], found.token_TN[4] + found.token_TN[5])  # dog ##s


def test_neither_weights_nor_a_surrounding_no_grad_matter(tmp_path: Path) -> None:
    model = reader(tmp_path).double()
    with torch.no_grad():
        found = heat(model, image_tokens(model), read_text(model, TEXT))
    assert found.token_TN.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_positive_heat_sums_to_one_and_leaves_out_what_speaks_against() -> None:
    assert positive(torch.tensor([3.0, -2.0, 1.0])).tolist() == [0.75, 0.0, 0.25]
    assert positive(torch.tensor([-3.0, 0.0])).tolist() == [0.0, 0.0]


def test_a_diverged_model_is_refused(tmp_path: Path) -> None:
    model = reader(tmp_path, VIT).double()
    torch.nn.init.constant_(next(model.itm_head.parameters()), torch.nan)
    with pytest.raises(UserError, match="heat: not finite"):
        heat(model, image_tokens(model), read_text(model, TEXT))
