"""The rows of the last run of every stage as one table of markdown, of at most 60 lines: printed, and in table.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from gpu_check.check import Check, latest, read
from gpu_check.stages import PARTS_OF_A_CALL

LINES = 60
Row = dict[str, Any]


def main(check: Check) -> None:
    rows = read(check.out)
    sections = [
        stages(rows),
        ceilings(rows),
        tests(rows),
        kernels(rows),
        peers(rows),
        steps(rows),
        nsight(rows),
    ]
    lines = [line for section in sections for line in section]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"... {len(lines) - LINES + 1} lines more: rows.jsonl"]
    text = "\n".join(lines)
    (check.out / "table.md").write_text(text + "\n")
    print(text)


def stages(rows: list[Row]) -> list[str]:
    """How each stage ended."""
    ends = {row["of"]: row for row in rows if row["stage"] == "end"}
    return ["; ".join(f"{name}: {row['status']} ({row['seconds']:.0f} s)" for name, row in ends.items()) + "."]


def ceilings(rows: list[Row]) -> list[str]:
    found = {row["what"]: row for row in latest(rows, "ceilings")}
    if not found:
        return []
    rates = [f"{n} {r['flops_per_s'] / 1e12:.0f} TFLOP/s" for n, r in found.items() if "flops_per_s" in r]
    copy = [f"copy {found['copy']['bytes_per_s'] / 1e12:.2f} TB/s"] if "copy" in found else []
    machine = found.get("machine", {})
    about = f"{machine.get('name')}, torch {machine.get('torch')}, {machine.get('commit')}"
    return [f"{about}: {', '.join(copy + rates)}."]


def tests(rows: list[Row]) -> list[str]:
    """Counts, and the first tests that failed; what the sanitizer said."""
    found, lines = latest(rows, "gpu_tests"), []
    counts = Counter(row["what"] for row in found if "test" in row)
    if found:
        counted = [f"{counts[name]} {name}" for name in ("passed", "failed", "skipped", "not collected")]
        whole = next((row for row in found if row["what"] == "counts"), None)
        end = f"{whole['collected']} collected" if whole else "not all ran"
        lines.append(f"GPU tests: {', '.join(counted)}, {end}.")
    failed = [row["test"] for row in found if row["what"] in ("failed", "not collected")]
    lines += [f"- {name}" for name in failed[:5]] + ([f"- and {len(failed) - 5} more"] if failed[5:] else [])
    for row in latest(rows, "sanitizer"):
        if row["what"] == "case" and not row["sound"]:
            lines.append(f"Sanitizer's case {row['backend']} {row['op']} {row['dtype']} is OFF by {row['off']:.1e}.")
        elif row["what"] == "missing":
            lines.append(f"Sanitizer: {row.get('backend', '')} {row['why']}.")
        elif "summary" in row:
            lines.append(f"{row['what']}: {row['summary']} (status {row['status']}).")
    return list(dict.fromkeys(lines))[:12]


def kernels(rows: list[Row]) -> list[str]:
    """A line for each shape and backend: the parts without extras; forward and backward for each option."""
    found = [row for row in latest(rows, "kernels") if row["what"] == "kernels"]
    if not found:
        return []
    heads = [*PARTS_OF_A_CALL, "plain", "mean", "dropout", "mean + dropout"]
    lines = ["", "| us a call (forward / backward, % of the floor) | " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---:|" * len(heads))
    for shape, backend in dict.fromkeys((row["shape"], row["backend"]) for row in found):
        own = {row["options"]: row for row in found if (row["shape"], row["backend"]) == (shape, backend)}
        parts = [_number(own.get("plain", {}).get(f"{part}_us")) for part in PARTS_OF_A_CALL]
        cells = [_both_ways(own[option]) if option in own else "" for option in heads[len(PARTS_OF_A_CALL) :]]
        lines.append(f"| {shape}, {backend} | " + " | ".join([*parts, *cells]) + " |")
    for row in (row for row in latest(rows, "kernels") if row["what"] != "kernels"):
        lines.append(_plain(row))
    return lines


def _both_ways(row: Row) -> str:
    if "error" in row:
        return row["error"][:40]
    forward, backward = (f"{_number(row[f'{stage}_us'])}" for stage in ("forward", "backward"))
    return f"{forward} / {backward}, {row['forward_of_floor']:.0%} {row['backward_of_floor']:.0%}"


def peers(rows: list[Row]) -> list[str]:
    """A line for each shape with its options: forward and backward of each way, in multiples of ours."""
    found = [row for row in latest(rows, "peers") if row["what"] == "peer"]
    if not found:
        return []
    ways = list(dict.fromkeys(row["way"] for row in found))
    lines = ["", "| forward / backward, ours in us, others in times ours | " + " | ".join(ways) + " |"]
    lines.append("|---|" + "---:|" * len(ways))
    for shape, options in dict.fromkeys((row["shape"], row["options"]) for row in found):
        own = {(r["way"], r["when"]): r for r in found if (r["shape"], r["options"]) == (shape, options)}
        cells = [" / ".join(_peer(own.get((way, when))) for when in ("forward", "backward")) for way in ways]
        lines.append(f"| {shape}, {options} | " + " | ".join(cells) + " |")
    wrong = [row for row in latest(rows, "peers") if row["what"] == "wrong"]
    return lines + [_plain(row) for row in wrong[:4]]


def _peer(row: Row | None) -> str:
    if row is None:
        return "-"
    if "error" in row:
        return row["error"][:30]
    return _number(row["ms"] * 1e3) if row["way"] == "ours" or "ratio" not in row else f"x{row['ratio']:.2f}"


def steps(rows: list[Row]) -> list[str]:
    found = latest(rows, "step")
    lines = []
    if found:
        lines = [
            "",
            "| step | ms | forward, backward, update | MFU | launches | busy | peak GiB | longest kernel |",
        ]
        lines.append("|---|---:|---:|---:|---:|---:|---:|---|")
    for row in found:
        name = f"{row['kind']}, {row['images']} images, {'compiled' if row['compiled'] else 'eager'}"
        if "error" in row:
            lines.append(f"| {name} | {row['error'][:100]} | | | | | | |")
            continue
        parts = ", ".join(f"{row[f'{part}_ms']:.1f}" for part in ("forward", "backward", "update"))
        top = row["top"][0] if row["top"] else {"name": "", "us": 0}
        longest = f"{top['name'][:36]} {top['us'] / 1e3:.1f} ms"
        lines.append(
            f"| {name} | {row['ms']:.1f} | {parts} | {row['mfu']:.0%} | {row['launches']} | {row['busy']:.0%} "
            f"| {row['peak_gib']:.1f} | {longest} |"
        )
    return lines


def nsight(rows: list[Row]) -> list[str]:
    found = latest(rows, "nsight")
    read_ones = [row for row in found if row["what"] == "kernel"]
    lines = ["", "Nsight Compute:"] if read_ones else []
    for row in read_ones:
        lines.append(f"- {row['name'][:56]}: " + ", ".join(f"{n} {v}" for n, v in _metrics(row)))
    return lines + [f"Nsight: {_plain(row)}" for row in found if row["what"] != "kernel"]


def _metrics(row: Row) -> Iterable[tuple[str, str]]:
    shown = ("duration", "dram", "sm", "issue_slots", "occupancy", "registers")
    return [(name, row[name]) for name in shown if name in row]


def _plain(row: Row) -> str:
    values = {name: value for name, value in row.items() if name != "stage" and value not in ("", None)}
    return ", ".join(f"{name} {value}" for name, value in values.items())[:180]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    main(Check.from_arguments("table"))
