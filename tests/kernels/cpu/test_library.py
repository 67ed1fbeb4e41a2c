"""Which instructions the CPU kernels take."""

import os
import subprocess
import sys

import pytest

from relvlm_kernels import backends, cpu

MISSING = backends.BACKENDS["cpu"].missing
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"cpu kernels: {MISSING}")


def in_a_process(**environment):
    code = "from relvlm_kernels import cpu; print(cpu.instructions(), '|', cpu.description())"
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


def test_the_description_says_what_runs():
    assert cpu.description().startswith(cpu.instructions())
