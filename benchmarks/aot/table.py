"""Resources of compiled kernels: the row of one, a printed table, and what counts as worse than before."""

from __future__ import annotations

from dataclasses import dataclass

SHARED_KIB = {
    "sm_80": 164,
    "sm_90": 228,
    "sm_100": 228,
}  # per multiprocessor (CUDA C++ guide, compute capabilities)
REGISTERS, WARPS, BLOCKS = 65536, 64, 32  # per multiprocessor, the same for all three
RESERVED_SHARED = 1024  # of each block, from sm_80 on
MORE_REGISTERS, MORE_SHARED = 16, 2048  # a rise up to this is noise between compilers' minor choices
MORE_INSTRUCTIONS = 1.05


@dataclass(frozen=True)
class Row:
    """registers per thread; spills: instructions to or from local memory (on AMD: registers); shared: bytes per block;
    tensor_core: matrix instructions; warps_per_sm: resident warps of at most 64; instructions: that a warp runs for a
    tile of 32 x 32 scores (0: not computed)."""

    registers: int
    spills: int
    shared: int
    tensor_core: int
    warps_per_sm: int
    instructions: int = 0

    @classmethod
    def of(
        cls, target: str, registers: int, spills: int, shared: int, tensor_core: int, warps: int, instructions: int = 0
    ) -> Row:
        resident = occupancy(target, registers, shared, warps)
        return cls(registers, spills, shared, tensor_core, resident, instructions)


def occupancy(target: str, registers: int, shared: int, warps: int) -> int:
    """Warps that a multiprocessor holds at once of blocks of so many."""
    per_warp = -(-registers * 32 // 256) * 256  # granted in pieces of 256
    blocks = min(
        REGISTERS // (per_warp * warps), SHARED_KIB[target] * 1024 // (shared + RESERVED_SHARED), WARPS // warps,
        BLOCKS,
    )  # fmt: skip
    return blocks * warps


def text(rows: dict[str, Row]) -> str:
    """The rows as a table."""
    width = max(map(len, rows), default=0)
    head = f"{'kernel':{width}}  registers  spills  shared B  tensor-core  warps/SM  instructions"
    lines = [
        f"{name:{width}}  {row.registers:9}  {row.spills:6}  {row.shared:8}  {row.tensor_core:11}  "
        f"{row.warps_per_sm or '-':>8}  {row.instructions or '-':>12}" for name, row in rows.items()
    ]  # fmt: skip
    return "\n".join([head, *lines])


def worse(name: str, row: Row, before: Row | None) -> list[str]:
    """What is worse than `before`; where nothing is known of it, spills are."""
    if before is None:
        return [f"{name}: spills ({row.spills}), and was not measured before"] * bool(row.spills)
    found = []
    if row.spills > before.spills:
        found.append(f"spills {before.spills} -> {row.spills}")
    if before.tensor_core and not row.tensor_core:
        found.append("no tensor-core instructions any more")
    if row.registers > before.registers + MORE_REGISTERS:
        found.append(f"registers {before.registers} -> {row.registers}")
    if row.shared > before.shared + MORE_SHARED:
        found.append(f"shared memory {before.shared} -> {row.shared} B")
    if before.instructions and row.instructions > MORE_INSTRUCTIONS * before.instructions:
        found.append(f"instructions {before.instructions} -> {row.instructions}")
    return [f"{name}: {change}" for change in found]
