"""config.json of a model folder as transformers' configuration."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from relvlm.config.load import model_config
from relvlm.config.schema import DataConfig, ModelConfig
from relvlm.pretrained import DESCRIPTION, MODEL_TYPE, check_description, description_text

# What transformers puts among the keys of a config.json that it reads
THEIRS = {"name_or_path", "transformers_weights", *(each.name for each in fields(PreTrainedConfig))}


class RelVLMConfig(PreTrainedConfig):
    """The keys of config.json (relvlm/pretrained.py), saved again as they were read, byte for byte."""

    model_type: ClassVar[str] = MODEL_TYPE
    tie_word_embeddings: ClassVar[bool] = True  # the MLM head's and the text encoder's are one

    step: int = 0
    name: str = "relvlm"
    model: dict[str, Any] = field(default_factory=dict)
    vocab_size: int = 0
    relations: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    keys: ClassVar[tuple[str, ...]] = ("model_type", "step", "name", *DESCRIPTION)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """UserError for what describes no RelVLM."""
        check_description(config_dict, f"{config_dict.get('name_or_path', '')}: config.json")
        made = super().from_dict(config_dict, **kwargs)
        config = made[0] if isinstance(made, tuple) else made
        config._saved_keys = tuple(dict.fromkeys(["model_type", *(key for key in config_dict if key not in THEIRS)]))
        return made

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json."""
        keys = getattr(self, "_saved_keys", self.keys)
        return description_text({key: getattr(self, key) for key in keys if key[0] != "_"})

    @property
    def sizes(self) -> ModelConfig:
        """The model section; UserError naming what is wrong with it."""
        return model_config(self.model)

    @property
    def sep(self) -> bool:
        """Whether texts end with [SEP]."""
        return bool(self.data.get("sep", DataConfig.sep))
