"""Where rows go beside metrics.csv: TensorBoard, and services that the config asks for (Weights & Biases, trackio)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from relvlm import storage
from relvlm.config.load import to_tree
from relvlm.config.schema import Config
from relvlm.engine.columns import HEAD, WORDS
from relvlm.engine.metrics_csv import Row
from relvlm.errors import UserError

log = logging.getLogger(__name__)


def check_loggers(names: Sequence[str]) -> None:
    """UserError where one is asked for that is not installed."""
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise UserError(f"loggers: {name} is not installed (pip install {name}, or leave it out of `loggers`)")


def _quiet(args: threading.ExceptHookArgs, loud: Callable[..., Any] = threading.excepthook) -> None:
    """TensorBoard's thread hands its failure on, and needs no traceback beside our line."""
    if type(args.thread).__name__ != "_AsyncWriterThread" or not isinstance(args.exc_value, OSError):
        loud(args)


class Board:
    """TensorBoard: losses and gradient norms of each step, the rest as means of the steps between two lines."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, folder: Path, start_step: int) -> None:
        threading.excepthook = _quiet
        with storage.writing(folder):
            self.writer = SummaryWriter(str(folder), purge_step=start_step + 1)

    def write(self, rows: list[Row]) -> None:
        """What a row lacks is left out."""
        for row in rows:
            for name in (*(name for name in row if name not in HEAD), "grad_norm"):
                self.writer.add_scalar(name, row[name], row["step"])
        for name in (name for name in HEAD if name not in ("step", "grad_norm", *WORDS)):
            values = [row[name] for row in rows if row[name] is not None]
            if values:
                self.writer.add_scalar(name, fmean(values), rows[-1]["step"])

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"eval/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


class Service:
    """wandb, or trackio, which has the same functions. One service run a folder: a resumed run goes on with it.

    Their own variables hold: WANDB_MODE=offline, WANDB_PROJECT and so on.
    """

    errors: tuple[type[Exception], ...] = (Exception,)  # of a service, whatever it raises

    def __init__(self, name: str, config: Config, folder: Path, start_step: int) -> None:
        self.module: Any = importlib.import_module(name)
        known = folder / f"{name}.id"
        if not (start_step and known.exists()):
            known.write_text(f"{config.name}-{uuid.uuid4().hex[:8]}".replace(" ", "_"))
        run = known.read_text()
        options = {"id": run, "name": config.name, "dir": str(folder)} if name == "wandb" else {"name": run}
        self.module.init(
            project=os.environ.get("WANDB_PROJECT", "relvlm"), config=to_tree(config), resume="allow", **options
        )

    def write(self, rows: list[Row]) -> None:
        """Numbers and words of each step."""
        for row in rows:
            values = {name: value for name, value in row.items() if name != "step" and value is not None}
            self.module.log(values, step=row["step"])

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        self.module.log({f"eval/{name}": value for name, value in figures.items()}, step=step)

    def close(self) -> None:
        self.module.finish()


class NotStarted:
    """In place of a service that could not be started: all of its rows are lost, and counted."""

    errors: tuple[type[Exception], ...] = (RuntimeError,)

    def write(self, rows: list[Row]) -> None:
        raise RuntimeError("was not started")

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        raise RuntimeError("was not started")

    def close(self) -> None: ...
