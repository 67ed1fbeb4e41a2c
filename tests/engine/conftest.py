"""What the tests of the engine share: DeepSpeed in their process, the config of a toy run."""

import socket
from pathlib import Path

import deepspeed
import pytest

from relvlm import ranks
from relvlm.config.schema import Config, DataConfig, KindRatios
from relvlm.engine import distributed


@pytest.fixture(scope="module")
def process_group():
    """Of this process alone."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        alone = {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        for name, value in alone.items():
            patch.setenv(name, value)
        distributed.start(threads=1)
        yield
        ranks.stop()
        deepspeed.comm.comm.cdb = deepspeed.utils.groups._WORLD_GROUP = None  # or it would keep to this group for good


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A run of 6 steps of captions."""
    data = DataConfig(ratio=KindRatios(captions=1))
    (tmp_path / "run").mkdir()
    return Config(out=str(tmp_path / "run"), steps=6, max_skipped_steps=2, log_every=4, data=data)
