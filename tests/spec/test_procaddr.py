# SPDX-License-Identifier: Apache-2.0
"""Lookup by name and version: the answers of a real driver (580.159), on the generated table."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cuda_header import COMPILER, include_or_skip, public_functions

from orion_virt.codegen import exports
from orion_virt.codegen.__main__ import generate, write
from orion_virt.codegen.load import load

ROOT = Path(__file__).resolve().parents[2]

#: name, version asked for, flags -> symbol, or the status; of a driver of version DRIVER
DRIVER = 13000
CASES = [
    ("cuMemAlloc", 13000, 0, "cuMemAlloc_v2"),
    ("cuGetProcAddress", 11030, 0, "cuGetProcAddress"),
    ("cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2"),
    ("cuGetProcAddress", 13000, 2, "cuGetProcAddress_v2"),
    ("cuDeviceGetUuid", 11030, 0, "cuDeviceGetUuid"),
    ("cuDeviceGetUuid", 11040, 0, "cuDeviceGetUuid_v2"),
    ("cuDevicePrimaryCtxReset", 7000, 0, "cuDevicePrimaryCtxReset"),
    ("cuDevicePrimaryCtxReset", 11000, 0, "cuDevicePrimaryCtxReset_v2"),
    ("cuCtxGetDevice", 12080, 0, "cuCtxGetDevice"),
    ("cuCtxGetDevice", 13000, 0, "cuCtxGetDevice_v2"),
    ("cuStreamGetCaptureInfo", 10010, 0, "cuStreamGetCaptureInfo"),
    ("cuStreamGetCaptureInfo", 11030, 0, "cuStreamGetCaptureInfo_v2"),
    ("cuStreamGetCaptureInfo", 12030, 0, "cuStreamGetCaptureInfo_v3"),
    ("cuEventElapsedTime", 12070, 0, "cuEventElapsedTime"),
    ("cuEventElapsedTime", 12080, 0, "cuEventElapsedTime_v2"),
    ("cuLaunchKernel", 12000, 1, "cuLaunchKernel"),
    ("cuLaunchKernel", 12000, 2, "cuLaunchKernel_ptsz"),
    ("cuMemcpyHtoD", 12000, 2, "cuMemcpyHtoD_v2_ptds"),
    ("cuMemAlloc", 13000, 2, "cuMemAlloc_v2"),
    ("cuMemAlloc", 2000, 2, "cuMemAlloc"),
    ("cuMemcpyHtoD", 6050, 2, 2),
    ("cuLaunchKernel", 6050, 2, 2),
    ("cuLaunchKernel", 7000, 2, "cuLaunchKernel_ptsz"),
    ("cuEventCreateFromEGLSync", 13000, 0, 1),
    ("cuInit", 2000, 0, "cuInit"),
    ("cuInit", 1000, 0, 2),
    ("cuLaunchKernelEx", 11000, 0, 2),
    ("cuMemAlloc", 2000, 0, "cuMemAlloc"),
    ("cuTexRefCreate", 13000, 0, "cuTexRefCreate"),
    ("cuNoSuchThing", 13000, 0, 1),
    ("cuMemAlloc_v2", 13000, 0, 1),
    ("", 0, 0, 1),
]
#: the same on a driver of version 12.4: what came later is unknown to it
OLDER = 12040
OLDER_CASES = [
    ("cuCtxCreate", 13000, 0, "cuCtxCreate_v3"),
    ("cuMemcpyBatchAsync", 13000, 0, 1),
    ("cuEventElapsedTime", 13000, 0, "cuEventElapsedTime"),
    ("cuGreenCtxCreate", 12000, 0, 2),
]


def _program(folder: Path) -> str:
    names = {s for symbol in exports.symbols(load()) for s in (symbol.function, symbol.variant) if s}
    lines = ["#include <stdint.h>", "#include <stdio.h>", '#include "gen/procaddr.h"']
    (folder / "names.c").write_text("".join(f"void {n}(void);\nvoid {n}(void) {{}}\n" for n in sorted(names)))
    lines += [f"void {n}(void);" for n in sorted(names)]
    lines += ["static const struct { void *at; const char *name; } all[] = {"]
    lines += [f'    {{ (void *){n}, "{n}" }},' for n in sorted(names)]
    lines += ["};", "static void ask(const char *name, int version, int driver, uint64_t flags)", "{", "    void *p = (void *)1;"]
    lines += ["    int status = og_procaddr(name, version, driver, flags, &p);"]
    lines += ['    if (!p) { printf("%d\\n", status); return; }']
    lines += ["    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)"]
    lines += ['        if (all[i].at == p) printf("%s\\n", status ? "pointer and status" : all[i].name);', "}"]
    asked = [(DRIVER, case) for case in CASES] + [(OLDER, case) for case in OLDER_CASES]
    lines += ["int main(void)", "{", *(f'    ask("{n}", {v}, {d}, {f});' for d, (n, v, f, _) in asked), "    return 0;", "}"]
    return "\n".join([*lines, ""])


def test_lookup_answers_as_the_driver_does(tmp_path: Path) -> None:
    write(generate(load()), tmp_path)
    (tmp_path / "main.c").write_text(_program(tmp_path))
    guest = tmp_path / "guest-agent/libcuda"
    sources = [tmp_path / "main.c", tmp_path / "names.c", guest / "gen/procaddr.c"]
    includes = [guest, ROOT / "guest-agent/libcuda", tmp_path / "ivshmem/gen", ROOT / "ivshmem/include"]
    command = [COMPILER, "-std=gnu11", *(f"-I{i}" for i in includes), *map(str, sources), "-o", str(tmp_path / "ask")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[:4000]
    lines = subprocess.run([tmp_path / "ask"], capture_output=True, text=True, check=True, timeout=10).stdout.split()
    got = list(zip(CASES + OLDER_CASES, lines, strict=True))
    assert got == [(case, str(case[3])) for case in CASES + OLDER_CASES]


@pytest.mark.parametrize("major", [12, 13])
def test_versions_agree_with_typedefs_header(major: int) -> None:
    """Every name has the ABI breakpoints of the Typedefs headers (of those up to the surface's version)."""
    include = include_or_skip(major)
    text = re.sub(r"\s+", " ", "".join(path.read_text() for path in sorted(include.glob("cuda*Typedefs.h"))))
    real: dict[str, set[int]] = {}
    for name, version in re.findall(r"CUDAAPI \*PFN_(cu\w+?)_v(\d{4,5})\)", text):
        real.setdefault(name, set()).add(int(version))
    ours: dict[str, set[int]] = {}
    for symbol in exports.symbols(load()):
        ours.setdefault(symbol.name, set()).add(symbol.since)
    newest = {12: 12090, 13: 13050}[major]
    wrong = {
        name: (sorted(ours[name]), sorted(real[name]))
        for name in set(ours) & set(real)
        if {v for v in ours[name] if v <= newest} != {v for v in real[name] if v <= exports.SURFACE_VERSION}
    }
    assert not wrong


def test_export_map_lists_every_public_function() -> None:
    exported = set(exports.export_map(load()).replace(";", " ").split())
    assert public_functions(include_or_skip(13)) <= exported
