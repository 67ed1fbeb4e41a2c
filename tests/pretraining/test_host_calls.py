"""What a step asks of the host does not grow unseen: calls in the ops' layer, and ops that a GPU would launch."""

import pytest
from support.host_calls import BACKENDS, WORKS, counts_elsewhere, toy_step, without_a_gpu

from relvlm_kernels.cuda import plan
from relvlm_kernels.recent import Recent

MOST = 1.1  # of what was counted, for what differs between releases of torch and between draws
CALLS = {"cpu": 12_760, "cuda": 12_900}  # of the rows' ops (add_norm, gelu_linear) about half
LAUNCHES = {"captions": (508, 963), "entities": (553, 1071), "mrc": (394, 891), "vsg": (508, 963)}


@pytest.fixture(scope="module")
def counted():
    return counts_elsewhere()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", WORKS)
def test_a_step_asks_no_more_of_the_host(kind, backend, counted):
    found, (forward, backward) = counted[backend][kind], LAUNCHES[kind]
    assert found["calls"] <= MOST * CALLS[backend]
    assert found["forward"] <= MOST * forward and found["backward"] <= MOST * backward


def test_the_cuda_library_plans_once_for_each_way_of_looking(monkeypatch):
    """Text to itself, fused text to itself, fused text to images, the last two again for the rows that are read, and
    images once more in the backward, which may come to some of them at a time."""
    monkeypatch.setenv("RELVLM_KERNELS", "cuda")
    monkeypatch.setattr(plan, "_plans", Recent())
    made = []
    monkeypatch.setattr(plan, "_made", lambda *of, make=plan._made: made.append(of) or make(*of))
    with without_a_gpu() as started:
        toy_step("captions")
    assert started.count("attention") > 30 and len(made) == 7
