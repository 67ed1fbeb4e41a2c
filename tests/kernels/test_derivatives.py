"""Derivatives of the ops that torch may be asked for: right, or an error."""

import pytest
import torch
from support.op_arguments import ARGUMENTS, call
from torch.autograd import forward_ad

OPS = list(ARGUMENTS)


def of_first(op, run=call):
    """The op as a function of its first argument, and that."""
    name, x = next(iter(ARGUMENTS[op].items()))
    return (lambda x: run(op, ARGUMENTS[op] | {name: x})), x


@pytest.mark.parametrize("op", OPS)
def test_a_forward_derivative_is_an_error(op):
    run, x = of_first(op)
    with pytest.raises(NotImplementedError, match=f"^{op}: no forward-mode derivative"):
        torch.func.jvp(run, (x,), (torch.ones_like(x),))
    for leaf in (x, x.clone().requires_grad_()):
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            run(forward_ad.make_dual(leaf, torch.ones_like(leaf)))


@pytest.mark.parametrize("op", [op for op in OPS if op.startswith(("varlen_attention_kv", "region_cross", "mrc"))])
def test_a_forward_derivative_of_any_argument_is_an_error(op):
    for name, x in ARGUMENTS[op].items():
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                call(op, ARGUMENTS[op] | {name: forward_ad.make_dual(x, torch.ones_like(x))})


@pytest.mark.parametrize("op", OPS)
def test_numbers_without_a_tangent_pass_in_a_forward_derivative(op):
    run, x = of_first(op)
    with forward_ad.dual_level():
        forward_ad.make_dual(x.clone(), torch.ones_like(x))
        assert torch.equal(run(x), call(op, ARGUMENTS[op]))


@pytest.mark.parametrize("op", OPS)
def test_derivatives_of_torch_func_are_errors(op):
    run, x = of_first(op)
    for derive in (torch.func.grad, torch.func.jacrev, torch.func.hessian):
        with pytest.raises(NotImplementedError, match=f"^{op}: no "):
            derive(lambda x: run(x).sum())(x)
    with pytest.raises(NotImplementedError, match=rf"^{op}: no torch\.func derivative"):
        torch.func.vmap(torch.func.grad(lambda x: run(x).sum()))(torch.stack([x, x]))


@pytest.mark.parametrize("op", OPS)
def test_a_second_derivative_is_an_error(op):
    run, x = of_first(op)
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(run(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=f"^{op}: no second derivative"):
        grad.square().sum().backward()


@pytest.mark.parametrize("op", OPS)
def test_mapped_over_a_batch_it_is_each_entry_s(op):
    run, x = of_first(op)
    batch = torch.stack([x, 2 * x, -x])
    torch.testing.assert_close(torch.func.vmap(run)(batch), torch.stack([run(x) for x in batch]))


@pytest.mark.parametrize("op", OPS)
def test_gradients_of_several_outputs_at_once_are_each_one_s(op):
    run, x = of_first(op)
    x = x.clone().requires_grad_()
    out = run(x)
    grads = torch.linspace(-1, 1, 2 * out.numel()).view(2, *out.shape)
    (found,) = torch.autograd.grad(out, x, grads, is_grads_batched=True, retain_graph=True)
    wanted = [torch.autograd.grad(out, x, grad, retain_graph=True)[0] for grad in grads]
    torch.testing.assert_close(found, torch.stack(wanted))


COMPILED = ["region_cross_attention", "varlen_attention", "box_mean"]


@pytest.mark.parametrize("op", COMPILED)
def test_a_compiled_op_is_the_op(op):
    run, x = of_first(op)
    torch.testing.assert_close(torch.compile(run, backend="aot_eager", fullgraph=True)(x), run(x))


def test_a_compiled_forward_derivative_is_an_error():
    run, x = of_first("box_mean")
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.compile(lambda x: torch.func.jvp(run, (x,), (x,)), backend="aot_eager")(x)


@pytest.mark.parametrize("op", COMPILED)
def test_a_compiled_op_refuses_what_does_not_fit(op):
    run, x = of_first(op)
    with pytest.raises(Exception, match=rf"{op}: \w+ .*: expected \("):
        torch.compile(run, backend="aot_eager")(x[None])


@pytest.mark.parametrize("op", OPS)
def test_tensors_without_data_give_shapes(op):
    on_meta = {n: x.to("meta") if isinstance(x, torch.Tensor) else x for n, x in ARGUMENTS[op].items()}
    found, wanted = call(op, on_meta), call(op, ARGUMENTS[op])
    assert found.device.type == "meta" and (found.shape, found.dtype) == (wanted.shape, wanted.dtype)


SCALED = [op for op in OPS if "attention" in op]
OPTIONS = [(op, "scale") for op in SCALED] + [(op, "dropout") for op in SCALED if op != "window_attention"]


@pytest.mark.parametrize(("op", "option"), OPTIONS)
def test_an_option_is_no_tensor_whose_gradient_would_be_lost(op, option):
    with pytest.raises(TypeError, match=f"{option} is of type Tensor: expected a number"):
        call(op, ARGUMENTS[op] | {option: torch.tensor(0.5, requires_grad=True)})


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_is_refused(scale):
    with pytest.raises(ValueError, match=f"scale {scale}: expected a finite number"):
        call("varlen_attention", ARGUMENTS["varlen_attention"] | {"scale": scale})
