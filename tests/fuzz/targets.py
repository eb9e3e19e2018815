# SPDX-License-Identifier: Apache-2.0
"""Builds the fuzz targets with clang's libFuzzer and runs them: `python -m targets [SECONDS] [TARGET ...]`, `make fuzz`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "security")]

FLAGS = ["-std=gnu11", "-O1", "-g", "-fPIC", "-pthread", "-fno-omit-frame-pointer", "-fsanitize=fuzzer-no-link,address,undefined",
         "-fno-sanitize=nonnull-attribute", "-fno-sanitize-recover=undefined", "-w", f"-I{ROOT}/ivshmem/include", f"-I{ROOT}/ivshmem/gen"]  # fmt: skip
EXECUTOR, SIMULATED = ROOT / "orion_virt" / "executor", ROOT / "orion_virt" / "simgpu"
#: The executor's parts that the targets play themselves, or include.
PLAYED = {"commands": {"control", "spin", "watch", "twin"}}
#: Operations whose purpose is to wait for what nobody does here, or that take memory from under work that still uses it (the worker then
#: ends with a word, run.c).
LEFT_OUT = {"cuStreamWaitValue32_v2", "cuStreamWaitValue64_v2", "cuStreamBatchMemOp_v2", "orion_host_func", "orion_release"}
ENDS = [("GRAPH_EXEC", "cuGraphExecDestroy", 0), ("GRAPH", "cuGraphDestroy", 0), ("EVENT", "cuEventDestroy_v2", 0),
        ("STREAM", "cuStreamDestroy_v2", 0), ("TEXREF", "cuTexRefDestroy", 0), ("MEMPOOL", "cuMemPoolDestroy", 0),
        ("ARRAY", "cuArrayDestroy", 0), ("MIPMAPPED_ARRAY", "cuMipmappedArrayDestroy", 0), ("MEM_ALLOCATION", "cuMemRelease", 0),
        ("LINK", "orion_link_destroy", 0), ("GREEN_CONTEXT", "orion_green_end", 0), ("MODULE", "orion_module_unload", 0),
        ("LIBRARY", "orion_library_unload", 0), ("USER_OBJECT", "cuUserObjectRelease", 1),
        ("CONTEXT", "orion_ctx_end", 2), ("CONTEXT", "orion_ctx_end", 1), ("CONTEXT", "orion_ctx_end", 0)]  # fmt: skip
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_abort=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
TARGETS = ("commands", "frames", "images")


def compiler() -> str | None:
    """clang, where it has libFuzzer's library; Debian: clang and libclang-rt-dev."""
    found = shutil.which("clang") or next((c for n in range(21, 13, -1) if (c := shutil.which(f"clang-{n}"))), None)
    if found is None:
        return None
    folder = subprocess.run([found, "-print-runtime-dir"], capture_output=True, text=True).stdout.strip()
    places = [Path(folder), *Path(folder).parent.glob("linux")]
    return found if any(list(place.glob("libclang_rt.fuzzer*.a")) for place in places) else None


def header() -> str:
    """The operations in a fixed order, and what gives back each kind of handle."""
    import wire

    from orion_virt.codegen.text import in_fields

    spec = wire.spec()
    calls = [c for c in spec.crossing if c.name not in LEFT_OUT]
    ends = [(kind, wire.op_of(name), wire.layout_of(in_fields(wire.call_of(name)))[1], how) for kind, name, how in ENDS]
    lines = ["#define HANDLE(kind, index) ((uint64_t)(kind) << 40 | 1ull << 24 | (uint64_t)(index) << 4)",
             "static const struct fuzz_op { uint32_t op; } fuzz_ops[] = {", *(f"    {{ OW_OP_{c.name} }}," for c in calls), "};",
             f"#define FUZZ_NR_OPS {len(calls)}u",
             "static const struct fuzz_end { uint32_t kind, op, at, bytes; uint8_t how; } fuzz_ends[] = {",
             *(f"    {{ OW_KIND_{kind}, {op}, 0, {size}, {how} }}," for kind, op, size, how in ends), "    { 0, 0, 0, 0, 0 },", "};", ""]  # fmt: skip
    return "\n".join(lines)


def _objects(cc: str, folder: Path, sources: Iterable[Path], *include: Path) -> list[Path]:
    """Compiles what is older than its source or any header."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = [p.stat().st_mtime for d in (ROOT / "ivshmem", *include) for p in d.rglob("*.h")]
    made = {source: folder / f"{source.parent.name}-{source.stem}.o" for source in sources}
    old = [(source, target) for source, target in made.items()
           if not target.exists() or target.stat().st_mtime < max(source.stat().st_mtime, *headers)]  # fmt: skip
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        commands = [[cc, *FLAGS, *(f"-I{p}" for p in include), "-c", str(source), "-o", str(target)] for source, target in old]
        list(pool.map(_run, commands))
    return list(made.values())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[-3:])}: {done.stderr[:4000]}")


def build(cc: str, folder: Path) -> dict[str, Path]:
    """Programs by target."""
    generated = folder / "gen"
    generated.mkdir(parents=True, exist_ok=True)
    text = header()
    if not (generated / "fuzz_ops.h").exists() or (generated / "fuzz_ops.h").read_text() != text:
        (generated / "fuzz_ops.h").write_text(text)
    simulated = _objects(cc, folder / "simulated", sorted(SIMULATED.glob("*.c")), SIMULATED)
    driver = folder / "libcuda.so.1"
    _run([cc, *FLAGS, "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(driver), *map(str, simulated), "-ldl", "-lm"])
    sources = [p for d in (EXECUTOR, EXECUTOR / "gen") for p in sorted(d.glob("*.c"))]
    executor = {p.stem: p for p in _objects(cc, folder / "executor", sources, EXECUTOR)}
    parts = {"commands": [p for name, p in executor.items() if name.partition("-")[2] not in PLAYED["commands"]],
             "frames": [executor["executor-transport"]],
             "images": [executor["executor-image_check"], executor["executor-image_size"], driver]}
    programs = {}
    for name in TARGETS:
        own = _objects(cc, folder / name, [HERE / f"{name}.c"], EXECUTOR, generated)
        programs[name] = folder / f"fuzz-{name}"
        link = FLAGS[:5] + ["-fsanitize=fuzzer,address,undefined", f"-Wl,-rpath,{folder}"]
        _run([cc, *link, "-o", str(programs[name]), *map(str, own + parts[name]), "-ldl", "-lm"])
    return programs


def fuzz(programs: dict[str, Path], name: str, seconds: int, work: Path) -> subprocess.CompletedProcess[str]:
    """Replays the corpus and goes on for so long, from a copy in `work`; an input that breaks the target is left there."""
    found = work / f"corpus-{name}"
    found.mkdir(parents=True, exist_ok=True)
    dictionary = HERE / f"{name}.dict"
    argv = [str(programs[name]), f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=4096", "-malloc_limit_mb=8192", "-max_len=16384",
            "-print_final_stats=1", f"-artifact_prefix={work}/{name}-", *([f"-dict={dictionary}"] if dictionary.exists() else []),
            str(found), str(CORPUS / name)]  # fmt: skip
    env = os.environ | OPTIONS | {"FUZZ_DRIVER": str(programs[name].parent / "libcuda.so.1")}
    return subprocess.run(argv, env=env, cwd=work, capture_output=True, text=True, errors="replace", timeout=seconds + 300)


def executed(done: subprocess.CompletedProcess[str]) -> int:
    """How many inputs ran."""
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    return int(found[1]) if found else 0


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 3600
    cc = compiler()
    if cc is None:
        print("clang with libFuzzer is not installed (Debian: apt-get install clang libclang-rt-dev)", file=sys.stderr)
        return 2
    work = ROOT / "build" / "fuzz"
    programs, bad = build(cc, work), 0
    for name in sys.argv[2:] or TARGETS:
        done = fuzz(programs, name, seconds, work)
        print(f"{name}: {executed(done)} inputs, {'broken' if done.returncode else 'in order'}", flush=True)
        if done.returncode:
            bad = 1
            print(done.stderr[-6000:])
    return bad


if __name__ == "__main__":
    sys.exit(main())
