# SPDX-License-Identifier: Apache-2.0
"""Command line of the generator: writes the generated C below a root folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import abi, checks, dispatch, driver, exports, nvml, ops, send, stubs, wire
from .load import Spec, SpecError, load
from .lock import update_figures, update_lock

WIRE, GUEST, HOST, SIM = "ivshmem/gen", "guest-agent/libcuda/gen", "orion_virt/executor/gen", "orion_virt/simgpu/gen"


def generate(spec: Spec) -> dict[str, str]:
    """Every generated file: path below the root -> text."""
    files = {f"{WIRE}/wire.h": wire.wire_h(spec)}
    files |= {f"{side}/cuda_abi.h": abi.cuda_abi_h(spec) for side in (GUEST, HOST, SIM)}
    files |= {
        f"{GUEST}/send.h": send.send_h(spec),
        f"{GUEST}/op_flags.c": send.op_flags_c(spec),
        f"{GUEST}/unsupported.c": exports.unsupported_c(spec),
        f"{GUEST}/ptsz.h": exports.ptsz_h(spec),
        f"{GUEST}/ptsz.c": exports.ptsz_c(spec),
        f"{GUEST}/procaddr.h": exports.procaddr_h(spec),
        f"{GUEST}/procaddr.c": exports.procaddr_c(spec),
        f"{GUEST}/libcuda.map": exports.export_map(spec),
        f"{HOST}/driver.h": driver.driver_h(spec),
        f"{HOST}/driver.c": driver.driver_c(spec),
        f"{HOST}/checks.h": checks.checks_h(spec),
        f"{HOST}/ops.h": ops.ops_h(spec),
        f"{HOST}/ops.c": ops.ops_c(spec),
    }
    files |= nvml.generate()
    for family in spec.families:
        for path, text in (
            (f"{GUEST}/stub_{family.name}.c", stubs.stub_c(spec, family)),
            (f"{HOST}/dispatch_{family.name}.c", dispatch.dispatch_c(spec, family)),
        ):
            if text is not None:
                files[path] = text
    return files


def write(files: dict[str, str], root: Path) -> None:
    """Writes `files`, leaves unchanged ones alone, removes generated files that are no longer made."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    for folder in (WIRE, GUEST, HOST, SIM, nvml.GEN):
        for old in (root / folder).glob("*.[ch]"):
            if f"{folder}/{old.name}" not in files:
                old.unlink()


def write_docs(spec: Spec, path: Path) -> None:
    """The table of what is not carried, where the repository is."""
    if path.parent.is_dir() and (not path.exists() or path.read_text() != exports.unsupported_md(spec)):
        path.write_text(exports.unsupported_md(spec))


def main() -> int:
    """Runs the generator; 1 and one line on stderr where the spec is wrong."""
    parser = argparse.ArgumentParser(prog="python -m orion_virt.codegen", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="root folder (default: the current one)")
    parser.add_argument("--no-lock", action="store_true", help="leave tests/spec/ops.lock and docs alone")
    args = parser.parse_args()
    try:
        spec = load()
        lock = args.out / "tests/spec/ops.lock"
        if not args.no_lock and lock.parent.is_dir():
            update_lock(spec, lock)
            write_docs(spec, args.out / "docs/unsupported.md")
            update_figures(nvml.lock_entries(nvml.load()), lock.with_name("figures.lock"))
        write(generate(spec), args.out)
    except SpecError as error:
        print(f"codegen: {error}", file=sys.stderr)
        return 1
    hand = exports.hand_count(spec)
    print(f"{len(spec.calls)} calls, {hand} with a body by hand, {len(spec.unsupported)} unsupported")
    return 0


if __name__ == "__main__":
    sys.exit(main())
