"""The local page's server: a form, and explanations of what is posted. Nothing is written and nothing fetched."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from relvlm.config.schema import DataConfig
from relvlm.data.pictures import decode
from relvlm.errors import UserError
from relvlm.explain.explanation import explain
from relvlm.explain.page import page
from relvlm.explain.query import read_query
from relvlm.library.form import FORM
from relvlm.model import RelVLM

LARGEST = 64 << 20  # bytes of a photo
LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Server(ThreadingHTTPServer):
    """One model, asked by one request at a time."""

    daemon_threads = True

    def __init__(self, model: RelVLM, host: str, port: int) -> None:
        super().__init__((host, port), Handler)
        self.model, self.host, self.lock = model, host, threading.Lock()

    def explained(self, photo: bytes, text: str) -> str:
        """A page; UserError or ValueError for what the user can mend."""
        query, image = read_query(text), decode(photo, DataConfig.max_pixels)
        with self.lock:
            found = explain(self.model, image, query)
        return page(query.text, [found])


class Handler(BaseHTTPRequestHandler):
    """GET / is the form; POST /explain?text=... with a photo's bytes is a page."""

    server: Server

    def do_GET(self) -> None:
        if not self._is_asked_here():
            return
        if urlsplit(self.path).path != "/":
            self._say(HTTPStatus.NOT_FOUND, "no such page")
        else:
            self._say(HTTPStatus.OK, FORM, "text/html")

    def do_POST(self) -> None:
        if not self._is_asked_here():
            return
        asked, length = urlsplit(self.path), self.headers.get("Content-Length", "")
        if asked.path != "/explain":
            self._say(HTTPStatus.NOT_FOUND, "no such page")
        elif not length.isdecimal() or not 0 < int(length) <= LARGEST:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a photo of 1 to {LARGEST >> 20} MiB, please")
        else:
            self._explain(self.rfile.read(int(length)), parse_qs(asked.query).get("text", [""])[0])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is asked is nobody else's matter."""

    def _explain(self, photo: bytes, text: str) -> None:
        try:
            answer = self.server.explained(photo, text)
        except (UserError, ValueError) as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._say(HTTPStatus.OK, answer, "text/html")

    def _is_asked_here(self) -> bool:
        """Whether the page was asked for by its own name: another site's page must not reach a local server."""
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if self.server.host in LOCAL and name not in LOCAL:
            self._say(HTTPStatus.FORBIDDEN, "this page is for its own machine")
            return False
        return True

    def _say(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def serve(model: RelVLM, host: str, port: int, name: str) -> None:
    """Until interrupted; UserError where the address cannot be listened at."""
    try:
        server = Server(model, host, port)
    except OSError as error:
        raise UserError(f"--host, --port: {host}:{port}: {error.strerror or error} (give another --port)") from error
    with server:
        print(f"{name}: http://{host}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
