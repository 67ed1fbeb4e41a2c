"""RelVLM in transformers and on the Hub: `import relvlm.hub`, and the Auto classes load a checkpoint's folder.

No code comes with a checkpoint: a folder holds numbers and words, the classes are here.
"""

from relvlm.errors import UserError

try:
    from transformers import AutoConfig, AutoModel, AutoProcessor
except ImportError as error:
    raise UserError(f"relvlm.hub: {error} (run: pip install 'relvlm[eval]')") from error

from relvlm.hub.config import RelVLMConfig
from relvlm.hub.model import RelVLMModel
from relvlm.hub.processor import RelVLMProcessor
from relvlm.pretrained import MODEL_TYPE

AutoConfig.register(MODEL_TYPE, RelVLMConfig, exist_ok=True)
AutoModel.register(RelVLMConfig, RelVLMModel, exist_ok=True)
AutoProcessor.register(RelVLMConfig, RelVLMProcessor, exist_ok=True)

__all__ = ["RelVLMConfig", "RelVLMModel", "RelVLMProcessor"]
