"""Pretraining and evaluation of vision-language models that learn visual relations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relvlm.model import RelVLM as RelVLM
    from relvlm.pretrained import load as load

    __version__: str

# What is imported when first asked for: the light core has no DeepSpeed. A name alone, as no room may depend on the
# rooms above it by way of this one.
_ROOMS = {
    "RelVLM": "relvlm.model",
    "load": "relvlm.pretrained",
    "score": "relvlm.library.score",
    "search": "relvlm.library.search",
}
__all__ = ["RelVLM", "__version__", "load", "score", "search"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("relvlm")
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'relvlm' has no attribute {name!r}")
