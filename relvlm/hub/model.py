"""RelVLM as a model of transformers: `from_pretrained`, `save_pretrained`, `push_to_hub`.

Legend: B pairs, S image tokens, L padded text length, E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from relvlm.convert.names import TIED
from relvlm.encoders.swin import SwinBlock, WindowAttention
from relvlm.errors import UserError
from relvlm.hub.config import RelVLMConfig
from relvlm.model import RelVLM

INNER = "relvlm"  # the attribute that holds the RelVLM; files have its names, without this before them
WORDS = "text.embeddings.word.weight"


@dataclass
class RelVLMOutput(ModelOutput):
    """`match_logits` (B, 2), index 1 = match; `image_features` and `text_features` (B, E), L2-normalised."""

    match_logits: Tensor | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None


class RelVLMModel(PreTrainedModel):
    """`relvlm` is the model itself, with all of its methods: boxes, relations, packed pairs."""

    config_class = RelVLMConfig
    base_model_prefix = INNER
    main_input_name = "pixel_values"
    _tied_weights_keys = {f"{INNER}.{TIED}": f"{INNER}.{WORDS}"}  # noqa: RUF012  # transformers' own

    def __init__(self, config: RelVLMConfig) -> None:
        super().__init__(config)
        self.relvlm = RelVLM(config.sizes, config.vocab_size, len(config.relations))
        self.relvlm.relation_names, self.relvlm.sep, self.relvlm.step = config.relations, config.sep, config.step
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; but UserError where a weight is absent or of another shape, and would be random."""
        asked = kwargs.pop("output_loading_info", False)
        kwargs["output_loading_info"] = True
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model, found = loaded
        wrong = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
        if wrong:
            some = ", ".join(name.removeprefix(f"{INNER}.") for name in wrong[:3])
            raise UserError(f"{pretrained_model_name_or_path}: {len(wrong)} weights absent or of other shapes: {some}")
        return (model, found) if asked else model

    def save_pretrained(
        self, save_directory: Any, is_main_process: bool = True, state_dict: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Under the names of RelVLM, tied weights once: a folder that `relvlm.load` reads, too."""
        tensors = {name: tensor for name, tensor in self.relvlm.state_dict().items() if name != TIED}
        super().save_pretrained(save_directory, is_main_process, state_dict or tensors, *args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Weights begin as RelVLM makes them; only what no file holds was lost where transformers allocated anew."""
        if isinstance(module, (WindowAttention, SwinBlock)):
            module.fill_buffers()

    def get_input_embeddings(self) -> nn.Module:
        return self.relvlm.text.embeddings.word

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, E), L2-normalised."""
        return self.relvlm.image_features(self.relvlm.encode_image(pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, E), L2-normalised."""
        return self.relvlm.text_features(self.relvlm.encode_text(input_ids, attention_mask.bool()))

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> RelVLMOutput:
        """Of B pairs: image b with text b; one image goes with every text. ValueError for other numbers."""
        if len(pixel_values) not in (1, len(input_ids)):
            raise ValueError(f"{len(pixel_values)} images and {len(input_ids)} texts: expected as many, or one image")
        mask = attention_mask.bool()
        image = self.relvlm.encode_image(pixel_values)
        text = self.relvlm.encode_text(input_ids, mask)
        fused = self.relvlm.fuse(text, mask, image.expand(len(text), -1, -1))
        features = self.relvlm.image_features(image), self.relvlm.text_features(text)
        return RelVLMOutput(self.relvlm.match_logits(fused), *features)
