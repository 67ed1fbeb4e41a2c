"""Builds the CUDA kernels for a CPU, with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHIM = Path(__file__).parent
SOURCES = SHIM.parents[2] / "csrc" / "cuda"
ELEMENTS = ("float", "Bfloat16", "Half")
FLAGS = [
    "-std=c++17", "-O0", "-g1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined", f"-I{SHIM}",
]  # fmt: skip


def build(folder: Path, sources: Path = SOURCES, small: bool = False) -> Path:
    """The library, in `folder`; with `small`, of float32 and heads of 32 alone. Raises CalledProcessError."""
    elements = ELEMENTS[:1] if small else ELEMENTS
    fewer = ["-DRELVLM_WIDTHS(one)=one(32)", "-DRELVLM_ELEMENTS(one)=one(FLOAT32, float)"] if small else []
    jobs = {f"{name}.cpp": [str(SHIM / f"{name}.cpp")] for name in ("fibers", "tensor_cores")}
    jobs |= {f"{name}.cu": [*fewer, str(sources / f"{name}.cu")] for name in ("api", "layout", "plan", "pair", "pool")}
    attention = str(sources / "attention.cu")
    jobs |= {f"{x}.cu": [*fewer, f"-DRELVLM_ELEMENT={x}", attention] for x in elements}
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda job: _compile(job[1], folder / f"{job[0]}.o", sources), jobs.items()))
    library = folder / "_cuda.so"
    subprocess.run(["g++", "-shared", "-fsanitize=address,undefined", *objects, "-o", str(library)], check=True)
    return library


def _compile(arguments: list[str], to: Path, sources: Path) -> str:
    command = ["g++", *FLAGS, f"-I{sources}", "-x", "c++", *arguments, "-c", "-o", str(to)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return str(to)
