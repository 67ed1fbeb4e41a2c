"""Memory is counted where it is held."""

import torch

from support.footprint import peak_bytes


def test_peak_memory_counts_what_was_freed_again_and_nothing_else() -> None:
    kept = []

    def run() -> None:
        kept.append(torch.ones(1 << 18))
        x = torch.ones(1 << 20)
        y = x + 1
        del x
        kept.append(y[:1].clone())

    assert 8 << 20 <= peak_bytes(run, torch.device("cpu")) < 9 << 20
