"""The modules of tests/support, under the name that they have in tests: `from support.batches import made_batch`."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "tests" / "support")]
