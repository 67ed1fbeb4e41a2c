"""Plans are made once for a step's layers and their backward, and anew wherever they might not be the same."""

from dataclasses import replace

import pytest
import torch
from support.attention_cases import case, wave
from support.cuda_on_host import stand_in

from relvlm_kernels import cuda
from relvlm_kernels.cuda import library, plan
from relvlm_kernels.recent import called_eagerly


@pytest.fixture
def started(monkeypatch):
    return stand_in(monkeypatch)


def layers(*args):
    called_eagerly(run_layers, *args)


def run_layers(op, tensors, index, count=3):
    """Forward and backward of so many layers that look at the same."""
    q, k, v = (x.float() for x in tensors)
    saved = [getattr(cuda, op)(q, k, v, *index, 0.2, 0.0, None) for _ in range(count)]
    for out, lse in reversed(saved):
        getattr(cuda, f"{op}_backward")(wave(out), q, k, v, out, lse, *index, 0.2, 0.0, None)


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
def test_a_step_makes_one_plan(started, op):
    layers(op, *case(op, 32))
    assert [call.struct.planned for call in started] == [0, 1, 1, 1, 1, 1]
    assert len({call.struct.plan.views for call in started}) == 1


def test_other_queries_keys_or_images_have_their_own_plan(started):
    tensors, (regions,) = case("region_attention", 32)
    q, k, v = (x.float() for x in tensors)
    more = torch.cat([q, q[:1]]), torch.cat([k, k[:1]]), torch.cat([v, v[:1]])
    for a, b, c, r in ((q, k, v, regions), (more[0], k, v, regions), (q, *more[1:], regions)):
        called_eagerly(cuda.region_attention, a, b, c, r, 0.2, 0.0, None)
    other = replace(regions, mean=regions.mean.clone())
    called_eagerly(cuda.region_attention, q, k, v, other, 0.2, 0.0, None)
    assert [call.struct.planned for call in started] == [0, 0, 0, 0]


def test_offsets_that_were_written_to_have_another_plan(started):
    tensors, (cu_q, cu_k) = case("varlen_attention", 32)
    layers("varlen_attention", tensors, (cu_q, cu_k), 1)
    cu_q[1] += 1
    layers("varlen_attention", tensors, (cu_q, cu_k), 1)
    assert [call.struct.planned for call in started] == [0, 1, 0, 1]


def test_whoever_may_be_compiled_code_has_a_plan_of_its_own(started):
    """It writes into offsets without their version changing."""
    tensors, (cu_q, cu_k) = case("varlen_attention", 32)
    for _ in range(2):
        run_layers("varlen_attention", tensors, (cu_q, cu_k), 1)
        cu_q.numpy()[1] += 1
    assert [call.struct.planned for call in started] == [0, 0, 0, 0]


def test_a_plan_whose_kernel_did_not_start_is_made_again(monkeypatch):
    tensors, index = case("varlen_attention", 32)
    calls = []

    def fails(call, function):
        calls.append(call.struct.planned)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(library.Launch, "run", fails)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            called_eagerly(cuda.varlen_attention, *(x.float() for x in tensors), *index, 0.2, 0.0, None)
    assert calls == [0, 0]


class OnGpu:
    """As much of a tensor as `plan_of` looks at."""

    is_cuda, device, shape = True, torch.device("cuda", 0), torch.Size((4, 1, 32))


@pytest.mark.parametrize(("capturing", "streams", "plans"), [(False, [5, 5], 1), (False, [5, 6], 2), (True, [5, 5], 2)])
def test_plans_of_another_stream_or_of_a_graph_are_not_shared(monkeypatch, capturing, streams, plans):
    """A graph runs on other numbers in the same tensors: it makes its plans itself."""
    cu, left = torch.tensor([0, 4]).int(), list(streams)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(library, "current_stream", lambda device: left.pop())
    made = [called_eagerly(plan.plan_of, (cu, cu), OnGpu(), OnGpu(), 0) for _ in streams]
    assert len({id(x) for x in made}) == plans
