"""Building a shard set: rate by processes, memory by size, what a kill costs.

    python benchmarks/build.py                                    # 20,000 tiny photos, every format
    python benchmarks/build.py --images 200000 --json benchmarks/results/build.json

Photos are 64 x 48 JPEGs, so what is measured is the builder, not decoding. Sides are interleaved, figures are medians.
Times are CPU times, since machines are shared: those of two processes on two cores are half of the sum of the main
process and its two workers, or the main process alone where that is longer. Memory is the main process's peak. `killed`
ends the build with SIGKILL when half of the shards are there; what counts is the same command again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from build_formats import FORMATS, write_photos


def command(flags: list[str], out: Path, processes: int) -> list[str]:
    return [sys.executable, __file__, "--child", *flags, "--processes", str(processes), "--out", str(out)]


def built(flags: list[str], out: Path, processes: int) -> dict[str, float]:
    """CPU seconds of the build (see above) and peak memory in MB."""
    shutil.rmtree(out, ignore_errors=True)
    return run(command(flags, out, processes))


def run(arguments: list[str]) -> dict[str, float]:
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def child(flags: list[str]) -> None:
    """Build, and print the time and memory of it as the last line."""
    import webdataset  # noqa: F401  # 2 s that a build of any size pays once

    from relvlm.data import cli
    from relvlm.paths import Parser

    parser = Parser()
    cli.add_arguments(parser)
    args = parser.parse_args(["build", *flags])
    before = cpu_seconds(resource.RUSAGE_SELF)
    cli.main(args)
    own, workers = cpu_seconds(resource.RUSAGE_SELF) - before, cpu_seconds(resource.RUSAGE_CHILDREN)
    print(json.dumps({"seconds": max(own, (own + workers) / args_processes(flags)), "memory": peak_mb()}))


def peak_mb() -> float:
    """Of this program alone: what getrusage says begins with the peak of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def cpu_seconds(who: int) -> float:
    """User and system time of this process, or of its children that have ended."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def args_processes(flags: list[str]) -> int:
    return int(flags[flags.index("--processes") + 1])


def killed(flags: list[str], out: Path, shards: int, whole: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the run after a kill at half of the shards, and whether the manifest is that of a whole build."""
    shutil.rmtree(out, ignore_errors=True)
    journal = out.with_name(f".{out.name}.building") / "journal"
    build = subprocess.Popen(command(flags, out, 2), stdout=subprocess.DEVNULL)
    while len(list(journal.glob("0*.json"))) < shards // 2:
        time.sleep(0.01)
    os.kill(build.pid, signal.SIGKILL)
    build.wait()
    again = run(command(flags, out, 2))
    same = json.loads((out / "manifest.json").read_text())["shards"] == whole["shards"]
    left = [path.name for path in out.parent.iterdir() if path.name.startswith(".")]
    return {"seconds": again["seconds"], "same": same, "left_over": left}


def measure(name: str, folder: Path, count: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    small, large = (FORMATS[name](folder, n) for n in (count // 4, count))
    out = folder / "out"
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, found in runs.items():
            found.append(built(large, out, processes))
    whole = json.loads((out / "manifest.json").read_text())
    quarter = built(small, out, 1)
    one, two = (median(run["seconds"] for run in runs[n]) for n in (1, 2))
    after = killed(large, out, len(whole["shards"]), whole)
    return {
        "format": name,
        "images": count,
        "one_per_second": count / one,
        "two_per_second": count / two,
        "two_over_one": one / two,
        "memory_quarter_mb": quarter["memory"],
        "memory_mb": runs[1][-1]["memory"],
        "memory_ratio": runs[1][-1]["memory"] / quarter["memory"],
        "after_kill": after["seconds"] / two,
        "same_hashes": after["same"],
        "left_over": after["left_over"],
    }


def table(rows: list[dict[str, Any]], header: bool = True) -> str:
    """The rows as Markdown."""
    lines = header * [
        "| format | images | images/s, 1 process | 2 processes | ratio | peak MB at a quarter | at all | ratio | "
        "run after a kill at half / whole | same hashes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        memory = f"{r['memory_quarter_mb']:.0f} | {r['memory_mb']:.0f} | {r['memory_ratio']:.2f}"
        lines.append(
            f"| {r['format']} | {r['images']:,} | {r['one_per_second']:,.0f} | {r['two_per_second']:,.0f} | "
            f"{r['two_over_one']:.2f} | {memory} | "
            f"{r['after_kill']:.0%} | {'yes' if r['same_hashes'] and not r['left_over'] else 'NO'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)  # now, lest minutes of building be lost
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "photos", args.images)
        for form in args.formats:
            with tempfile.TemporaryDirectory(dir=folder) as inner:
                (Path(inner) / "photos").symlink_to(folder / "photos")
                rows.append(measure(form, Path(inner), args.images, args.repeats))
            print(table(rows[-1:], header=len(rows) == 1), flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
