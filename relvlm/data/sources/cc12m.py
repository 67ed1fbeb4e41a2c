"""Conceptual 12M: `cc12m.tsv`, each row `url, caption` (the other way round than in CC3M)."""

from __future__ import annotations

import argparse

from relvlm.data.sources.web import Layout, add_web_arguments, build_web, by_name

CC12M = Layout("cc12m", ("url", "caption"), "{row:09d}.jpg", by_name)
EPILOG = """examples:
  img2dataset --url_list cc12m.tsv --input_format tsv --url_col url --caption_col caption \\
      --output_format webdataset --output_folder cc12m      # the table with a first line "url<TAB>caption"
  relvlm data build cc12m --tars cc12m --max-side 256 --processes 16 --out data/cc12m
  relvlm data build cc12m --table cc12m.tsv --images cc12m_images --out data/cc12m
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build cc12m`."""
    parser.description = "Build a shard set of Conceptual 12M: photos of the web with their alt-texts."
    parser.epilog = EPILOG
    add_web_arguments(parser, CC12M)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_web(args, CC12M)
