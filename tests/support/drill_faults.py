"""The faults of a drill: each starts a run, breaks it, and says whether what follows is right."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

from relvlm import checkpoints
from relvlm.stopping import REQUEUE
from support.drilled_run import EVERY, Drill, children, finished, go_back, has_one_line, kill_the_rest
from support.launched import ROOT, rows, start

POISONED = ROOT / "tests/support/poisoned.py"


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
