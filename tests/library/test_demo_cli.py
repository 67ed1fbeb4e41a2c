"""`relvlm demo`: what it takes, and what it serves."""

import argparse
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.library import demo_cli


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    demo_cli.add_arguments(parser)
    demo_cli.main(parser.parse_args(arguments))


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused_before_the_model_is_read(port: str) -> None:
    with pytest.raises(UserError, match=f"--port: {port}"):
        run("--checkpoint", "none", "--port", port)


@pytest.mark.parametrize("port", ["0", "65535"])
def test_it_serves_the_checkpoint_at_this_machine_alone(
    port: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []
    monkeypatch.setattr(demo_cli, "serve", lambda model, *where: served.append((model.step, *where)))
    run("--checkpoint", str(checkpoint), "--port", port)
    assert served == [(7, "127.0.0.1", int(port), str(checkpoint))]
