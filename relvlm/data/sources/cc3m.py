"""Conceptual Captions 3M: `Train_GCC-training.tsv`, each row `caption, url`."""

from __future__ import annotations

import argparse

from relvlm.data.sources.web import Layout, add_web_arguments, build_web, by_name

CC3M = Layout("cc3m", ("caption", "url"), "{row:09d}.jpg", by_name)
EPILOG = """examples:
  img2dataset --url_list cc3m.tsv --input_format tsv --url_col url --caption_col caption \\
      --output_format webdataset --output_folder cc3m      # the table with a first line "caption<TAB>url"
  relvlm data build cc3m --tars cc3m --max-side 256 --processes 16 --out data/cc3m
  relvlm data build cc3m --table Train_GCC-training.tsv --images cc3m_images --out data/cc3m
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build cc3m`."""
    parser.description = "Build a shard set of Conceptual Captions: photos of the web with their alt-texts, cleaned."
    parser.epilog = EPILOG
    add_web_arguments(parser, CC3M)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_web(args, CC3M)
