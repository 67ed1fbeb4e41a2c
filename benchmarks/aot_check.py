"""Static checks of the GPU kernels, without a GPU: registers, spills, shared memory, tensor cores, occupancy.

Compiles every kernel ahead of time for sm_80, sm_90, sm_100 and (Triton only) gfx942, prints a table and compares it
with results/aot_check.json, which has one table per compiler version. Exits with 1 where a kernel got worse.

    python benchmarks/aot_check.py [--only TEXT] [--update]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "kernels"), str(ROOT)]

from aot import cuda_kernels, triton_kernels  # noqa: E402
from aot.table import Row, text, worse  # noqa: E402

COMMITTED = Path(__file__).with_name("results") / "aot_check.json"
# Each has version() -> key of its table, and measure(wanted) -> (name, Row) pairs.
COMPILERS = [triton_kernels, cuda_kernels]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="kernels whose line in the table holds this text")
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--table", type=Path, default=COMMITTED, help="the committed table (default: %(default)s)")
    args = parser.parse_args()
    tables = json.loads(args.table.read_text()) if args.table.exists() else {}
    complaints = [line for compiler in COMPILERS for line in check(compiler, tables, args.only, args.update)]
    if args.update:
        args.table.parent.mkdir(parents=True, exist_ok=True)
        args.table.write_text(json.dumps(dict(sorted(tables.items())), indent=1) + "\n")
    print("\n".join(complaints) or "nothing got worse")
    return bool(complaints) and not args.update


def check(compiler, tables: dict, only: str, update: bool) -> list[str]:
    """Complaints about the kernels of one compiler; with `update`, puts its rows into `tables` as well."""
    try:
        version = compiler.version()
    except ImportError as error:
        print(f"{compiler.__name__}: not checked: {error}")
        return []
    before = {name: Row(**row) for name, row in tables.get(version, {}).items()}
    if not before:
        print(f"{version} is not in the table: nothing to compare its kernels with")
    rows = dict(compiler.measure(only))
    print(f"\n{version}\n{text(rows)}\n")
    if update and rows:
        tables.setdefault(version, {}).update({name: asdict(row) for name, row in rows.items()})
    if not before:  # a release that nobody has tuned for must not turn CI red
        return []
    return [line for name, row in rows.items() for line in worse(name, row, before.get(name))]


if __name__ == "__main__":
    sys.exit(main())
