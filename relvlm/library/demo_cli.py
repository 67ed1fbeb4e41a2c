"""`relvlm demo`: a local page to try a model on; the standard library serves it, so that nothing is to be installed."""

from __future__ import annotations

import argparse
from pathlib import Path

from relvlm.errors import UserError
from relvlm.library.server import serve
from relvlm.pretrained import load

EPILOG = """examples:
  relvlm demo --checkpoint runs/demo
  relvlm demo --checkpoint runs/demo --port 9000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm demo`."""
    parser.description = (
        "A page on this machine: choose a photo, write a sentence or 'subject; relation; object', see where the model "
        "looks. Photos stay on this machine. Stop it with Ctrl-C."
    )
    parser.epilog = EPILOG
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run (its latest)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default %(default)s: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8765, help="0: any that is free (default %(default)s)")


def main(args: argparse.Namespace) -> None:
    """Serve until interrupted; raises UserError where the address cannot be listened at."""
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port: {args.port} (give 0 to 65535)")
    serve(load(args.checkpoint), args.host, args.port, str(args.checkpoint))
