"""Builds the CUDA kernels for a CPU, under the address and undefined-behaviour sanitizers where the compiler has them."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHIM = Path(__file__).parent
SOURCES = SHIM.parents[2] / "csrc" / "cuda"
ELEMENTS = ("float", "Bfloat16", "Half")
FLAGS = [
    "-std=c++17", "-O1", "-g1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined", f"-I{SHIM}",
]  # fmt: skip


def build(folder: Path, sources: Path = SOURCES) -> Path:
    """The library, in `folder`; raises CalledProcessError where a source does not compile."""
    jobs = {f"{name}.cpp": [str(SHIM / f"{name}.cpp")] for name in ("fibers", "tensor_cores")}
    jobs |= {f"{name}.cu": [str(sources / f"{name}.cu")] for name in ("api", "plan", "pair", "pool")}
    attention = str(sources / "attention.cu")
    jobs |= {f"{element}.cu": [f"-DRELVLM_ELEMENT={element}", attention] for element in ELEMENTS}
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda job: _compile(job[1], folder / f"{job[0]}.o", sources), jobs.items()))
    library = folder / "_cuda.so"
    subprocess.run(["g++", "-shared", "-fsanitize=address,undefined", *objects, "-o", str(library)], check=True)
    return library


def _compile(arguments: list[str], to: Path, sources: Path) -> str:
    command = ["g++", *FLAGS, f"-I{sources}", "-x", "c++", *arguments, "-c", "-o", str(to)]
    subprocess.run(command, check=True)
    return str(to)


if __name__ == "__main__":
    import sys

    print(build(Path(sys.argv[1])))
