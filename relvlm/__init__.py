"""Pretraining and evaluation of vision-language models that learn visual relations."""
