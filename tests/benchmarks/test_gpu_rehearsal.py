"""The GPU check rehearsed whole on the CPU: no argument, package or unit is wrong when a GPU is at hand."""

import os
import re
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


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    """Both parts, with stand-ins for the tools; a machine with other work on it may take its time."""
    folder = tmp_path_factory.mktemp("rehearsal")
    tools = {"GPU_CHECK_TOOLS": str(stand_ins(folder / "tools")), "PYTHON": sys.executable}
    options = ("--rehearse", "--patience", "10", "--out", folder / "out")
    return run(CHECK, *options, **tools), folder / "out"


@pytest.mark.slow
def test_every_stage_is_green_and_writes_its_rows(rehearsal) -> None:
    done, out = rehearsal
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    rows = rows_of(out)
    ends = [(row["of"], row["status"]) for row in rows["end"]]
    names = [
        "build",
        "ceilings",
        "gpu_tests",
        "sanitizer",
        "kernels",
        "table",
        "build",
        "peers",
        "step",
        "nsight",
        "table",
    ]
    assert ends == [(name, "ok") for name in names]
    assert all(rows[name] for name in set(names) - {"table"})
    assert not [
        row for stage in rows.values() for row in stage if "error" in row or row.get("what") == "wrong"
    ]


@pytest.mark.slow
def test_kernels_are_split_into_their_parts(rehearsal) -> None:
    measured = [row for row in rows_of(rehearsal[1])["kernels"] if row["what"] == "kernels"]
    assert {row["options"] for row in measured} == {"plain", "dropout", "mean + dropout"}
    for row in measured:
        assert all(row[f"{part}_us"] > 0 for part in ("plan", "attend", "dq", "dkdv", "forward", "backward"))


@pytest.mark.slow
def test_peers_compute_the_same_where_they_can(rehearsal) -> None:
    peers = rows_of(rehearsal[1])["peers"]
    ways = {(row["way"], row["shape"]) for row in peers if row["what"] == "peer"}
    assert {("flash, images", "captions"), ("flash, boxes gathered", "mrc"), ("packed mask", "mrc")} <= ways
    refused = {(row["way"], row["why"]) for row in peers if row["what"] == "refused"}
    assert refused == {("flash, images", "knows no boxes")}


@pytest.mark.slow
def test_a_step_is_timed_eager_and_compiled(rehearsal) -> None:
    steps = rows_of(rehearsal[1])["step"]
    assert [(row["kind"], row["compiled"]) for row in steps] == [
        ("captions", False), ("mrc", False), ("captions", True), ("mrc", True),
    ]  # fmt: skip
    for row in steps:
        assert row["ms"] > 0 and row["launches"] > 100 and row["busy"] > 0 and row["mfu"] > 0
        assert len(row["top"]) == 20 and row["top"][0]["us"] >= row["top"][1]["us"] > 0


@pytest.mark.slow
def test_the_tools_words_are_rows(rehearsal) -> None:
    rows = rows_of(rehearsal[1])
    found = {row["what"]: row.get("summary") for row in rows["sanitizer"]}
    assert found == {"memcheck": "ERROR SUMMARY: 0 errors", "racecheck": "ERROR SUMMARY: 0 errors"} | {
        name: None for name in ("missing", "case")
    }
    attend, dkdv = (row for row in rows["nsight"] if row["what"] == "kernel")
    assert attend["duration"] == "25,120 nsecond" and attend["registers"] == "168 register/thread"
    assert dkdv["name"] == "attention_backward_kv"


@pytest.mark.slow
def test_the_table_holds_all_of_it_in_sixty_lines(rehearsal) -> None:
    done, out = rehearsal
    table = (out / "table.md").read_text()
    assert table.count("\n") <= 60
    for said in (
        "GPU tests: ",
        "memcheck: ",
        "| mrc, triton |",
        "flash, boxes gathered",
        "captions, 2 images, eager",
        "attend",
    ):
        assert said in table
    assert table in done.stdout


@pytest.mark.slow
def test_a_test_that_needs_a_gpu_needs_no_package_of_training() -> None:
    """They are collected where DeepSpeed, webdataset and submitit cannot be imported."""
    block = (
        "import sys; sys.modules |= dict.fromkeys(['deepspeed', 'webdataset', 'submitit']); import pytest; "
    )
    places = re.search(r"PLACES = (\[.*?\])", (ROOT / CHECK / "gpu_tests.py").read_text(), re.S)
    assert places
    options = f"[*{places[1]}, '-m', 'gpu', '--collect-only', '-q', '-p', 'no:cacheprovider']"
    done = run("-c", f"{block}sys.exit(pytest.main({options}))")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.findall(r"(\d+)(?:/\d+)? tests collected", done.stdout)[-1]) >= 90


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
