"""`hf://datasets/USER/NAME`, through huggingface_hub's own file system, against the Hub's endpoints that it asks."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from support.shards import write_toys

pytest.importorskip("huggingface_hub")
pytest.importorskip("fsspec")
REPO = "datasets/ann/toys"

READ = """
import sys
sys.path[:0] = [{tests!r}]
from relvlm.config.cache import CacheConfig
from relvlm.data.shards import fetching
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError
from support.shards import toy_sample

fetching.PAUSE_S = 0.0
try:
    shards = ShardSet("hf://datasets/ann/{name}", CacheConfig({cache!r}, tries={tries}))
    assert [shards.read(i).sample for i in range(7)] == [toy_sample(i) for i in range(7)] and shards.verify() == []
    print("sound")
except UserError as error:
    print(error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Information on the repository and its paths, and parts of files; each tar is damaged the first time."""

    folder: Path
    asked: Counter
    always: bool

    def do_GET(self) -> None:
        if self.path.startswith(f"/api/{REPO}/tree/"):
            return self._json([self._info(file) for file in self.folder.iterdir()])
        if self.path.startswith(f"/api/{REPO}"):
            return self._json({"id": "ann/toys", "sha": "0" * 40, "siblings": []})
        file = self.folder / self.path.split("?")[0].rpartition("/")[2]
        if not self.path.startswith(f"/{REPO}/resolve/main/") or not file.is_file():
            return self._json({"error": "Repository not found"}, 404, ("X-Error-Code", "RepoNotFound"))
        self.asked[file.name] += 1
        data = file.read_bytes()
        if file.suffix == ".tar" and (self.always or self.asked[file.name] == 1):
            data = bytes(len(data))
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        end = min(int(last) + 1, len(data)) if last else len(data)
        self._send(data[int(first) : end], 206, ("Content-Range", f"bytes {first}-{end - 1}/{len(data)}"))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if not self.path.startswith(f"/api/{REPO}/paths-info/"):
            return self._json({"error": "Repository not found"}, 404, ("X-Error-Code", "RepoNotFound"))
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._json([self._info(self.folder / path) for path in asked if (self.folder / path).is_file()])

    def _info(self, file: Path) -> dict[str, object]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "1" * 40}

    def _json(self, content, status=200, *headers) -> None:
        self._send(json.dumps(content).encode(), status, ("Content-Type", "application/json"), *headers)

    def _send(self, data, status, *headers) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(tmp_path):
    """Its address, and what was asked for."""
    write_toys(tmp_path / "set", 7)
    handler = type("Handler", (Hub,), {"folder": tmp_path / "set", "asked": Counter(), "always": False})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def read(url, tmp_path, name="toys", tries=3) -> str:
    """What a process of its own says of the set: huggingface_hub asks for its endpoint when it is imported."""
    script = READ.format(tests=str(Path(__file__).parents[2]), cache=str(tmp_path / "cache"), name=name, tries=tries)
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_a_set_of_the_hub_is_read_whole_though_shards_come_damaged(hub, tmp_path):
    url, handler = hub
    assert read(url, tmp_path) == "sound"
    assert {count for name, count in handler.asked.items() if name.endswith(".tar")} == {2}


def test_a_shard_that_stays_damaged_is_one_error(hub, tmp_path):
    url, handler = hub
    handler.always = True
    assert "000000.tar: cannot be fetched, 2 tries; the last: Corrupt: SHA-256" in read(url, tmp_path, tries=2)


@pytest.mark.parametrize("lost", ["manifest.json", "000001.tar"])
def test_a_file_that_is_missing_is_named(hub, tmp_path, lost):
    (tmp_path / "set" / lost).unlink()
    said = read(hub[0], tmp_path)
    assert ("no manifest.json in hf://" if lost == "manifest.json" else "000001.tar: missing, though") in said


def test_a_repository_that_is_not_there_has_no_manifest(hub, tmp_path):
    assert "no manifest.json in hf://datasets/ann/none" in read(hub[0], tmp_path, "none")
