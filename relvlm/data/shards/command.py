"""What a command writes, as a stream: `pipe:COMMAND`, for stores that only a program of their own can read."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from typing import IO


class CommandOutput:
    """The standard output of a shell's command, which has to end with status 0."""

    def __init__(self, command: str) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this
        self._process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # so that `close` ends all of a pipeline
        )

    def read(self, size: int) -> bytes:
        """The next bytes, `size` of them until the output ends; raises OSError where the command failed."""
        assert self._process.stdout is not None
        data: bytes = self._process.stdout.read(size)
        if len(data) < size and self._process.wait() != 0:
            raise OSError(f"exit status {self._process.returncode}: {self._last_words()}")
        return data

    def close(self) -> None:
        """End the command where it still runs."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was said on standard error"
