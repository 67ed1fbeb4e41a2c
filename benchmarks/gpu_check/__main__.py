"""Runs the stages one after another: `python benchmarks/gpu_check --part a b`. Depends on no package.

The interpreter that runs this runs all of it: it must have torch and triton (Python 3.12, torch 2.11, triton 3.6 do),
nothing is installed. Every stage is a process with a time limit; one that fails or runs out of time stops no other, and
the exit status is 1 at the end. Where the cuda kernels are missing, it ends at once with status 2: --without-cuda goes
on with Triton's alone. Rows and the log go to --out, else $OUT, else $GPU_OUT, else runs/gpu-check.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")  # instead of this folder, whose modules are not at the top

from gpu_check.check import append, latest, read  # noqa: E402
from gpu_check.stages import MISSING, PARTS, Stage  # noqa: E402

FOLDERS = [ROOT / "benchmarks", ROOT / "tests", ROOT, ROOT / "kernels"]
NOT_USABLE = 2


def main() -> int:
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    args.out = args.out.resolve()
    print(f"{sys.executable}; rows, log and table: {args.out}", flush=True)
    if not _usable(args):
        return NOT_USABLE
    red = []
    for part in args.part:
        for stage in PARTS[part]:
            status = _run(stage, args)
            red += [] if status == "ok" else [f"{part}/{stage.name}: {status}"]
            if stage.name == "build" and status == f"exit {MISSING}" and not args.without_cuda:
                print("THE CUDA KERNELS ARE MISSING (above): nothing measured; --without-cuda goes on with Triton")
                return NOT_USABLE
    print("\nNOT GREEN: " + "; ".join(red) if red else "\nall stages are green")
    return bool(red)


def _usable(args: argparse.Namespace) -> bool:
    command = [sys.executable, "-m", "gpu_check.preflight", *_options(args)]
    return subprocess.run(command, env=_environment(), cwd=ROOT).returncode == 0


def _run(stage: Stage, args: argparse.Namespace) -> str:
    """Runs one stage; "ok", or what became of it."""
    append(args.out, {"stage": "begin", "of": stage.name})
    began, log = time.monotonic(), args.out / "log.txt"
    before = log.stat().st_size if log.exists() else 0
    with log.open("a") as file:
        file.write(f"\n== {stage.name}\n")
        file.flush()
        status = _status(stage, args, file)
    took, rows = time.monotonic() - began, len(latest(read(args.out), stage.name))
    append(args.out, {"stage": "end", "of": stage.name, "status": status, "seconds": round(took, 1)})
    print(f"{stage.name}: {status}, {rows} rows in {took:.0f} of {stage.seconds} s", flush=True)
    with log.open(errors="replace") as file:
        file.seek(before)
        said = file.read()
    if stage.name == "table":
        print(said.split("\n", 2)[2])
    elif status != "ok":
        print("\n".join(f"  {line}" for line in said.splitlines()[-12:]), flush=True)
    return status


def _status(stage: Stage, args: argparse.Namespace, log) -> str:
    """ "ok", "exit N" or "out of time"; then whatever the stage started is ended with it."""
    command = [sys.executable, "-u", "-m", f"gpu_check.{stage.name}", *_options(args)]
    environment = _environment() | {"TRITON_INTERPRET": "1"} if _interprets(stage, args) else _environment()
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(stage.seconds * args.patience)
        return "ok" if code == 0 else f"exit {code}"
    except subprocess.TimeoutExpired:
        return "out of time"
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """Ends what is left of its session: a stage's own processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _interprets(stage: Stage, args: argparse.Namespace) -> bool:
    return args.rehearse and stage.interpreted


def _options(args: argparse.Namespace) -> list[str]:
    return ["--out", str(args.out), *["--rehearse"] * args.rehearse]


def _environment() -> dict[str, str]:
    """This tree's packages come before any that are installed."""
    paths = [*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")]
    dropped = ("RELVLM_KERNELS", "TRITON_INTERPRET")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    programs = os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)  # such as ninja
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PATH": os.pathsep.join(programs), "PYTHONUNBUFFERED": "1"
    }  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=_default_out())
    parser.add_argument("--without-cuda", action="store_true", help="measure Triton alone where cuda is missing")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at toy size")
    parser.add_argument("--patience", type=float, default=1, help="times the stages' time limits")
    return parser.parse_args()


def _default_out() -> Path:
    return Path(os.environ.get("OUT") or os.environ.get("GPU_OUT") or ROOT / "runs" / "gpu-check")


if __name__ == "__main__":
    sys.exit(main())
