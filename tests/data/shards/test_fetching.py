"""A server that fails, cuts and damages: what is whole in the end is taken, what never is is one error."""

import hashlib
import http.server
import threading
from collections import Counter
from pathlib import Path

import pytest
from support.shards import toy_sample, write_toys

from relvlm.config.cache import CacheConfig
from relvlm.data.shards import fetching
from relvlm.data.shards.address import Address
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """Seconds that were waited, in place of waiting."""
    found: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", found.append)
    return found


def failing(times):
    """An action that fails so often, and then gives the number of its calls."""
    calls = []

    def action():
        calls.append(1)
        if len(calls) <= times:
            raise ConnectionResetError("by peer\nand more")
        return len(calls)

    return action


def test_pauses_grow(pauses):
    assert fetching.again(Address("s3://a"), 4, failing(3)) == 4
    assert pauses == [1.0, 2.0, 4.0]


def test_the_last_try_tells_why_in_one_line(pauses):
    with pytest.raises(UserError) as caught:
        fetching.again(Address("s3://a"), 3, failing(3))
    assert str(caught.value).startswith("s3://a: cannot be fetched, 3 tries; the last: ConnectionResetError: by peer (")
    assert "\n" not in str(caught.value) and pauses == [1.0, 2.0]


@pytest.mark.parametrize(("error", "told"), [(FileNotFoundError, FileNotFoundError), (PermissionError, UserError)])
def test_what_is_missing_or_forbidden_is_asked_for_once(pauses, error, told):
    def action():
        raise error("x")

    with pytest.raises(told):
        fetching.again(Address("s3://a"), 3, action)
    assert pauses == []


class Faulty(http.server.SimpleHTTPRequestHandler):
    """Each tar is refused, cut short and damaged before it comes whole."""

    times: Counter

    def do_GET(self) -> None:
        self.times[self.path] += 1
        time = self.times[self.path] if self.path.endswith(".tar") else 4
        data = Path(self.directory + self.path).read_bytes()
        self.send_response(500 if time == 1 else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if time > 1:
            self.wfile.write(data[: len(data) // 2] if time == 2 else bytes(len(data)) if time == 3 else data)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(Path(self.directory + self.path).stat().st_size))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("aiohttp")
    handler = type("Handler", (Faulty,), {"times": Counter()})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *of: handler(*of, directory=str(tmp_path / "set"))
    ) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", handler.times
        found.shutdown()


def test_a_server_that_fails_cuts_and_damages_is_asked_until_the_shard_is_whole(server, tmp_path):
    url, times = server
    write_toys(tmp_path / "set", 7)
    shards = ShardSet(url, CacheConfig(str(tmp_path / "cache"), tries=6))
    assert [shards.read(i).sample for i in range(7)] == [toy_sample(i) for i in range(7)]
    assert all(count >= 4 for path, count in times.items() if path.endswith(".tar"))
    for entry in shards.shards:
        data = (tmp_path / "cache" / entry.sha256).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry.sha256


def test_a_server_that_goes_on_failing_is_one_error(server, tmp_path):
    url, _ = server
    write_toys(tmp_path / "set", 7)
    with pytest.raises(UserError, match=r"/000000\.tar: cannot be fetched, 2 tries; the last: "):
        ShardSet(url, CacheConfig(str(tmp_path / "cache"), tries=2)).read(0)
