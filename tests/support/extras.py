"""What the extras of pyproject.toml name, and programs that run where nothing else can be imported."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = WHOLE["project"]["optional-dependencies"]
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "open_clip_torch": "open_clip"}  # by distribution, where it differs


def distributions(extra: str) -> set[str]:
    """Those that an extra names, by itself or through another extra of ours."""
    named = [re.split(r"[<>=;\[ ]", requirement)[0] for requirement in EXTRAS[extra]]
    inner = re.findall(r"relvlm\[([^]]*)\]", " ".join(EXTRAS[extra]))
    return {*named, *(name for part in inner for each in part.split(",") for name in distributions(each))} - {"relvlm"}


def others(extra: str) -> list[str]:
    """Modules of the distributions that other extras of users name, and this one does not."""
    every = {name for each in EXTRAS if each != "dev" for name in distributions(each)}
    return sorted(MODULES.get(name, name) for name in every - distributions(extra))


def run_with(extra: str, program: str) -> str:
    """What a Python program prints where the modules of all other extras cannot be imported; it must not fail."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({others(extra)}, None))\n"
    done = subprocess.run([sys.executable, "-c", blocked + program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def command(*words: object) -> str:
    """Program that runs `relvlm WORDS`."""
    argv = ["relvlm", *map(str, words)]
    lines = ["import relvlm.cli", f"sys.argv = {argv}", "try: relvlm.cli.main()"]
    return "\n".join([*lines, "except SystemExit as end: assert not end.code", ""])
