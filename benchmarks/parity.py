"""How far every output is from the official ALBEF and X-VLM: `python benchmarks/parity.py [--vectors DIR]`.

Compares with the reference vectors in fp64 and fp32, by the plain and the packed route, and writes a table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from measuring import output_file

from relvlm.convert.parity import Error, compare

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "albef_small": "ALBEF",
    "xvlm_small": "X-VLM, Swin",
    "xvlm_vit_small": "X-VLM, ViT",
    "xvlm_clipvit_small": "X-VLM, CLIP-ViT",
}
ROUTES = [("float64", "plain"), ("float64", "packed"), ("float32", "plain"), ("float32", "packed")]
HEAD = """# Parity with the official models

Largest absolute difference from the official output, and in brackets the same over the largest official value (at
least 1). fp64 against the official code's fp64 run, fp32 against its fp32 run. *plain*: one padded text with one image
through the library's methods; *packed*: the training forward (keys and values once per image, rows that are read
alone). "-" where an output has no such route. Whole gradients (`grad/full`) are stored in fp32, so 1e-8 is the best
there is. The official code's own fp32 differs from its fp64 by up to 4e-5 (word logits, gradients), and by 1.2e-4 in
the losses at temperature .001.

Made by `python benchmarks/parity.py`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, default=ROOT.parent / "shared/parity", help="folder of *_small.pt")
    parser.add_argument("--out", type=output_file, default=ROOT / "benchmarks/results/parity.md")
    args = parser.parse_args()
    parts = [HEAD]
    for name, title in FILES.items():
        file = args.vectors / f"{name}.pt"
        errors = [e for dtype in (torch.float64, torch.float32) for e in compare(file, dtype)]
        parts.append(table(title, errors))
    text = "\n".join(parts)
    args.out.write_text(text)
    print(text)


def table(title: str, errors: list[Error]) -> str:
    """One table of a file of vectors, a row an output."""
    rows: dict[str, dict[tuple[str, str], Error]] = defaultdict(dict)
    for error in errors:
        # one row for all whole gradients, the worst
        output = error.output.split(" ")[0] if "grad/full" in error.output else error.output
        cell = rows[output].get((error.dtype, error.route))
        if cell is None or error.relative > cell.relative:
            rows[output][error.dtype, error.route] = error
    rows = {"**worst, whole gradients aside**": worst(errors), **rows}
    lines = [
        f"## {title}",
        "",
        "| output | fp64 plain | fp64 packed | fp32 plain | fp32 packed |",
        "|---|---|---|---|---|",
    ]
    for output, cells in rows.items():
        shown = [f"{c.absolute:.1e} ({c.relative:.1e})" if c else "-" for c in (cells.get(r) for r in ROUTES)]
        lines.append(f"| {output} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def worst(errors: list[Error]) -> dict[tuple[str, str], Error]:
    """The largest relative error of each route."""
    counted = [error for error in errors if "grad/full" not in error.output]
    found = {}
    for route in ROUTES:
        of_route = [error for error in counted if (error.dtype, error.route) == route]
        found[route] = max(of_route, key=lambda error: error.relative)
    return found


if __name__ == "__main__":
    main()
