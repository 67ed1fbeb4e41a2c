"""What makes the training step cheap at equal losses; each can be switched off in code, to show what it is worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Savings:
    """No part of a run's config: benchmarks/train_step.py and the tests of equality hand it to `Pretraining`.

    All objectives in one pass of the fusion encoder; K and V projected once per image, whatever looks at it; the last
    fusion layer on the rows that are read; equal texts of a batch encoded once; word scores in chunks, never kept.
    """

    one_pass: bool = True
    shared_keys: bool = True
    read_rows: bool = True
    unique_texts: bool = True
    chunked_words: bool = True


ALL_SAVINGS = Savings()
