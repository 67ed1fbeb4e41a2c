"""DeepSpeed in the process of the tests."""

import socket

import deepspeed
import pytest

from relvlm import ranks
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
