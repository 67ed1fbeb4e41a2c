"""The Matcher of whatever is to be scored: a RelVLM, a Hugging Face model, anyone's."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from relvlm.data.text import Tokenizer
from relvlm.errors import UserError
from relvlm.evals.scoring import huggingface, openclip
from relvlm.evals.scoring.any_model import AnyModel
from relvlm.evals.scoring.huggingface import BlipMatcher, ClipMatcher
from relvlm.evals.scoring.matcher import Matcher, PairModel
from relvlm.evals.scoring.openclip import OpenClipMatcher
from relvlm.evals.scoring.relvlm_matcher import RelVLMMatcher
from relvlm.model import RelVLM

METHODS = ("encode_image", "encode_text", "match")  # of PairModel


def as_matcher(model: Any, tokenizer: Tokenizer | None, max_words: int, max_tokens: int, sep: bool | None) -> Matcher:
    """Raises UserError naming what the model lacks."""
    if isinstance(model, (ClipMatcher, BlipMatcher, OpenClipMatcher)):
        return model
    if isinstance(model, RelVLM):
        if model.itm_head is None:
            raise UserError("model: itm_head: absent (evaluation needs an ITM head: give another checkpoint)")
        return RelVLMMatcher(model, tokenizer or model.tokenizer, max_words, max_tokens, sep)
    if isinstance(model, PairModel):
        return AnyModel(model)
    absent = next(name for name in METHODS if not hasattr(model, name))
    raise UserError(f"model: {absent}: absent (evaluation needs {', '.join(METHODS)}: encoders and an ITM head)")


def named_model(name: str, max_words: int) -> Any:
    """`hf:PATH`: a Hugging Face CLIP or BLIP; `open_clip:NAME:PRETRAINED`; `py:MODULE:CALLABLE`: what that returns."""
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        return huggingface.load(rest, max_words)
    if kind == "open_clip" and rest:
        return openclip.load(rest, max_words)
    module, _, attribute = rest.partition(":")
    if kind != "py" or not attribute:
        raise UserError(f"--model: {name!r}: none of hf:PATH, open_clip:NAME:PRETRAINED, py:MODULE:CALLABLE")
    try:
        return getattr(import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"--model: {name}: {error} (is its folder on PYTHONPATH?)") from error
