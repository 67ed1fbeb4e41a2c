"""What the GPU check does when something fails or is missing."""

import json
import os
import re
import subprocess
import venv
from pathlib import Path

import pytest
from support.programs import ROOT, rows_of, run

CHECK = "benchmarks/gpu_check"
STAGES = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Stage:
    name: str
    seconds: int
    interpreted: bool = False

PARTS = {"a": (Stage("build", 20), Stage("fails", 20), Stage("hangs", 2), Stage("last", 20)), "b": ()}
MISSING = 3
"""


@pytest.fixture
def small_check(tree: Path) -> Path:
    """A check of four stages that need no torch: one is green, one fails, one hangs with a child, one is last."""
    folder = tree / CHECK
    row = "from gpu_check.check import Check\ncheck = Check.from_arguments('{0}')\ncheck.row(of='{0}')\n"
    (folder / "stages.py").write_text(STAGES)
    (folder / "preflight.py").write_text("")
    (folder / "build.py").write_text(row.format("build"))
    (folder / "fails.py").write_text(row.format("fails") + "raise SystemExit('what went wrong')\n")
    hang = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\ncheck.row(child=child.pid)\nchild.wait()\n"
    (folder / "hangs.py").write_text(row.format("hangs") + hang)
    (folder / "last.py").write_text(row.format("last"))
    return tree


def test_a_stage_that_fails_or_hangs_stops_no_other(small_check: Path, tmp_path: Path) -> None:
    done = run(CHECK, "--part", "a", root=small_check, OUT=str(tmp_path / "out"))
    assert done.returncode == 1
    assert "NOT GREEN: a/fails: exit 1; a/hangs: out of time" in done.stdout and "what went wrong" in done.stdout
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows["end"]] == ["ok", "exit 1", "out of time", "ok"]
    assert all(rows[name] for name in ("build", "fails", "hangs", "last"))
    assert not _runs(rows["hangs"][1]["child"])


def _runs(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_without_cuda_kernels_it_ends_at_once_unless_told_otherwise(small_check: Path, tmp_path: Path) -> None:
    (small_check / CHECK / "build.py").write_text("raise SystemExit(3)\n")
    done = run(CHECK, "--part", "a", "--out", tmp_path / "out", root=small_check)
    assert done.returncode == 2 and "THE CUDA KERNELS ARE MISSING" in done.stdout
    assert [row["of"] for row in rows_of(tmp_path / "out")["end"]] == ["build"]
    done = run(CHECK, "--part", "a", "--out", tmp_path / "out", "--without-cuda", root=small_check)
    assert done.returncode == 1 and "a/build: exit 3" in done.stdout
    assert rows_of(tmp_path / "out")["last"]


def test_an_interpreter_without_torch_is_refused(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    command = ["make", "gpu-check-a", f"PYTHON={tmp_path / 'bare/bin/python'}", f"GPU_OUT={tmp_path / 'out'}"]
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OUT", "MAKEFLAGS")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=plain)
    assert done.returncode != 0
    assert "bare/bin/python" in done.stdout and "give one that has torch and triton" in done.stdout


def test_kernels_go_by_the_names_that_they_have(tmp_path: Path) -> None:
    """As the profiler gives them, taken from the sources: a kernel renamed would count as of no part."""
    cuda = [
        name for path in (ROOT / "csrc/cuda").iterdir()
        for name in re.findall(r"__global__ void __launch_bounds__\(.*\) (\w+)\(Call call\)", path.read_text())
    ]  # fmt: skip
    launched = r"@triton\.jit\(do_not_specialize=.*\ndef (\w*(?:plan|attention)\w*)\("
    triton = [
        name for path in (ROOT / "kernels/relvlm_kernels/triton").rglob("*.py")
        for name in re.findall(launched, path.read_text())
    ]  # fmt: skip
    names = [f"void relvlm::(anonymous namespace)::{name}<relvlm::Half, 64, true>(relvlm::Call)" for name in cuda]
    code = (
        "import sys, json; from gpu_check.kernels import parts; from gpu_check.profiling import Kernel; "
        "print(json.dumps(parts([Kernel(name, 1, 1.0) for name in json.loads(sys.argv[1])])))"
    )
    done = run("-c", code, json.dumps([*names, *triton, "Memset (Device)"]), PYTHONPATH=_folders())
    found = json.loads(done.stdout)
    assert found == {"plan": 3, "attend": 2, "dq": 2, "dkdv": 2, "other": 1}, (names, triton)


def _folders() -> str:
    return os.pathsep.join(str(ROOT / name) for name in ("benchmarks", "tests", "kernels"))


def test_the_two_commands_take_less_than_nine_minutes_each() -> None:
    code = "from gpu_check.stages import PARTS; print([sum(s.seconds for s in part) for part in PARTS.values()])"
    done = run("-c", code, PYTHONPATH=_folders())
    assert all(seconds < 540 for seconds in json.loads(done.stdout))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_test_is_a_row(tmp_path: Path, workers: int) -> None:
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_good(): pass\n\ndef test_bad(): assert 1 == 2\n\n"
        "@pytest.mark.skip(reason='not here')\ndef test_not(): pass\n"
    )
    options = (
        "-p",
        "gpu_check.pytest_rows",
        "--check-out",
        tmp_path,
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
    )
    options += ("-n", workers) if workers else ()
    done = run("-m", "pytest", tmp_path / "test_it.py", *options, PYTHONPATH=str(ROOT / "benchmarks"))
    assert done.returncode == 1
    rows = rows_of(tmp_path)["gpu_tests"]
    assert sorted(row["what"] for row in rows) == ["counts", "failed", "passed", "skipped"]
    assert "assert 1 == 2" in next(row["said"] for row in rows if row["what"] == "failed")
    counts = next(row for row in rows if row["what"] == "counts")
    assert (counts["passed"], counts["failed"], counts["skipped"]) == (1, 1, 1)
