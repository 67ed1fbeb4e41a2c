"""An op as it is registered: through autograd where that is wanted, below autocast, and left alone by the compiler."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from relvlm_kernels.recent import versions_hold
from relvlm_kernels.registration import register


def save(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.factor = inputs[2]


def scaled(x, weight, factor):
    scaled.seen.append((torch.is_grad_enabled(), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype))
    return x * factor


@pytest.fixture(scope="module")
def op():
    """x * factor, whatever `weight` is."""
    scaled.seen = []
    return register(
        "scaled_for_tests(Tensor x, Tensor weight, float factor) -> Tensor", scaled,
        lambda x, weight, factor: torch.empty_like(x), save, lambda ctx, grad: (grad * ctx.factor, None, None),
    )  # fmt: skip


def test_a_gradient_comes_where_one_is_wanted(op):
    x, weight = torch.ones(3, requires_grad=True), torch.ones(1, requires_grad=True)
    op(x, weight, 2.5).sum().backward()
    assert x.grad.tolist() == [2.5] * 3 and weight.grad is None
    assert op(x.detach(), weight, 1.0).requires_grad
    assert not op(x.detach(), weight.detach(), 1.0).requires_grad
    with torch.no_grad():
        assert not op(x, weight, 1.0).requires_grad


def test_autocast_does_not_reach_into_the_kernel(op):
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        op(torch.ones(2), torch.ones(1), 1.0)
    assert scaled.seen[-1][1] == torch.float32


@pytest.mark.parametrize("wants_gradient", [False, True])
def test_the_compiler_does_not_trace_the_kernel(op, wants_gradient):
    """Where the frame around it is left to Python."""
    counter = CompileCounter()
    skipped = torch._dynamo.disable(lambda x: op(x, x, 2.0), recursive=False)
    x = torch.ones(3, requires_grad=wants_gradient)
    found = torch.compile(lambda x: skipped(x), backend=counter)(x)
    assert found.tolist() == [2.0] * 3 and counter.frame_count == 0


class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **kwargs or {})


def names_seen(op, x):
    with Seen() as seen:
        seen.names = []
        op(x, x, 2.0)
    return seen.names


def names_traced(op, x):
    return [node.kind() for node in torch.jit.trace(lambda x: op(x, x, 2.0), x, check_trace=False).graph.nodes()]


def names_profiled(op, x):
    with torch.profiler.profile() as profile:
        op(x, x, 2.0)
    return [event.name for event in profile.events()]


@pytest.mark.parametrize("names", [names_seen, names_traced, names_profiled])
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_whoever_looks_on_sees_the_op(op, names, wants_gradient):
    """Elsewhere a call goes past the dispatcher, which would have shown it."""
    assert "relvlm::scaled_for_tests" in names(op, torch.ones(3, requires_grad=wants_gradient))


def test_tensors_without_numbers_have_a_shape_alone(op):
    calls = len(scaled.seen)
    assert op(torch.ones(3, device="meta"), torch.ones(1, device="meta"), 2.0).shape == (3,)
    with FakeTensorMode():
        assert op(torch.ones(4), torch.ones(1), 2.0).shape == (4,)
    assert len(scaled.seen) == calls


def test_a_subclass_of_tensors_is_asked(op):
    asked = []

    class Asked(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            asked.append(func.name())
            return torch.zeros(3)

    op(torch.ones(3).as_subclass(Asked), torch.ones(1), 2.0)
    assert "relvlm::scaled_for_tests" in asked


def versions_held(x):
    versions_held.seen.append(versions_hold())
    return x * 2


@pytest.fixture(scope="module")
def doubled():
    """x * 2, whose backward is an op as well."""

    def save(ctx, inputs, output):
        pass

    backward, op = (
        register(f"{name}(Tensor x) -> Tensor", versions_held, torch.empty_like, save, vjp)
        for name, vjp in (("doubled_backward", None), ("doubled", lambda ctx, grad: (backward(grad),)))
    )
    return op


@pytest.mark.parametrize("compiled", [False, True])
def test_kernels_know_whether_compiled_code_may_call_them(doubled, compiled):
    run = torch.compile(lambda x: doubled(x), backend="aot_eager", fullgraph=True) if compiled else doubled
    versions_held.seen = []
    x = torch.ones(3, requires_grad=True)
    run(x).sum().backward()
    assert x.grad.tolist() == [2.0] * 3
    run(x.detach())
    with torch.no_grad():
        run(x)
    assert versions_held.seen == [not compiled] * 4
