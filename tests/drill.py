"""A run that is broken again and again, and must end as if nothing had happened.

    python -m tests.drill [--faults 100] [--seed 0] [--ranks 2] [--json FILE]

A miniature ReX-VLM is trained twice: unbroken, and with a random fault at a random moment after each start. Each time
the run must end within twice its deadline, in success, with one line of error, or asking to be requeued; and the same
command must go on. In the end every row of metrics.csv and every weight must be those of the unbroken run. Prints a
line a fault and a table; exit status 1 where anything was otherwise. Disks that are full or read-only are made by
mounting a small one, which takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.launched import ROOT, rows, start

from relvlm import checkpoints
from relvlm.stopping import REQUEUE

DEADLINES = {"start": 120, "first_step": 120, "step": 10, "save": 60}
MOST_S = 2 * DEADLINES["start"]
EVERY = 40
STEPS_A_FAULT = 30
POISONED = ROOT / "tests/support/poisoned.py"


@dataclass
class Drill:
    """A run in `out`: its command, and what has been found wrong so far."""

    out: Path
    command: list[str]
    ranks: int
    steps: int
    random: random.Random
    before: int = 0
    wrong: list[str] = field(default_factory=list)
    steps_lost: list[int] = field(default_factory=list)

    def begin(self, script: Path | None = None, **environment: str) -> list[subprocess.Popen[str]]:
        """The ranks, just started."""
        self.before = self.inode()
        return start([*self.command, f"out={self.out}"], self.ranks, script, **environment)

    def inode(self) -> int:
        """Of metrics.csv, which each start writes anew."""
        path = self.out / "metrics.csv"
        return path.stat().st_ino if path.exists() else 0

    def under_way(self, processes: list[subprocess.Popen[str]]) -> bool:
        """Wait for a random moment: within the start, or some steps on; whether the run still goes on."""
        if self.random.random() < 0.25:
            time.sleep(self.random.uniform(0, 8))
        else:
            self.wait_for_steps(self.random.randint(1, 60), processes)
        return all(process.poll() is None for process in processes)

    def wait_for_steps(self, more: int, processes: list[subprocess.Popen[str]], most_s: float = MOST_S) -> None:
        """Until this start has logged so many steps after the newest checkpoint that was there, or has ended."""
        until, limit = self.saved() + more, time.monotonic() + most_s
        while all(p.poll() is None for p in processes) and time.monotonic() < limit:
            if self.inode() != self.before and self.done() >= until:
                return
            time.sleep(0.02)

    def done(self) -> int:
        """Steps that are logged."""
        return len(rows(self.out))

    def saved(self) -> int:
        """The newest checkpoint's step."""
        found = checkpoints.saved(self.out / "checkpoints")
        return checkpoints.step_of(found[-1]) if found else 0

    def end(self, processes: list[subprocess.Popen[str]], name: str) -> tuple[list[int], str]:
        """Exit statuses, and all that was said; a rank that hangs is a fault of the run."""
        limit, texts = time.monotonic() + MOST_S, []
        for process in processes:
            try:
                texts.append(process.communicate(timeout=max(limit - time.monotonic(), 1))[1])
            except subprocess.TimeoutExpired:
                self.wrong.append(f"{name}: a rank was still there after {MOST_S} s")
                process.kill()
                texts.append(process.communicate()[1])
        return [process.returncode for process in processes], "\n".join(texts)

    def expect_no_step_lost(self, name: str, said: str) -> None:
        """After a start that was told to end: all that it has made is saved, if it came to make any."""
        if self.inode() != self.before:
            self.steps_lost.append(self.done() - self.saved())
            self.expect(self.steps_lost[-1] == 0, f"{name}: {self.steps_lost[-1]} steps lost", said)

    def expect(self, right: bool, name: str, said: str) -> None:
        """Remember what was not as it must be."""
        if not right:
            self.wrong.append(f"{name}: " + " | ".join(said.splitlines()[-6:]))


def has_one_line(said: str) -> bool:
    """Whether it says what was wrong, and no traceback is all that there is."""
    return any("error: " in line for line in said.splitlines())


# ---- The faults: each breaks a run that has been started, and says whether what follows is right ------------------


def kill(drill: Drill) -> None:
    """kill -9 of a rank."""
    processes = drill.begin()
    drill.under_way(processes)
    drill.random.choice(processes).kill()
    statuses, said = drill.end(processes, "kill")
    drill.expect(0 not in statuses or finished(drill), "kill", said)


def kill_all(drill: Drill) -> None:
    """kill -9 of all ranks at once."""
    processes = drill.begin()
    drill.under_way(processes)
    for process in processes:
        process.kill()
    drill.end(processes, "kill_all")


def kill_worker(drill: Drill) -> None:
    """kill -9 of a loader worker."""
    processes = drill.begin()
    drill.under_way(processes)
    workers = [pid for process in processes for pid in children(process)]
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(drill.random.choice(workers), signal.SIGKILL)
        statuses, said = drill.end(processes, "kill_worker")
        drill.expect((0 not in statuses and has_one_line(said)) or finished(drill), "kill_worker", said)
    else:
        kill_the_rest(drill, processes)


def told(drill: Drill, number: signal.Signals) -> None:
    """A signal to one rank: all save and ask to be requeued, and no step is lost."""
    processes = drill.begin()
    going = drill.under_way(processes)
    drill.random.choice(processes).send_signal(number)
    statuses, said = drill.end(processes, number.name)
    drill.expect(not going or REQUEUE in statuses or finished(drill), number.name, said)
    drill.expect_no_step_lost(number.name, said)


def time_limit(drill: Drill) -> None:
    """The job's time is nearly over, as Slurm's environment says."""
    ends = time.time() + 120 + drill.random.uniform(3, 15)
    statuses, said = drill.end(drill.begin(SLURM_JOB_END_TIME=str(int(ends))), "time_limit")
    drill.expect(set(statuses) == {REQUEUE} or finished(drill), "time_limit", said)
    drill.expect_no_step_lost("time_limit", said)


def stop(drill: Drill) -> None:
    """SIGSTOP of a rank for good: the others end within the deadline and name it."""
    processes = drill.begin()
    drill.wait_for_steps(drill.random.randint(2, 60), processes)
    stopped = drill.random.choice(processes)
    if stopped.poll() is not None:
        return kill_the_rest(drill, processes)
    stopped.send_signal(signal.SIGSTOP)
    others = [process for process in processes if process is not stopped]
    statuses, said = drill.end(others, "stop")
    stopped.kill()
    drill.end([stopped], "stop")
    named = f"(pid {stopped.pid})" in said and has_one_line(said)
    drill.expect(named or not others or 0 in statuses, "stop", said)
    return None


def pause(drill: Drill) -> None:
    """SIGSTOP and SIGCONT: nothing happens."""
    processes = drill.begin()
    if drill.under_way(processes):
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        time.sleep(drill.random.uniform(0, 3))
        for process in processes:
            process.send_signal(signal.SIGCONT)
        drill.wait_for_steps(5, processes)
        drill.expect(all(p.poll() in (None, 0) for p in processes), "pause", "a rank has ended")
    kill_the_rest(drill, processes)


def nan(drill: Drill) -> None:
    """NaN on one rank: the step is skipped on all, said and counted; the run is then put back to before it."""
    at = drill.saved() + drill.random.randint(1, EVERY)
    rank = drill.random.randrange(drill.ranks)
    before = drill.saved()
    processes = drill.begin(POISONED, POISON=f"{at - 1}-{at - 1}:{rank}")
    drill.wait_for_steps(at + 2 - before, processes)
    kill_the_rest(drill, processes)
    row = next((row for row in rows(drill.out) if row["step"] == str(at)), None)
    drill.expect(row is None or row["skipped"] == "1", "nan", f"row {row}")
    go_back(drill, before)


def damage_checkpoint(drill: Drill) -> None:
    """A byte, a cut or a missing file in the newest checkpoint: named, and an older one is taken."""
    found = checkpoints.saved(drill.out / "checkpoints")
    if len(found) < 2:
        return kill_all(drill)
    path = drill.random.choice(sorted(path for path in found[-1].iterdir() if path.is_file()))
    content = bytearray(path.read_bytes())
    how = drill.random.choice(["flip", "cut", "remove"])
    if how == "remove":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: drill.random.randrange(len(content))])
    else:
        content[drill.random.randrange(len(content))] ^= 1 << drill.random.randrange(8)
        path.write_bytes(content)
    processes = drill.begin()
    older = checkpoints.step_of(found[-2]) - checkpoints.step_of(found[-1])
    drill.wait_for_steps(older + 3, processes)
    _, said = kill_the_rest(drill, processes)
    named = f"{found[-1].name}/" in said and f"goes on from {found[-2]}" in said
    drill.expect(named, f"damage_checkpoint: {how} {path.name}", said)
    return None


def damage_shard(drill: Drill) -> None:
    """Bytes of a shard: samples are skipped with shard and key said; the shard and the run are then put back."""
    shard = drill.random.choice(sorted((drill.out.parents[1] / "world").rglob("*.tar")))
    whole, before = shard.read_bytes(), drill.saved()
    broken = bytearray(whole)
    for _ in range(200):
        broken[drill.random.randrange(len(broken))] ^= 0xFF
    shard.write_bytes(broken)
    processes = drill.begin()
    drill.wait_for_steps(40, processes)
    statuses, said = kill_the_rest(drill, processes)
    named = "another sample takes its place" in said or has_one_line(said) or set(statuses) <= {-9, 0}
    drill.expect(named, "damage_shard", said)
    shard.write_bytes(whole)
    go_back(drill, before)


def second_job(drill: Drill) -> None:
    """Another job in the same folder is refused, and the first is none the worse."""
    processes = drill.begin()
    drill.wait_for_steps(3, processes)
    if any(process.poll() is not None for process in processes):
        return kill_the_rest(drill, processes)
    second = start([*drill.command, f"out={drill.out}"])
    statuses, said = drill.end(second, "second_job")
    drill.expect(statuses == [2] and "is in use by a run" in said, "second_job", said)
    drill.expect(all(process.poll() in (None, 0) for process in processes), "second_job", "the first has ended")
    kill_the_rest(drill, processes)
    return None


def full_disk(drill: Drill) -> None:
    """The disk fills while the run goes on: it ends with one line, or goes on; then there is room again."""
    filler = drill.out / "filler"
    processes = drill.begin()
    drill.under_way(processes)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    drill.wait_for_steps(2 * EVERY, processes, most_s=30)
    statuses, said = kill_the_rest(drill, processes)
    filler.unlink()
    drill.expect(all(s in (-9, 0) for s in statuses) or has_one_line(said), "full_disk", said)


def read_only_disk(drill: Drill) -> None:
    """The disk becomes read-only and writable again."""
    processes = drill.begin()
    drill.under_way(processes)
    disk = str(drill.out.parent / "disk")
    read_only = subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode == 0
    time.sleep(drill.random.uniform(1, 6))
    if read_only:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    statuses, said = kill_the_rest(drill, processes)
    drill.expect(all(s in (-9, 0) for s in statuses) or has_one_line(said), "read_only_disk", said)


FAULTS: dict[str, Callable[[Drill], object]] = {
    "kill": kill,
    "kill_all": kill_all,
    "kill_worker": kill_worker,
    "SIGTERM": lambda drill: told(drill, signal.SIGTERM),
    "SIGUSR1": lambda drill: told(drill, signal.SIGUSR1),
    "SIGUSR2": lambda drill: told(drill, signal.SIGUSR2),
    "time_limit": time_limit,
    "stop": stop,
    "pause": pause,
    "nan": nan,
    "damage_checkpoint": damage_checkpoint,
    "damage_shard": damage_shard,
    "second_job": second_job,
    "full_disk": full_disk,
    "read_only_disk": read_only_disk,
}
NEED_A_DISK = {"full_disk", "read_only_disk"}


def finished(drill: Drill) -> bool:
    """Whether the run has come to its end."""
    return (drill.out / "checkpoints" / checkpoints.name_of(drill.steps)).is_dir()


def kill_the_rest(drill: Drill, processes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """End a run whose part is over, the hard way."""
    for process in processes:
        process.kill()
    return drill.end(processes, "kill")


def go_back(drill: Drill, step: int) -> None:
    """Put the run back to a checkpoint: what came after was made of other data."""
    for path in checkpoints.saved(drill.out / "checkpoints"):
        if checkpoints.step_of(path) > step:
            shutil.rmtree(path)
    if not step:
        (drill.out / "metrics.csv").unlink(missing_ok=True)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Its loader workers."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    listed = path.read_text().split() if path.exists() else []
    return [pid for pid in map(int, listed) if is_python(pid)]


def is_python(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "relvlm" in Path(f"/proc/{pid}/cmdline").read_text()
    return False


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """A small disk of its own for the run, if this user may mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "drill", folder], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def made_world(folder: Path, steps: int) -> list[str]:
    """A small RelWorld, and the command that trains on it."""
    build = ["data", "build", "relworld", "--out", str(folder), "--images", "600", "--seed", "1", "--image-size", "32"]
    subprocess.run([sys.executable, "-m", "relvlm.cli", *build], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    data = [f"data.{kind}=[{{path: {folder / kind}}}]" for kind in ("captions", "entities")]
    data += [f"data.graphs=[{{path: {folder / 'graphs'}, block: 2}}]", "data.workers=1", "data.max_fault_rate=1"]
    data += [f"data.vocab={folder / 'vocab.txt'}", f"data.relations={folder / 'relations.txt'}"]
    sizes = ["data.batch={captions: 8, entities: 8, mrc: 8, vsg: 8}"]
    sizes += ["data.negative_pool={captions: 4, entities: 2, vsg: 4}"]
    saves = [f"steps={steps}", f"checkpoint.every={EVERY}", "checkpoint.keep=4", "log_every=1"]
    deadlines = ", ".join(f"{name}: {value}" for name, value in DEADLINES.items())
    return ["--config", str(ROOT / "configs/mini/rex_vlm.yaml"), *data, *sizes, *saves, f"deadlines={{{deadlines}}}"]


def differences(there: Path, here: Path, steps: int) -> list[str]:
    """What two finished runs differ in."""
    done = subprocess.run(
        [sys.executable, "-m", "relvlm.cli", "compare", str(there), str(here)], cwd=ROOT, capture_output=True, text=True
    )
    found = [done.stdout.strip() or done.stderr.strip()] if done.returncode else []
    models = [path / "checkpoints" / checkpoints.name_of(steps) / "model.safetensors" for path in (there, here)]
    if not all(path.is_file() for path in models) or len({path.read_bytes() for path in models}) > 1:
        found.append("the models are not the same to the bit")
    return found


def run(folder: Path, faults: int, seed: int, ranks: int) -> dict[str, object]:
    """Both runs; what was found."""
    steps = EVERY + STEPS_A_FAULT * faults
    command = made_world(folder / "world", steps)
    unbroken = Drill(folder / "unbroken", command, ranks, steps, random.Random(0))
    statuses, said = unbroken.end(unbroken.begin(), "unbroken")
    assert set(statuses) == {0}, said[-3000:]
    with disk(folder / "disk") as own_disk:
        drill = Drill(folder / "disk/run", command, ranks, steps, random.Random(seed))
        possible = [name for name in FAULTS if own_disk or name not in NEED_A_DISK]
        met: Counter[str] = Counter()
        while sum(met.values()) < faults:
            name = drill.random.choice(possible)
            met[name] += 1
            began, wrong = time.monotonic(), len(drill.wrong)
            if finished(drill):  # the run is over: begin it again
                check(drill, unbroken)
                shutil.rmtree(drill.out)
            FAULTS[name](drill)
            report(drill, sum(met.values()), name, time.monotonic() - began, wrong)
        statuses, said = drill.end(drill.begin(), "the end")
        drill.expect(set(statuses) == {0}, "the end", said)
        check(drill, unbroken)
    return {"faults": dict(met), "wrong": drill.wrong, "most_steps_lost": max(drill.steps_lost, default=0)}


def check(drill: Drill, unbroken: Drill) -> None:
    drill.wrong.extend(f"the end: {each}" for each in differences(unbroken.out, drill.out, drill.steps))


def report(drill: Drill, count: int, name: str, seconds: float, wrong: int) -> None:
    state = "; ".join(drill.wrong[wrong:]) or "as it should"
    print(f"{count:4d} {name:18s} {seconds:5.1f} s, {drill.done()} steps done: {state}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write what was found")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        found = run(Path(folder), arguments.faults, arguments.seed, arguments.ranks)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(vars(arguments) | found, indent=1, default=str) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
