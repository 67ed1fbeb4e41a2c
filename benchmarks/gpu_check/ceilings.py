"""What the device can do at most: a copy that no cache holds, products of large matrices of random numbers."""

from __future__ import annotations

import subprocess

import torch
from measuring import commit, copy_bandwidth, gemm_rate, machine

from gpu_check.check import Check, read
from gpu_check.target import target

QUERY = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit")


def main(check: Check) -> None:
    here = target(check)
    facts = {"name": machine(here.device), "torch": torch.__version__, "commit": commit()}
    check.row(what="machine", **facts, **_facts(here.device))
    check.row(what="copy", bytes_per_s=_copy(check))
    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32}.items():
        torch.backends.cuda.matmul.allow_tf32 = True
        check.row(what=name, flops_per_s=_gemm(check, dtype))


def _copy(check: Check) -> float:
    return copy_bandwidth(target(check).device, size=1 << 20 if check.rehearsal else 0)


def _gemm(check: Check, dtype: torch.dtype) -> float:
    return gemm_rate(target(check).device, dtype, n=128 if check.rehearsal else 0)


def _facts(device: torch.device) -> dict[str, object]:
    if device.type != "cuda":
        return {}
    chip = torch.cuda.get_device_properties(device)
    found: dict[str, object] = {"sms": chip.multi_processor_count, "l2_bytes": chip.L2_cache_size}
    return found | {"memory_bytes": chip.total_memory, "nvidia_smi": _nvidia_smi()}


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)


def limits(check: Check) -> dict[str, float]:
    """`flops_per_s` in bf16 and `bytes_per_s`, as measured by the last run of this stage, else now."""
    rows = {row["what"]: row for row in read(check.out) if row["stage"] == "ceilings" and "what" in row}
    if rows.keys() >= {"copy", "bf16"}:
        return {"bytes_per_s": rows["copy"]["bytes_per_s"], "flops_per_s": rows["bf16"]["flops_per_s"]}
    return {"bytes_per_s": _copy(check), "flops_per_s": _gemm(check, torch.bfloat16)}


if __name__ == "__main__":
    main(Check.from_arguments("ceilings"))
