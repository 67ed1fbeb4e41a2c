"""What the tests of the ops share."""

import pytest

from relvlm_kernels import backends


@pytest.fixture(params=["reference", "cpu"])
def backend(request, monkeypatch):
    """The ops run on each of the backends for CPU tensors in turn."""
    if backends.BACKENDS[request.param].missing:
        pytest.skip(backends.BACKENDS[request.param].missing)
    monkeypatch.setenv("RELVLM_KERNELS", request.param)
    return request.param
