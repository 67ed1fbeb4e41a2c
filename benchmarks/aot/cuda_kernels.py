"""Compiles the CUDA kernels with nvcc for GPUs that are not here, and reads their resources from the binaries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from libraries import ELEMENTS, WIDTHS  # of csrc

from aot.instructions import per_tile
from aot.table import Row

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
TARGETS = ("sm_80", "sm_90")
DTYPES = {"float": "float32", "Bfloat16": "bfloat16", "Half": "float16"}
WARPS = 4  # of a block, in all kernels that are listed
SCORES = {"attend": 16 * 32, "backward_of_queries": 16 * 16, "backward_of_keys": 16 * 16}  # of a round of their loop
FUNCTION = re.compile(r"Function\s*:?\s*(\S+?):?\n(.*?)(?=Function\s*:?\s|\Z)", re.S)
KERNEL = re.compile(r"\d(attend|backward_of_queries|backward_of_keys|linear_of_pairs)I.*?(?:Lb(\d)E)?E+v")
# Dynamic shared memory is known to the host code alone.
SIZES = """
#include <cstdio>
#include "backward_keys.cuh"
#include "forward.cuh"
using namespace relvlm;
template <class T, int D> void print(const char* element) {
  std::printf("\\"%s %d\\": [%zu, %zu, %zu],\\n", element, D, query_tile_bytes<T, D>(false),
              query_tile_bytes<T, D>(true), KEY_TILE_BYTES<T, D>);
}
template <class T> void print_all(const char* element) {
  print<T, 32>(element), print<T, 64>(element), print<T, 80>(element);
  print<T, 96>(element), print<T, 128>(element);
}
int main() { print_all<float>("float"), print_all<Bfloat16>("Bfloat16"), print_all<Half>("Half"); }
"""


class Job(NamedTuple):
    """One source compiled for one target, element and width."""

    target: str
    element: str
    width: int

    @property
    def name(self) -> str:
        return f"D={self.width} {DTYPES[self.element]} {self.target}"


def version() -> str:
    """Key of the table; raises ImportError where nvcc or cuobjdump is missing."""
    found = subprocess.run([_nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    _cuobjdump()
    return f"nvcc {re.search(r'release ([0-9.]+)', found)[1]}"


def measure(wanted: str) -> Iterator[tuple[str, Row]]:
    """(name, resources) of each kernel whose name holds `wanted`."""
    jobs = [Job(target, element, width) for element in ELEMENTS for target in TARGETS for width in sorted(WIDTHS)]
    jobs = [job for job in jobs if any(wanted in name for name in _names(job))]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = _shared_bytes(Path(folder)) if jobs else {}
        for rows in pool.map(lambda job: _rows(job, Path(folder), sizes), jobs):
            yield from (found for found in rows if wanted in found[0])


def _names(job: Job) -> list[str]:
    kernels = ("attend", "backward_of_queries", "backward_of_keys")
    return [f"cuda {kernel} {drops}{job.name}" for kernel in kernels for drops in ("", "dropout ")]


def _rows(job: Job, folder: Path, sizes: dict[str, list[int]]) -> list[tuple[str, Row]]:
    binary = folder / f"{job.element}{job.width}{job.target}.cubin"
    command = [_nvcc(), "-std=c++17", "-O3", f"-arch={job.target}", *ELEMENTS[job.element]]
    command += [f"-DRELVLM_ELEMENT={job.element}", f"-DRELVLM_WIDTHS(one)=one({job.width})"]
    subprocess.run([*command, "-cubin", SOURCES / "attention.cu", "-o", binary], check=True)
    usage, code = (dict(FUNCTION.findall(_dump(option, binary))) for option in ("-res-usage", "-sass"))
    return sorted(
        _row(job, symbol, usage[symbol], code[symbol], sizes[f"{job.element} {job.width}"]) for symbol in code
    )


def _row(job: Job, symbol: str, usage: str, code: str, sizes: list[int]) -> tuple[str, Row]:
    kernel, drops = KERNEL.search(symbol).groups()
    shared = sizes[("attend", "backward_of_queries", "backward_of_keys").index(kernel)]
    row = Row.of(
        job.target, registers=int(re.search(r"REG:(\d+)", usage)[1]), shared=shared, warps=WARPS,
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)), tensor_core=len(re.findall(r"\bHMMA\b", code)),
        instructions=per_tile(code, SCORES[kernel], _rounds(job)),
    )  # fmt: skip
    return f"cuda {kernel} {'dropout ' if drops == '1' else ''}{job.name}", row


def _rounds(job: Job) -> int:
    """Of the loop over the width of a head (`inner` of csrc/cuda/tile.cuh)."""
    unrolled = 1 if job.element == "float" or job.width > 96 else 2
    return job.width // 16 // unrolled


def _shared_bytes(folder: Path) -> dict[str, list[int]]:
    source, program = folder / "sizes.cu", folder / "sizes"
    source.write_text(SIZES)
    command = [_nvcc(), "-std=c++17", "-arch=sm_80", "-cudart=static", f"-I{SOURCES}", source, "-o", program]
    subprocess.run(command, check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return json.loads("{" + printed.rstrip(",\n") + "}")


def _dump(option: str, binary: Path) -> str:
    command = [_cuobjdump(), option, binary]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _nvcc() -> str:
    return _tool("nvcc", [])


def _cuobjdump() -> str:
    """That of CUDA, else the one that Triton brings along."""
    triton = find_spec("triton")
    folders = [Path(triton.origin).parent / "backends" / "nvidia" / "bin"] if triton and triton.origin else []
    return _tool("cuobjdump", folders)


def _tool(name: str, folders: list[Path]) -> str:
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    found = shutil.which(name, path=os.pathsep.join([str(home), os.environ.get("PATH", ""), *map(str, folders)]))
    if not found:
        raise ImportError(f"no {name} in {home} or on PATH")
    return found
