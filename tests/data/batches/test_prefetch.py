"""Shards of the windows to come are fetched while those of the present ones are read, once a node and within bounds."""

import http.server
import os
import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.shards import toy_sample, write_toys

from relvlm.config.cache import CacheConfig
from relvlm.data.batches import order, prefetch
from relvlm.data.batches.prefetch import PrefetchedPlan, Prefetcher, with_prefetch
from relvlm.data.batches.sampler import BatchPlan, Stream
from relvlm.data.batches.usable import UsableRecords
from relvlm.data.shards import fetching
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError

pytest.importorskip("aiohttp")
SHARDS, EACH = 6, 4
LONG = 60.0  # seconds after which a test that waits for nothing fails


class Slow(http.server.SimpleHTTPRequestHandler):
    """Counts what is asked for, and gives a tar once the test lets it."""

    def do_GET(self) -> None:
        server = self.server
        with server.changed:
            server.asked[self.path.lstrip("/")] += 1
            server.changed.notify_all()
            if self.path.endswith(".tar"):
                server.changed.wait_for(lambda: server.open, LONG)
        path = Path(self.directory + self.path)
        data = path.read_bytes() if path.exists() else b""
        self.send_response(200 if path.exists() else 500)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        path = Path(self.directory + self.path)
        self.send_response(200 if path.exists() else 500)
        self.send_header("Content-Length", str(path.stat().st_size if path.exists() else 0))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), lambda *of: Slow(*of, directory=str(folder)))
        self.changed, self.open, self.asked = threading.Condition(), True, Counter()

    def let(self, open_: bool) -> None:
        with self.changed:
            self.open = open_
            self.changed.notify_all()

    @property
    def tars(self) -> set[str]:
        return {name for name in self.asked if name.endswith(".tar")}


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    for module in (order, prefetch):
        monkeypatch.setattr(module, "SHUFFLE_SHARDS", 2)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)


@pytest.fixture
def server(tmp_path):
    write_toys(tmp_path / "set", SHARDS * EACH, shard_size=EACH)
    with Server(tmp_path / "set") as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def cache(tmp_path) -> CacheConfig:
    return CacheConfig(str(tmp_path / "cache"), tries=2)


def records(server, cache) -> UsableRecords:
    shards = ShardSet(f"http://127.0.0.1:{server.server_port}", cache)
    return UsableRecords(shards, ["captions"], np.empty(0, np.int64))


def plan_of(usable, start=0, rank=0, ranks=1) -> BatchPlan:
    """Steps of half a shard."""
    return BatchPlan([Stream("captions", "captions/0", usable.sizes, EACH // 2, 1.0)], 3, start, rank, ranks)


def window(plan, number) -> set[str]:
    """The tars of the epoch's window."""
    return {f"{shard:06d}.tar" for shard in plan._order(0, 0).shards(number)}


def finish(prefetcher) -> None:
    """Wait for the thread that is at work, if there is one."""
    for thread in threading.enumerate():
        if thread.name == "prefetch":
            thread.join(LONG)
    assert not prefetcher._working


def test_the_present_window_and_the_next_are_fetched_and_none_beyond(server, cache):
    usable = records(server, cache)
    plan = plan_of(usable)
    prefetcher = Prefetcher(plan, [usable])
    prefetcher.reached(0, 0)
    finish(prefetcher)
    assert server.tars == window(plan, 0) | window(plan, 1) and len(server.tars) == 4
    prefetcher.reached(0, 2 * EACH - 1)  # still in the first window
    finish(prefetcher)
    assert len(server.tars) == 4
    prefetcher.reached(0, 2 * EACH)
    finish(prefetcher)
    assert len(server.tars) == SHARDS
    assert set(server.asked.values()) == {1}


def test_behind_the_last_window_comes_the_next_epochs_first(server, cache):
    usable = records(server, cache)
    plan = plan_of(usable)
    prefetcher = Prefetcher(plan, [usable])
    prefetcher.reached(0, SHARDS * EACH - 1)
    finish(prefetcher)
    first = {f"{shard:06d}.tar" for shard in plan._order(0, 1).shards(0)}
    assert server.tars == window(plan, 2) | first


def test_steps_are_not_held_up_and_readers_ask_for_nothing_again(server, cache):
    """While the server gives no tar, the plan goes on; what is read afterwards was asked for once in all."""
    usable = records(server, cache)
    server.let(False)
    ahead = with_prefetch(plan_of(usable), [usable], cache)
    found = list(islice(ahead, 8))
    server.let(True)
    seen = [usable.read(int(index)).sample for step in found for index in step.index]
    assert sorted(int(sample.image_id) for sample in seen) == sorted(int(i) for step in found for i in step.index)
    finish(ahead.prefetcher)
    assert set(server.asked.values()) == {1}


def test_the_ranks_of_a_node_fetch_a_shard_once(server, cache):
    usable = records(server, cache)
    server.let(False)
    prefetchers = [Prefetcher(plan_of(usable, rank=rank, ranks=2), [usable]) for rank in range(2)]
    for prefetcher in prefetchers:
        prefetcher.reached(0, 0)
    with server.changed:
        assert server.changed.wait_for(lambda: len(server.tars) == 2, LONG)  # each begins at another
    server.let(True)
    for prefetcher in prefetchers:
        finish(prefetcher)
    assert len(server.tars) == 4 and {server.asked[tar] for tar in server.tars} == {1}


def test_what_fails_ahead_is_told_by_the_reader_alone(server, cache, tmp_path):
    usable = records(server, cache)
    plan = plan_of(usable)
    lost = min(window(plan, 0))
    (tmp_path / "set" / lost).unlink()
    prefetcher = Prefetcher(plan, [usable])
    prefetcher.reached(0, 0)
    finish(prefetcher)
    assert server.tars >= (window(plan, 0) | window(plan, 1)) - {lost}
    with pytest.raises(UserError, match=rf"{lost}: missing, though manifest\.json lists it"):
        usable.read(EACH * int(lost[:6]))
    other = min(window(plan, 1))
    assert usable.read(EACH * int(other[:6])).sample == toy_sample(EACH * int(other[:6]))


def test_a_cache_that_holds_no_two_windows_is_said_and_nothing_is_fetched_ahead(server, cache, caplog):
    usable = records(server, cache)
    size = max(entry.bytes for entry in usable.shards.shards)
    small = CacheConfig(cache.folder, max_gb=3.9 * size / 1e9)
    plan = plan_of(usable)
    assert with_prefetch(plan, [usable], small) is plan
    assert "data.cache.max_gb: " in caplog.text and "two windows" in caplog.text
    large = CacheConfig(cache.folder, max_gb=4.1 * size / 1e9)
    assert isinstance(with_prefetch(plan, [usable], large), PrefetchedPlan)
    twice = [usable, usable]  # two kinds of one set, each in an order of its own: all of it
    assert with_prefetch(plan, twice, large) is plan
    assert not server.tars


def test_a_set_in_a_folder_has_no_prefetcher(tmp_path, cache):
    write_toys(tmp_path / "set", 4)
    usable = UsableRecords(ShardSet(tmp_path / "set"), ["captions"], np.empty(0, np.int64))
    plan = plan_of(usable)
    assert with_prefetch(plan, [usable], cache) is plan


def test_the_steps_are_those_of_the_plan(server, cache):
    usable = records(server, cache)
    plain, ahead = (iter(plan) for plan in (plan_of(usable, 5), with_prefetch(plan_of(usable, 5), [usable], cache)))
    for _ in range(20):
        one, other = next(plain), next(ahead)
        assert (one.step, one.position) == (other.step, other.position) and (one.index == other.index).all()


def test_what_is_read_now_is_not_the_first_to_go(server, cache):
    """A window's shards count as used when the next window's come."""
    usable = records(server, cache)
    plan = plan_of(usable)
    prefetcher = Prefetcher(plan, [usable])
    prefetcher.reached(0, 0)
    finish(prefetcher)
    for file in Path(cache.folder).iterdir():
        os.utime(file, (1, 1))
    prefetcher.reached(0, 2 * EACH)
    finish(prefetcher)
    entries = {entry.name: Path(cache.folder) / entry.sha256 for entry in usable.shards.shards}
    assert all(entries[name].stat().st_mtime > 1 for name in window(plan, 1) | window(plan, 2))
    assert all(entries[name].stat().st_mtime == 1 for name in window(plan, 0))
