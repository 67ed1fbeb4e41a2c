"""A page in a real browser without a window: its elements after scripts ran, and what its console said."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ABSENT = "no chromium on PATH (Debian: apt-get install chromium)"


def rendered(address: str, profile: Path, *more: str) -> tuple[str, list[str]]:
    """The elements, and lines of the console; `more`: options of the browser."""
    assert CHROMIUM
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    options += ["--disable-background-networking", "--no-first-run", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, *more, address], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
