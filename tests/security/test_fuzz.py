# SPDX-License-Identifier: Apache-2.0
"""Every operation with seeded random payloads, against the real worker and the simulated GPU under sanitizers."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import time
from pathlib import Path

import fuzz
import pytest
import wire
from guest import CONTEXT, REPLY
from host import LIB, ROOT
from sandbox import Sandbox

from orion_virt import layout

SECONDS = float(os.environ.get("ORION_FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("ORION_FUZZ_SEED", "20"))
SANITIZE = ["-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-fsanitize=address,undefined",
            "-pthread", "-Iivshmem/include", "-Iivshmem/gen"]  # fmt: skip
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:exitcode=99:handle_segv=0:handle_sigbus=0:allocator_may_return_null=1",
           "UBSAN_OPTIONS": "print_stacktrace=1"}  # fmt: skip
# They end everything that later commands could reach, or need an order that chance seldom finds.
RARE = ("orion_ctx_end", "orion_ctx_activate", "orion_image_begin", "orion_image_piece", "orion_image_data", "orion_thread_exit")
pytestmark = pytest.mark.skipif(not (LIB / "libexecutor.so").exists(), reason="run `make build` first")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Executor and simulated GPU under Address- and UndefinedBehaviourSanitizer: arguments of a Sandbox."""
    folder = tmp_path_factory.mktemp("sanitized")
    executor = sorted((ROOT / "orion_virt/executor").glob("*.c")) + sorted((ROOT / "orion_virt/executor/gen").glob("*.c"))
    simulated = sorted((ROOT / "orion_virt/simgpu").glob("*.c"))
    for name, sources, include in (("libexecutor.so", executor, "executor"), ("libcuda.so.1", simulated, "simgpu")):
        command = ["cc", *SANITIZE, f"-Iorion_virt/{include}", *map(str, sources), "-o", str(folder / name), "-ldl", "-lm"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[:3000]
    libraries = [subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
                 for name in ("libasan.so", "libubsan.so")]  # fmt: skip
    return {"executor": folder / "libexecutor.so", "driver": folder / "libcuda.so.1",
            "env": OPTIONS | {"LD_PRELOAD": " ".join(libraries)}}  # fmt: skip


def prepare(box: Sandbox, seed: int) -> fuzz.Source:
    """A context, memory, a grant, and one of each handle that is cheap to make."""
    box.start_context()
    devptrs = [box.alloc(1 << 20), box.alloc(1 << 16)]
    grants = [box.ask("orion_grant", bytes=2 << 20)["off"], box.block]
    source = fuzz.Source(seed, devptrs, grants)
    send_image(box, random.Random(seed), 0)
    h = {kind: wire.handle(kind, 1) for kind in wire.spec().kinds}
    box.ask("orion_module_load", module=h["MODULE"], image=1, options=b"")
    box.ask("orion_module_function", module=h["MODULE"], function=h["FUNCTION"], name=b"a\0")
    box.ask("orion_library_load", library=h["LIBRARY"], image=1, options=b"")
    box.ask("orion_library_kernel", library=h["LIBRARY"], kernel=h["KERNEL"], name=b"a\0")
    part = box.ask("orion_resource_get", type=1)["rest"][:144]
    box.ask("orion_resource_desc", desc=h["RESOURCE_DESC"], bytes=len(part), resources=part)
    box.ask("orion_green_create", green=h["GREEN_CONTEXT"], context=wire.handle("CONTEXT", 2), desc=h["RESOURCE_DESC"], flags=1)
    box.ask("orion_link_create", link=h["LINK"], logs=1, count=2,
            options=struct.pack("<2Q", 4 << 32 | 512, 6 << 32 | 512))
    box.ask("cuStreamCreate", phStream=h["STREAM"], Flags=1)
    box.send("cuEventCreate", phEvent=h["EVENT"])
    box.ask("cuGraphCreate", phGraph=h["GRAPH"])
    box.ask("orion_node_add", graph=h["GRAPH"], node=h["GRAPH_NODE"])
    box.ask("orion_exec_make", graph=h["GRAPH"], exec=h["GRAPH_EXEC"])
    box.ask("cuDeviceGetDefaultMemPool", pool_out=h["MEMPOOL"])
    box.ask("cuMemCreate", handle=h["MEM_ALLOCATION"], size=2 << 20, prop=struct.pack("<4i", 1, 0, 1, 0) + bytes(16))
    source.minted += h.items()
    source.alive = list(h.items())
    return source


def send_image(box: Sandbox, pick: random.Random, wrong: float = 0.3) -> None:
    """A whole image, now and then with a few wrong bytes."""
    image, data = 1 + pick.randrange(4) if wrong else 1, bytearray(fuzz.PTX)
    while pick.random() < wrong:
        data[pick.randrange(len(data) - 1)] = pick.randrange(256)
    box.send("orion_image_drop", image=image)
    box.send("orion_image_begin", image=image, kind=0, pieces=1)
    box.send("orion_image_piece", image=image, bytes=len(data))
    box.send("orion_image_data", image=image, offset=0, bytes=len(data), data=bytes(data))


def arrives(box: Sandbox, seq: int) -> bool:
    """False when the channel ended, or the guest has written over its own ring or waits for itself."""
    try:
        return box.answer(seq, seconds=3) is not None
    except AssertionError:
        return False


def round_of(box: Sandbox, seed: int, until: float, last: list[str]) -> int:
    """Sends until the worker ends the channel or time is up; the number of commands, and in `last` the last of them."""
    source, sent = prepare(box, seed), 0
    calls = [c for c in wire.spec().crossing if c.name not in fuzz.SKIPPED]
    pick = random.Random(seed)
    while time.monotonic() < until and sent < 3000:
        call = pick.choice(calls)
        if (call.name in RARE or call.frees or "unload" in call.name) and pick.random() < 0.95:
            continue
        thread = pick.choice((0, 0, 0, 1, 2))
        if pick.random() < 0.05:
            send_image(box, pick)
        seq = box.post(call.op, fuzz.payload(source, call, pick.random() < 0.9995), thread, REPLY)
        last[:] = [*last[-11:], f"{call.name} of {thread}"]
        sent += 1
        if not seq or (thread == 0 and not arrives(box, seq)):
            break
        if pick.random() < 0.05:
            box.send("orion_set_current", pick.choice((0, 1, 2)), context=CONTEXT)
    return sent


def judge(box: Sandbox, seed: int, last: list[str]) -> None:
    """Ended by protocol or by us: no signal, no report of a sanitizer."""
    status, said = box.end()
    log = box.log()
    about = f"seed {seed}: status {status}, {said!r}; last commands {last}\n{log[-6000:]}"
    assert "ERROR: AddressSanitizer" not in log and "runtime error" not in log, about
    assert status in (0, layout.CLOSED_PROTOCOL), about


def test_random_payloads_end_a_channel_at_worst(sanitized: dict[str, object], tmp_path: Path) -> None:
    until, seed, total = time.monotonic() + SECONDS, SEED, 0
    while time.monotonic() < until:
        with Sandbox(tmp_path / str(seed), **sanitized) as box:  # type: ignore[arg-type]
            last: list[str] = []
            total += round_of(box, seed, until, last)
            judge(box, seed, last)
        seed += 1
    assert total > 200, total
