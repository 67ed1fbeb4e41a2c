"""The local page: what it answers, to whom, and what it refuses."""

import http.client
import io
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import ABSENT, CHROMIUM, rendered
from support.readers import noise

from relvlm.errors import UserError
from relvlm.library import server
from relvlm.library.form import FORM
from relvlm.library.server import Server, serve
from relvlm.model import RelVLM

SENDING = """<script>
fetch('data:image/png;base64,PHOTO').then(answer => answer.blob()).then(blob => {
  take(new File([blob], 'photo.png')); form.elements.text.value = 'man; riding; horse'; form.requestSubmit();
});
</script></html>"""


@pytest.fixture()
def running(model: RelVLM) -> Iterator[Server]:
    with Server(model, "127.0.0.1", 0) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(running: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def photo() -> bytes:
    buffer = io.BytesIO()
    noise(0).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_gives_the_form_and_explains_a_photo(running: Server) -> None:
    status, form = ask(running, "GET", "/")
    assert status == 200 and "<form>" in form and "http" not in form
    status, page = ask(running, "POST", "/explain?text=man%3B%20riding%3B%20horse", photo())
    assert status == 200 and "<h1>man riding horse</h1>" in page


@pytest.mark.parametrize(
    ("body", "text", "said"),
    [
        (b"no image", "a%20man", "not a readable image"),
        (None, "man%3B%20dog", "a triplet has three parts"),
        (None, "", "has no word"),
        (None, "man%20" * 11, "positions for 12"),
    ],
)
def test_what_is_wrong_is_said(running: Server, body: bytes | None, text: str, said: str) -> None:
    status, answer = ask(running, "POST", f"/explain?text={text}", photo() if body is None else body)
    assert status == 400 and said in answer and "Traceback" not in answer


@pytest.mark.parametrize(("method", "path"), [("GET", "/x"), ("GET", "/explain"), ("POST", "/")])
def test_there_is_nothing_else(running: Server, method: str, path: str) -> None:
    assert ask(running, method, path, photo() if method == "POST" else b"")[0] == 404


@pytest.mark.parametrize(("room", "status"), [(0, 200), (-1, 413)])
def test_a_photo_may_be_so_large(running: Server, room: int, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LARGEST", len(photo()) + room)
    assert ask(running, "POST", "/explain?text=a%20man", photo())[0] == status


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("evil.example:1", 403)]
)
def test_a_page_of_another_site_cannot_reach_it(running: Server, host: str, status: int) -> None:
    assert ask(running, "GET", "/", Host=host)[0] == status
    assert ask(running, "POST", "/explain?text=a%20man", photo(), Host=host)[0] == status


def test_an_address_that_is_taken_is_an_error(running: Server, model: RelVLM) -> None:
    with pytest.raises(UserError, match=f"127.0.0.1:{running.server_port}: .*give another --port"):
        serve(model, "127.0.0.1", running.server_port, "toy")


@pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)
@pytest.mark.slow
def test_a_real_browser_sends_a_photo_and_shows_the_answer(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo is put in and sent by a script, as by hand."""
    monkeypatch.setattr(server, "FORM", FORM.replace("</html>", SENDING.replace("PHOTO", b64encode(photo()).decode())))
    address, profile = f"http://127.0.0.1:{running.server_port}/", tmp_path / "profile"
    shown, console = rendered(address, profile, "--virtual-time-budget=20000")
    assert console == [] and "Where does it look?" in shown
    assert "man riding horse" in shown.partition("srcdoc=")[2] and 'style="display: block;"' in shown
