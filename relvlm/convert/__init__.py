"""Weights from elsewhere: official ALBEF and X-VLM checkpoints, both ways, and Hugging Face backbones."""

from relvlm.convert.official import from_official, teacher_from_official, to_official

__all__ = ["from_official", "teacher_from_official", "to_official"]
