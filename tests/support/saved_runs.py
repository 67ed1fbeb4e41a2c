"""A toy run that saves checkpoints: its config, and as much of an engine as that needs."""

from __future__ import annotations

from pathlib import Path

import torch

from relvlm.config.schema import Config, DataConfig, FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.engine.run_state import Progress
from relvlm.engine.saver import Saver
from relvlm.engine.schedule import build_optimizer, build_scheduler
from relvlm.model import RelVLM
from relvlm.pretraining.step import Pretraining

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "on", "mat"]
RELATIONS = ["left of", "on"]
MODEL = ModelConfig(
    image_size=16, embed_dim=4, vision=ViTConfig(width=8, layers=1, heads=1, patch_size=8),
    text=TextConfig(layers=1, heads=1, width=8, max_positions=8), fusion=FusionConfig(layers=1, heads=1),
    mrc_hidden=6,
)  # fmt: skip


class Engine:
    """As much of DeepSpeed's engine as a run's state needs: ZeRO 0 in fp32, which leaves AdamW as it is."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(0)
        self.module = Pretraining(RelVLM(config.model, len(WORDS), len(RELATIONS)))
        self.optimizer = build_optimizer(self.module.model, config.optim)
        self.lr_scheduler = build_scheduler(self.optimizer, config.optim, config.steps)

    def zero_optimization_stage(self) -> int:
        return 0

    def step(self) -> None:
        """An update by made gradients."""
        for parameter in self.module.model.parameters():
            parameter.grad = torch.rand_like(parameter)
        self.optimizer.step()
        self.lr_scheduler.step()


def save(engine: Engine, folder: Path, step: int, config: Config, skipped: int = 0) -> Path:
    saver = Saver(folder, config, folder)
    saver.save(engine, Progress(step, skipped=skipped))
    return saver.wait()


def made_config(folder: Path) -> Config:
    """Of a run in `folder`/run."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "relations.txt").write_text("left of\n\n on \n")
    data = DataConfig(vocab=str(folder / "vocab.txt"), relations=str(folder / "relations.txt"), sep=False)
    return Config(out=str(folder / "run"), model=MODEL, data=data)


def steps(folder: Path) -> list[str]:
    """The checkpoints in it."""
    return sorted(path.name for path in folder.glob("*step_*") if not path.name.startswith("."))
