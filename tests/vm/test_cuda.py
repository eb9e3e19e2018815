# SPDX-License-Identifier: Apache-2.0
"""A CUDA program of an ordinary user in a real guest, over its region; and what is left when guest or daemon die."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orion_virt import paths
from vm.harness import Guest, GuestConfig, Share
from vm.conftest import CACHE
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

LIBRARY = paths.lib() / "guest" / "libcuda.so.1"
WHERE = "/opt/orion"
# What the udev rule of the installer does; there is no udevd in this guest.
PERMIT = """
for d in /sys/bus/pci/devices/*; do
    [ "$(cat $d/vendor)$(cat $d/device)" = 0x1af40x1110 ] || continue
    chgrp guest $d/resource2* && chmod 0660 $d/resource2*
done
"""
PROGRAM = '''
import ctypes, os, sys, time
cuda = ctypes.CDLL("/opt/orion/libcuda.so.1")
def must(status):
    if status: sys.exit(f"status {status}")
must(cuda.cuInit(0))
context, pointer, size = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t(3 << 20)
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuMemAlloc_v2(ctypes.byref(pointer), size))
data = os.urandom(3 << 20)
must(cuda.cuMemcpyHtoD_v2(pointer, data, size))
back = ctypes.create_string_buffer(3 << 20)
must(cuda.cuMemcpyDtoH_v2(back, pointer, size))
print("same" if back.raw == data else "DIFFERENT", os.getuid(), flush=True)
time.sleep(float(sys.argv[1]))
'''
WATCHER = '''
import sys, time
exec(open("/opt/orion/program.py").read().replace("time.sleep(float(sys.argv[1]))", ""))
seen = None
for _ in range(3000):
    status = cuda.cuCtxSynchronize()
    if status != seen:
        print("status", status, flush=True)
        seen = status
    time.sleep(0.1)
'''


@pytest.fixture(scope="module")
def program(setup: Setup) -> Path:
    """A directory for the guest with our library and the program."""
    if not LIBRARY.exists():
        pytest.skip("the guest library is not built: make build")
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the guest's root is this host's, and it has no /usr/bin/python3")
    directory = setup.host.state / "program"
    directory.mkdir()
    shutil.copy(LIBRARY, directory)
    (directory / "program.py").write_text(PROGRAM)
    return directory


@pytest.fixture
def guest(setup: Setup, program: Path) -> Iterator[Guest]:
    config = GuestConfig("cuda", root=Path("/"), memory_mib=768, shares=(Share(program, WHERE),))
    made = Guest(setup.libvirt, config, CACHE)
    made.define()
    eventually(lambda: setup.oriond.domain("cuda").get("device") == "defined", "no device")
    made.start()
    assert made.run(PERMIT, user="root").status == 0
    eventually(lambda: bool(setup.oriond.domain("cuda").get("server_addrs")), "no header")
    yield made
    made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


def channels(setup: Setup) -> list[object]:
    return list(setup.oriond.ask("status")["channels"])


def start_and_wait(setup: Setup, guest: Guest) -> None:
    guest.run(f"python3 {WHERE}/program.py 300 >/tmp/out 2>&1 & echo $! >/tmp/pid")
    eventually(lambda: "same" in guest.run("cat /tmp/out").output, "the program does not come up", 120)
    assert len(channels(setup)) == 1


def test_copies_over_the_region(setup: Setup, guest: Guest) -> None:
    done = guest.run(f"python3 {WHERE}/program.py 0")
    assert done.status == 0 and "same 1000" in done.output, done.output
    assert "Client exits with allocation ID" in done.output
    assert "over shared memory" in setup.oriond.output()
    eventually(lambda: channels(setup) == [], "the channel is left")


def test_killed_program(setup: Setup, guest: Guest) -> None:
    start_and_wait(setup, guest)
    assert guest.run("kill -9 $(cat /tmp/pid)").status == 0
    eventually(lambda: channels(setup) == [], "the channel of a killed program is left")
    assert guest.run(f"python3 {WHERE}/program.py 0").status == 0


def test_destroyed_domain(setup: Setup, guest: Guest) -> None:
    start_and_wait(setup, guest)
    setup.libvirt.virsh("destroy", "cuda")
    eventually(lambda: channels(setup) == [] and setup.regions() == [], "a destroyed domain's worker or region is left")


def test_detached_domain(setup: Setup, guest: Guest) -> None:
    start_and_wait(setup, guest)
    done = setup.oriond.command("detach", "cuda")
    assert done.returncode == 0, done.stderr
    eventually(lambda: channels(setup) == [] and setup.regions() == [], "a detached domain's worker or region is left")


def test_save_ends_what_computes_only_by_force(setup: Setup, guest: Guest) -> None:
    """Its 9p mounts keep this guest from being saved, which shows what a failure of virsh leaves behind."""
    guest.run(f"cat > watcher.py <<'E'\n{WATCHER}\nE\npython3 watcher.py >/tmp/watched 2>&1 &")
    eventually(lambda: "status 0" in guest.run("cat /tmp/watched").output, "the program does not come up", 120)
    refused = setup.oriond.command("save", "cuda")
    assert refused.returncode == 4 and "1 CUDA process of cuda would end: " in refused.stderr, refused.stderr
    assert len(channels(setup)) == 1, "a refusal ends nothing"
    done = setup.oriond.command("save", "cuda", "--force")
    assert done.returncode == 1 and "ended: " in done.stdout and "VirtFS" in done.stderr, done.stdout + done.stderr
    assert "The domain is where it was" in done.stderr
    eventually(lambda: "status 46" in guest.run("cat /tmp/watched").output, "the program does not learn of its end", 120)
    output = guest.run(f"python3 {WHERE}/program.py 0").output
    assert "same" in output, f"a new program does not work: {output}"


def test_no_daemon(setup: Setup, guest: Guest) -> None:
    setup.oriond.stop()
    try:
        done = guest.run(f"python3 {WHERE}/program.py 0")
    finally:
        setup.oriond.start()
    assert done.status == 1 and "status 100" in done.output, done.output
    assert len(done.output.splitlines()) <= 5, done.output  # one of them that it waits for oriond
    eventually(lambda: bool(setup.oriond.domain("cuda").get("server_addrs")), "not taken up again")
    assert guest.run(f"python3 {WHERE}/program.py 0").status == 0
