"""The GPU check rehearsed whole on the CPU: no argument, package or unit is wrong when a GPU is at hand."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs import ROOT, rows_of, run

CHECK = "benchmarks/gpu_check"
TOOL = """#!/bin/sh
# Stands for a tool of the CUDA toolkit: prints what that would, and runs the program behind its options.
while [ "${1##*/}" != "${PYTHON##*/}" ]; do shift; done
"$@" || exit 99
cat <<'END'
%s
END
"""
NCU = [
    '"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"',
    '"0","7","void relvlm::<unnamed>::attend<relvlm::Bfloat16, 64, 1>(relvlm::Call)","GPU Speed Of Light Throughput",'
    '"Duration","nsecond","25,120"',
    '"0","7","void relvlm::<unnamed>::attend<relvlm::Bfloat16, 64, 1>(relvlm::Call)","Launch Statistics",'
    '"Registers Per Thread","register/thread","168"',
    '"1","7","attention_backward_kv","GPU Speed Of Light Throughput","Duration","nsecond","31000"',
]


def stand_ins(folder: Path) -> Path:
    """A folder with tools that say what the real ones say."""
    folder.mkdir()
    summary = "========= ERROR SUMMARY: 0 errors"
    for name, says in {"ncu": "\n".join(NCU), "compute-sanitizer": summary}.items():
        tool = folder / name
        tool.write_text(TOOL % says)
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return folder


def rehearsed(part: str, folder: Path) -> tuple[dict[str, list[dict]], str]:
    """Rows by stage, and what was printed. A machine with other work on it may take its time."""
    tools = {"GPU_CHECK_TOOLS": str(stand_ins(folder / "tools")), "PYTHON": sys.executable}
    options = ("--rehearse", "--part", part, "--patience", "10", "--out", folder / "out")
    done = run(CHECK, *options, **tools)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return rows_of(folder / "out"), done.stdout


def all_green(rows: dict[str, list[dict]], *stages: str) -> None:
    """Every stage ended well and has rows, none of which tells of an error."""
    assert [(row["of"], row["status"]) for row in rows["end"]] == [(name, "ok") for name in stages]
    assert all(rows[name] for name in set(stages) - {"table"})
    assert not [row for stage in rows.values() for row in stage if "error" in row or row.get("what") == "wrong"]


def one_table(out: Path, printed: str, *said: str) -> None:
    """Of at most 60 lines, written and printed."""
    table = (out / "table.md").read_text()
    assert table.count("\n") <= 60 and table in printed
    assert all(words in table for words in said), table


@pytest.mark.slow
def test_part_a_is_green(tmp_path: Path) -> None:
    rows, printed = rehearsed("a", tmp_path)
    all_green(rows, "build", "ceilings", "gpu_tests", "sanitizer", "kernels", "table")
    assert next(row for row in rows["gpu_tests"] if row["what"] == "counts")["collected"] >= 90
    found = {row["what"]: row.get("summary") for row in rows["sanitizer"]}
    clean = "ERROR SUMMARY: 0 errors"
    assert found == {"memcheck": clean, "racecheck": clean, "missing": None, "case": None}
    measured = [row for row in rows["kernels"] if row["what"] == "kernels"]
    assert {row["options"] for row in measured} == {"plain", "dropout", "mean + dropout"}
    for row in measured:
        assert all(row[f"{part}_us"] > 0 for part in ("plan", "attend", "dq", "dkdv", "forward", "backward"))
    one_table(tmp_path / "out", printed, "GPU tests: ", "memcheck: ", "| mrc, triton |")


@pytest.mark.slow
def test_part_b_is_green(tmp_path: Path) -> None:
    rows, printed = rehearsed("b", tmp_path)
    all_green(rows, "build", "peers", "step", "nsight", "table")
    ways = {(row["way"], row["shape"]) for row in rows["peers"] if row["what"] == "peer"}
    assert {("flash, images", "captions"), ("flash, boxes gathered", "mrc"), ("packed mask", "mrc")} <= ways
    refused = {(row["way"], row["why"]) for row in rows["peers"] if row["what"] == "refused"}
    assert refused == {("flash, images", "knows no boxes")}
    steps = [(row["kind"], row["compiled"]) for row in rows["step"]]
    assert steps == [("captions", False), ("mrc", False), ("captions", True), ("mrc", True)]
    for row in rows["step"]:
        assert row["ms"] > 0 and row["launches"] > 100 and row["busy"] > 0 and row["mfu"] > 0
        assert len(row["top"]) == 20 and row["top"][0]["us"] >= row["top"][1]["us"] > 0
    attend, dkdv = (row for row in rows["nsight"] if row["what"] == "kernel")
    assert attend["duration"] == "25,120 nsecond" and attend["registers"] == "168 register/thread"
    assert dkdv["name"] == "attention_backward_kv"
    one_table(tmp_path / "out", printed, "flash, boxes gathered", "images, eager", "attend<")


def gcc_file(name: str) -> str:
    return subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_the_cuda_kernels_are_rehearsed_emulated(tmp_path: Path) -> None:
    """Their library as the shim builds it for a CPU, under the address sanitizer, which must be loaded first."""
    code = "import sys, pathlib, build; build.build(pathlib.Path(sys.argv[1]), small=True)"
    built = run("-c", code, tmp_path, PYTHONPATH=str(ROOT / "tests/kernels/cuda_shim"))
    if "sanitize" in built.stderr:
        pytest.skip("no sanitizers")
    assert built.returncode == 0, built.stderr[-3000:]
    folders = os.pathsep.join(str(ROOT / name) for name in ("benchmarks", "tests", "kernels", "."))
    environment = {
        "GPU_CHECK_EMULATED": str(tmp_path / "_cuda.so"), "TRITON_INTERPRET": "1", "PYTHONPATH": folders,
        "LD_PRELOAD": " ".join(map(gcc_file, ("libasan.so", "libstdc++.so"))),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    }  # fmt: skip
    for stage in ("cases", "kernels"):
        done = run("-m", f"gpu_check.{stage}", "--rehearse", "--out", tmp_path, **environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    rows = rows_of(tmp_path)
    cases = [(row["backend"], row["op"], row["sound"]) for row in rows["sanitizer"]]
    assert cases == [
        ("cuda", "region_attention", True), ("cuda", "varlen_attention", True), ("cuda", "pooling", True),
        ("triton", "region_attention", True),
    ]  # fmt: skip
    measured = [(row["backend"], row["options"]) for row in rows["kernels"] if "forward_us" in row]
    assert measured.count(("cuda", "plain")) == measured.count(("triton", "plain")) == 2
