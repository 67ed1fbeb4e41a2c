"""Sets at an address: fetched whole, checked, kept within bounds, shared; what cannot be fetched is one clear error."""

import io
import json
import multiprocessing
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.shards import toy_sample, write_toys

from relvlm.config.cache import CacheConfig
from relvlm.data import cli
from relvlm.data.shards import cache as cache_module
from relvlm.data.shards import fetching
from relvlm.data.shards.cache import ShardCache
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError
from relvlm.paths import Parser

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)


@pytest.fixture
def cache(tmp_path) -> CacheConfig:
    return CacheConfig(str(tmp_path / "cache"), max_gb=1.0, tries=3)


@pytest.fixture
def asked(monkeypatch) -> Counter:
    """How often each file is asked for."""
    found, real = Counter(), fetching.open_address
    monkeypatch.setattr(fetching, "open_address", lambda address: found.update([address.name]) or real(address))
    return found


@pytest.fixture
def address(tmp_path) -> str:
    """Of 7 toys in shards of 3 that lie in fsspec's memory."""
    folder, address = write_toys(tmp_path / "set", 7), f"memory://{tmp_path.name}/set"
    upload(folder, address)
    yield address
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def upload(folder: Path, address: str) -> None:
    for file in folder.iterdir():
        fsspec.filesystem("memory").pipe(f"{address}/{file.name}", file.read_bytes())


def kept(cache: CacheConfig) -> list[Path]:
    return [file for file in Path(cache.folder).iterdir() if not file.name.startswith(".")]


def test_a_set_in_a_store_reads_as_one_in_a_folder(address, cache, asked, tmp_path):
    here, there = ShardSet(tmp_path / "set"), ShardSet(address, cache)
    assert asked == {"manifest.json": 1}
    assert [there.read(i) for i in (6, 0, 3)] == [here.read(i) for i in (6, 0, 3)]
    assert [there.read(i).sample for i in range(7)] == [toy_sample(i) for i in range(7)]
    assert max(asked.values()) == 1 and len(asked) == 7
    assert there.verify() == [] and there.path.name == "set"


def test_the_data_commands_take_an_address(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in ("lint", "stats"):
        parser = Parser()
        cli.add_arguments(parser)
        assert cli.main(parser.parse_args([command, address])) == 0
    assert f"{address}: sound" in capsys.readouterr().err
    put(address, "000001.tar", b"")
    assert cli.main(parser.parse_args(["lint", address])) == 0  # what is in the cache is whole
    shutil.rmtree(tmp_path / ".cache")
    with pytest.raises(UserError, match=r"set/000001\.tar: cannot be fetched, 5 tries"):
        cli.main(parser.parse_args(["lint", address]))


def test_another_process_finds_what_one_has_fetched(address, cache, asked):
    ShardSet(address, cache).read(0)
    before = Counter(asked)
    ShardSet(address, cache).read(1)
    assert asked - before == {"manifest.json": 1}


def test_what_was_opened_least_recently_goes_first(address, cache):
    shards = ShardSet(address, cache)
    size = max(entry.bytes for entry in shards.shards)
    small = replace(cache, max_gb=2.7 * size / 1e9)
    for number, index in enumerate((0, 3, 0, 6)):
        one = ShardSet(address, small)
        one.read(index)
        for file in kept(cache):
            if file.stat().st_mtime > 1e9:
                os.utime(file, (number, number))
        assert sum(file.stat().st_size for file in kept(cache)) <= small.max_gb * 1e9
    names = {file.name for file in kept(cache)}
    assert [entry.sha256 in names for entry in shards.shards] == [True, False, True]


def test_a_shard_that_is_open_stays_readable_when_its_name_goes(address, cache):
    shards = ShardSet(address, cache)
    shards.read(0)
    for file in kept(cache):
        file.unlink()
    assert shards.read(1).sample == toy_sample(1)


def test_a_cache_too_small_for_a_shard_is_an_error(address, cache):
    with pytest.raises(UserError, match=r"data\.cache\.max_gb: 1e-06: a shard of .* does not fit"):
        ShardSet(address, replace(cache, max_gb=1e-6)).read(0)


def test_a_cache_that_cannot_be_a_folder_is_told_before_any_work(address, cache):
    Path(cache.folder).write_text("a file")
    with pytest.raises(UserError, match=r"^data\.cache\.folder: \S+cache: \S+cache is a file"):
        ShardSet(address, cache)


def put(address: str, name: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe(f"{address}/{name}", data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "Corrupt: 10239 bytes came, manifest.json says 10240"),
        (lambda data: data + b"x", "Corrupt: more than 10240 bytes came"),
        (lambda data: b"x" + data[1:], "Corrupt: SHA-256 is not that of manifest.json"),
    ],
)
def test_what_is_never_the_manifests_is_one_error_and_leaves_nothing(address, cache, asked, tmp_path, change, said):
    put(address, "000001.tar", change((tmp_path / "set" / "000001.tar").read_bytes()))
    shards = ShardSet(address, cache)
    with pytest.raises(UserError, match=rf"^{address}/000001\.tar: cannot be fetched, 3 tries; the last: {said}"):
        shards.read(3)
    assert asked["000001.tar"] == 3
    assert {file.name for file in kept(cache)} == {shards.shards[1].index}
    assert shards.read(0).sample == toy_sample(0)


def test_a_damaged_index_is_not_taken_either(address, cache):
    put(address, "000000.idx.npy", b"\x93NUMPY")
    with pytest.raises(UserError, match=r"000000\.idx\.npy: cannot be fetched, 3 tries; .* SHA-256"):
        ShardSet(address, cache).read(0)


def test_nothing_is_left_of_a_try_that_brought_too_much(address, cache, tmp_path, monkeypatch):
    real, wrong = fetching.open_address, [b"x" * 9000]

    def first_wrong(of):
        return io.BytesIO(wrong.pop()) if of.name.endswith("npy") and wrong else real(of)

    monkeypatch.setattr(fetching, "open_address", first_wrong)
    assert ShardSet(address, cache).read(0).sample == toy_sample(0) and not wrong


def test_a_shard_that_is_missing_is_asked_for_once(address, cache, asked):
    fsspec.filesystem("memory").rm(f"{address}/000002.tar")
    with pytest.raises(UserError, match=r"000002\.tar: missing, though manifest\.json lists it"):
        ShardSet(address, cache).read(6)
    assert asked["000002.tar"] == 1


def test_without_a_manifest_there_is_no_set(cache):
    with pytest.raises(UserError, match=r"memory://none: no manifest\.json in memory://none"):
        ShardSet("memory://none", cache)


def test_a_file_that_was_cut_in_the_cache_is_fetched_again(address, cache):
    ShardSet(address, cache).read(0)
    for file in kept(cache):
        if file.stat().st_size > 5000:
            os.truncate(file, 100)
    assert ShardSet(address, cache).read(0).sample == toy_sample(0)


def test_room_of_a_download_that_nobody_goes_on_with_is_taken_back(address, cache, monkeypatch):
    size = ShardSet(address, cache).shards[0].bytes
    Path(cache.folder).mkdir()
    part = Path(cache.folder) / "ab.host.7.part"
    part.write_bytes(b"")
    os.truncate(part, size)
    os.utime(part, (0, 0))
    ShardSet(address, replace(cache, max_gb=1.9 * size / 1e9)).read(0)
    assert not part.exists()


def test_a_full_disk_is_no_fault_of_a_sample(address, cache, asked, monkeypatch):
    real = cache_module.ShardCache._reserve

    def full(self, part, size):
        if size:  # of an index, it is not known
            raise OSError(28, "No space left on device")
        real(self, part, size)

    monkeypatch.setattr(cache_module.ShardCache, "_reserve", full)
    with pytest.raises(UserError, match=r"data\.cache\.folder: \S+cache: cannot be written: .*No space left"):
        ShardSet(address, cache).read(0)
    assert not asked["000000.tar"]


def read_all(folder: str, address: str, cache: CacheConfig, start, results) -> None:
    fetched = Counter()
    real = fetching.open_address
    fetching.open_address = lambda address: fetched.update([address.name]) or real(address)
    start.wait()
    shards = ShardSet(address, cache)
    found = [shards.read(index).sample == toy_sample(index) for index in (0, 3, 6, 1, 4)]
    results.put((all(found), dict(fetched)))


def test_processes_of_a_node_fetch_a_file_once(cache, tmp_path):
    write_toys(tmp_path / "set", 7)
    fork = multiprocessing.get_context("fork")
    start, results = fork.Barrier(3), fork.Queue()
    arguments = (str(tmp_path / "set"), f"file://{tmp_path / 'set'}", cache, start, results)
    processes = [fork.Process(target=read_all, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    assert all(sound for sound, _ in found)
    counts = sum((Counter(fetched) for _, fetched in found), Counter())
    assert counts.pop("manifest.json") == 3 and set(counts.values()) == {1} and len(counts) == 6


def test_what_the_manifest_says_is_checked_as_in_a_folder(address, cache, tmp_path):
    told = json.loads((tmp_path / "set" / "manifest.json").read_text())
    del told["shards"][2]["index"]
    put(address, "manifest.json", json.dumps(told).encode())
    with pytest.raises(UserError, match=r"lists no index of 000002\.tar"):
        ShardSet(address, cache)


def test_a_cache_is_as_the_config_says(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert ShardCache.of(CacheConfig()) == ShardCache(Path("/home/ann/.cache/relvlm/shards"), 100 * 10**9, 5)
