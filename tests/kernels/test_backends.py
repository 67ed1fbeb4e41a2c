"""Which backend runs, what is said where it is not the best, and what an asked one must do."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from relvlm_kernels import backends, cpu, ops
from relvlm_kernels.__main__ import main


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Nothing is asked for, and nothing remembered."""
    monkeypatch.delenv("RELVLM_KERNELS", raising=False)
    for of in (backends._chosen, backends._warn_of_fall):
        of.cache_clear()
    yield
    backends._chosen.cache_clear()


def stand_in(monkeypatch, name, missing="", device="cpu", refusal=""):
    """A backend of that name that takes all tensors of a device, unless it refuses them."""
    other = "no kernels for such tensors"
    backend = backends.Backend(name)
    backend._ops = SimpleNamespace(
        missing=lambda: missing, description=lambda: "wooden",
        refusal=lambda of, dtype, width: refusal or ("" if of.type == device else other),
    )  # fmt: skip
    monkeypatch.setitem(backends.BACKENDS, name, backend)


def run():
    q, cu = torch.randn(3, 1, 8), torch.tensor([0, 3]).int()
    return ops.varlen_attention(q, q, q, cu, cu)


@pytest.mark.parametrize(
    ("wanted", "dtype", "name"),
    [
        ("", torch.float32, "cpu"), ("", torch.float64, "cpu"), ("", torch.bfloat16, "cpu"),
        ("", torch.float16, "cpu"), ("", torch.int32, "reference"), ("reference", torch.float32, "reference"),
        ("cpu", torch.float32, "cpu"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:relvlm_kernels")
def test_the_backend_of_cpu_tensors(monkeypatch, wanted, dtype, name):
    if backends.BACKENDS["cpu"].missing:
        pytest.skip(backends.BACKENDS["cpu"].missing)
    monkeypatch.setenv("RELVLM_KERNELS", wanted)
    assert backends.chosen("cpu", dtype).name == name


def test_the_chosen_backend_is_the_one_that_runs(monkeypatch):
    if backends.BACKENDS["cpu"].missing:
        pytest.skip(backends.BACKENDS["cpu"].missing)
    ran = []
    monkeypatch.setattr(cpu, "varlen_attention", lambda q, *rest: ran.append(1) or (q.clone(), q[..., 0].clone()))
    run()
    monkeypatch.setenv("RELVLM_KERNELS", "reference")
    run()
    assert ran == [1]


@pytest.mark.parametrize(
    ("usable", "name", "told"),
    [
        (("triton", "cuda"), "cuda", []),
        (("triton",), "triton", ["cuda: not built"]),
        (("cuda",), "cuda", []),
        ((), "reference", ["cuda: not built", "triton: not built"]),
    ],
)
def test_a_fall_to_lesser_kernels_is_told_once_with_the_reason(monkeypatch, usable, name, told):
    for backend in ("triton", "cuda"):
        stand_in(monkeypatch, backend, "" if backend in usable else "not built", "cuda")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert backends.chosen("cuda", torch.bfloat16).name == name
    assert len(caught) == bool(told) and all(warning.filename == __file__ for warning in caught)
    assert all(reason in str(caught[0].message) for reason in told)
    if told:
        assert str(caught[0].message).startswith("relvlm_kernels: ") and name[:6] in f"{caught[0].message} reference"


def test_heads_that_are_too_wide_fall_and_others_do_not(monkeypatch):
    stand_in(monkeypatch, "triton", device="cuda")
    stand_in(monkeypatch, "cuda", device="cuda")
    backends.BACKENDS["cuda"].ops.refusal = lambda of, dtype, width: "too wide" if (width or 0) > 96 else ""
    assert backends.chosen("cuda", torch.bfloat16, 64).name == "cuda"
    with pytest.warns(RuntimeWarning, match="triton runs on the cuda instead of better kernels: cuda: too wide"):
        assert backends.chosen("cuda", torch.bfloat16, 128).name == "triton"


def test_attention_asks_with_the_width_of_its_heads(monkeypatch):
    """And pooling without one."""
    asked = []
    stand_in(monkeypatch, "cpu")
    backends.BACKENDS["cpu"].ops.refusal = lambda of, dtype, width: asked.append(width) or "never"
    with pytest.warns(RuntimeWarning, match="plain PyTorch, several times slower"):
        run()
    ops.mrc_pool(torch.randn(2, 4), torch.tensor([0]), torch.tensor([1]), torch.randn(3, 8), torch.zeros(3))
    assert asked == [8, None]


def test_tensors_that_an_asked_backend_does_not_take_are_an_error(monkeypatch):
    stand_in(monkeypatch, "cpu")
    backends.BACKENDS["cpu"].ops.refusal = lambda of, dtype, width: f"no kernels for heads of {width}"
    monkeypatch.setenv("RELVLM_KERNELS", "cpu")
    q, cu = torch.ones(3, 1, 8), torch.tensor([0, 3]).int()
    with pytest.raises(RuntimeError, match=r"RELVLM_KERNELS=cpu: no kernels for heads of 8"):
        ops.varlen_attention(q, q, q, cu, cu, 1.0)


def test_a_backend_that_does_not_exist_is_an_error_that_names_the_others(monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "abacus")
    with pytest.raises(RuntimeError, match=r"RELVLM_KERNELS=abacus: .*reference"):
        backends.chosen()


def test_a_backend_that_cannot_run_is_an_error_too(monkeypatch):
    stand_in(monkeypatch, "abacus", "no beads")
    monkeypatch.setenv("RELVLM_KERNELS", "abacus")
    with pytest.raises(RuntimeError, match=r"no such backend here \(no beads"):
        backends.chosen()


def test_a_backend_that_does_not_import_is_missing_for_that_reason(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "abacus", backends.Backend("abacus"))
    monkeypatch.setenv("RELVLM_KERNELS", "abacus")
    with pytest.raises(RuntimeError, match=r"\(No module named 'relvlm_kernels\.abacus'"):
        backends.chosen()


def test_an_unknown_backend_is_an_error_at_import():
    done = subprocess.run(
        [sys.executable, "-c", "import relvlm_kernels"],
        env={"RELVLM_KERNELS": "fast", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode
    assert "RELVLM_KERNELS=fast: no such backend here (usable: reference" in done.stderr


def test_a_backend_may_take_more_than_it_is_chosen_for(monkeypatch):
    """As `triton` takes CPU tensors in its interpreter, but only when named."""
    stand_in(monkeypatch, "triton")
    assert backends.chosen("cpu").name != "triton"
    monkeypatch.setenv("RELVLM_KERNELS", "triton")
    assert backends.chosen("cpu").name == "triton"


@pytest.mark.filterwarnings("ignore:relvlm_kernels")
def test_the_command_lists_what_is_usable_and_why_the_rest_is_not(capsys, monkeypatch):
    stand_in(monkeypatch, "abacus", "no beads")
    main()
    shown = capsys.readouterr().out
    assert "reference" in shown and "usable (chosen)" in shown
    assert "abacus     not usable: no beads" in shown


@pytest.mark.filterwarnings("ignore:relvlm_kernels")
def test_the_command_says_what_a_trial_on_the_gpu_showed(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    stand_in(monkeypatch, "cuda", refusal="a trial of it failed: driver too old")
    stand_in(monkeypatch, "triton", device="cuda")
    main()
    shown = capsys.readouterr().out
    assert "cuda       not usable: a trial of it failed: driver too old" in shown
    assert "triton     usable (chosen): wooden" in shown
    assert "cuda tensors of bfloat16  -> triton" in shown


def test_triton_is_missing_without_a_gpu_and_says_why():
    pytest.importorskip("triton", reason="triton is not installed")
    if torch.cuda.is_available():
        pytest.skip("has a CUDA device")
    environment = {k: v for k, v in os.environ.items() if k not in ("RELVLM_KERNELS", "TRITON_INTERPRET")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "relvlm_kernels"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "triton     not usable: no CUDA device" in done.stdout, done.stderr
