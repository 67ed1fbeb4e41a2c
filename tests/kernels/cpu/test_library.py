"""Which instructions, dtypes and indexes the CPU kernels take."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from relvlm_kernels import Regions, backends, cpu

CPU = torch.device("cpu")
MISSING = backends.BACKENDS["cpu"].missing
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"cpu kernels: {MISSING}")


INSTRUCTIONS = "from relvlm_kernels import cpu; print(cpu.instructions(), '|', cpu.description())"
RUNTIMES = (
    "import torch; from relvlm_kernels import cpu; cpu.instructions(); "
    "maps = [line.split()[-1] for line in open('/proc/self/maps')]; "
    "print(*{path for path in maps if any(name in path for name in ('libgomp', 'libiomp', 'libomp'))}, sep='\\n')"
)


def in_a_process(code=INSTRUCTIONS, **environment):
    path = {"PATH": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([sys.executable, "-c", code], env=path | environment, capture_output=True, text=True)


def test_the_environment_names_the_instructions():
    done = in_a_process(RELVLM_CPU_ISA="baseline")
    assert done.stdout.startswith("baseline | baseline (RELVLM_CPU_ISA), "), done.stderr
    assert "RELVLM_CPU_ISA" not in in_a_process().stdout


def test_instructions_that_are_not_there_are_an_error():
    done = in_a_process(RELVLM_CPU_ISA="mmx")
    assert done.returncode
    assert "RuntimeError: RELVLM_CPU_ISA=mmx: not compiled, or not of this processor" in done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc")
def test_it_runs_on_torchs_own_openmp():
    """Linked to libgomp by a name under which torch has loaded its own; two runtimes would fight over the cores."""
    done = in_a_process(RUNTIMES)
    runtimes = done.stdout.split()
    assert len(runtimes) == 1, done.stderr
    own = os.path.join(os.path.dirname(torch.__file__), "lib", "libgomp.so.1")
    assert not os.path.exists(own) or os.path.samefile(runtimes[0], own)


def test_the_description_says_what_runs():
    assert cpu.description().startswith(cpu.instructions())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_has_its_own_kernels(dtype):
    assert cpu.refusal(CPU, dtype, 10**6) == ""
    ones, rows = torch.full((2, 1, 4), 3.0, dtype=dtype), torch.tensor([0, 2]).int()
    out, _ = cpu.varlen_attention(ones, ones, ones, rows, rows, 1.0, 0.0, None)
    assert torch.equal(out, ones)


def test_other_dtypes_and_devices_are_refused():
    assert cpu.refusal(CPU, torch.int32, None) == "no kernels for torch.int32 on cpu"
    assert cpu.refusal(torch.device("meta"), torch.float32, None) == "no kernels for torch.float32 on meta"


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("offsets", [0, 9], "offsets must rise"), ("image", [3], "image is not there"),
        ("box", [[0, 0, 9, 1]], "box is empty or leaves"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_index_is_named(field, wrong, message):
    regions = Regions.whole(torch.tensor([0, 2]).int(), torch.tensor([0]).int(), (1, 2))
    q, k = torch.ones(2, 1, 4), torch.ones(1, 2, 1, 4)
    with pytest.raises(ValueError, match=f"region_attention: .*{message}"):
        cpu.region_attention(q, k, k, replace(regions, **{field: torch.tensor(wrong).int()}), 1.0, 0.0, None)


def test_memory_that_is_short_is_told_apart(monkeypatch):
    short = SimpleNamespace(call=lambda function: 4)  # NO_MEMORY in csrc/cpu
    monkeypatch.setattr(cpu.library, "LIBRARY", short)
    with pytest.raises(MemoryError, match="box_mean: no memory"):
        cpu.library.run("box_mean", "box_mean")


@pytest.mark.parametrize(("openmp", "said"), [(1, ", OpenMP"), (0, ", built without OpenMP: one thread")])
def test_the_description_says_on_how_many_threads(monkeypatch, openmp, said):
    monkeypatch.delenv("RELVLM_CPU_ISA", raising=False)
    monkeypatch.setattr(cpu.library, "LIBRARY", SimpleNamespace(call=lambda name: openmp, text=lambda name: "avx2"))
    assert cpu.description() == f"avx2{said}"
