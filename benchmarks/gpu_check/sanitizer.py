"""compute-sanitizer over four tiny cases (cases.py): reads and writes out of bounds, and races in shared memory.

Both tools run at the same time: most of either's is the start of torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from gpu_check.check import Check

TOOLS = {"memcheck": ["--leak-check", "no"], "racecheck": []}
FOUND = 99  # exit status where the tool finds something
SUMMARY = re.compile(r"={9} ((?:ERROR|RACECHECK) SUMMARY: .*)")


def main(check: Check) -> int:
    program = [sys.executable, "-u", "-m", "gpu_check.cases", *check.options, "--out", str(check.out)]
    tool = check.tool("compute-sanitizer")
    if tool is None:
        check.row(what="missing", why="no compute-sanitizer on PATH or in /usr/local/cuda: the cases run without it")
        return subprocess.run(program).returncode
    # Every tensor an allocation of its own: what is read beyond one lies in no other.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    logs = {name: check.out / f"{name}.txt" for name in TOOLS}
    processes = {}
    for name, options in TOOLS.items():
        command = [tool, "--tool", name, *options, "--error-exitcode", str(FOUND), *program]
        with logs[name].open("w") as log:
            processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    return max([_result(check, name, process, logs[name]) for name, process in processes.items()])


def _result(check: Check, name: str, process: subprocess.Popen, log: Path) -> int:
    status = process.wait()
    said = log.read_text(errors="replace")
    print(said[-20000:])
    summary = SUMMARY.findall(said)
    first = [line for line in said.splitlines() if line.startswith("=========")][:12]
    detail = {"said": "\n".join(first if summary else said.splitlines()[-12:])} if status else {}
    check.row(what=name, status=status, summary=summary[-1] if summary else "none was printed", **detail)
    log.unlink()
    return status


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("sanitizer")))
