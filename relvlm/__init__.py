"""Pretraining and evaluation of vision-language models that learn visual relations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relvlm.model import RelVLM as RelVLM
    from relvlm.pretrained import load as load

    __version__: str

__all__ = ["RelVLM", "__version__", "load"]


def __getattr__(name: str) -> object:
    """What is looked up when first asked for: the light core has no DeepSpeed."""
    if name == "__version__":
        from importlib.metadata import version

        return version("relvlm")
    if name == "load":
        from relvlm.pretrained import load

        return load
    if name == "RelVLM":
        from relvlm.model import RelVLM

        return RelVLM
    raise AttributeError(f"module 'relvlm' has no attribute {name!r}")
