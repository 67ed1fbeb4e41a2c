"""What every test may ask for."""

import argparse
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports triton: its kernels run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and reference vectors (RELVLM_TEST_DATA, default ../shared)."""
    folder = Path(os.environ.get("RELVLM_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data in {folder} (set RELVLM_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def relworld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RelWorld: shard sets, vocabulary, relations and benchmarks."""
    from relvlm.relworld import build

    out = tmp_path_factory.mktemp("world") / "relworld"
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    options = ["--preset", "mini", "--images", "400", "--benchmark-pairs", "40", "--workers", "1"]
    build.main(parser.parse_args(["--out", str(out), *options]))
    return out


@pytest.fixture(scope="session")
def tiny(relworld: Path) -> list[str]:
    """Arguments of `relvlm train`: the miniature ReX-VLM on the small RelWorld, a few steps of a small batch."""
    data = [f"data.{kind}=[{{path: {relworld / kind}}}]" for kind in ("captions", "entities")]
    data += [f"data.graphs=[{{path: {relworld / 'graphs'}, block: 2}}]"]
    data += [f"data.vocab={relworld / 'vocab.txt'}", f"data.relations={relworld / 'relations.txt'}"]
    sizes = ["data.batch={captions: 8, entities: 8, mrc: 8, vsg: 8}", "steps=40", "checkpoint.every=5"]
    return ["--config", str(ROOT / "configs/mini/rex_vlm.yaml"), *data, *sizes, "log_every=3"]
