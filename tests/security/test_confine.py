# SPDX-License-Identifier: Apache-2.0
"""What a worker cannot do any more once it serves a guest, tried from inside; and that it serves the guest all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import pytest
from orion_virt.server import confine, identity

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a worker is confined by root")

INSIDE = """
import ctypes, errno, json, os, resource, socket, sys, threading
from pathlib import Path
from orion_virt.server import confine, identity

libc = ctypes.CDLL(None, use_errno=True)
before = os.open(sys.argv[1], os.O_RDWR)
network = os.readlink("/proc/self/ns/net")
missing = confine.enter([Path(sys.argv[2])], shares=True)
identity.become(identity.STARTING, identity.STARTING, again=True)
confine.refuse_calls()

def outcome(work):
    try:
        return str(work())[:20]
    except OSError as error:
        return errno.errorcode[error.errno]

def call(number):
    return "done" if libc.syscall(number, 0, 0, 0, 0, 0, 0) >= 0 else errno.errorcode[ctypes.get_errno()]

def start():
    # what the driver's start may do
    return {"unix": outcome(lambda: bool(socket.socket(socket.AF_UNIX))), "inet": outcome(lambda: socket.socket(socket.AF_INET)),
            "fork": outcome(os.fork), "clone3": call(435), "newer": call(600), "shared": outcome(lambda: bool(open(sys.argv[3], "w")))}

def in_thread(go, found):
    go.wait()
    found["thread"] = outcome(lambda: socket.socket(socket.AF_UNIX))

starting, later, go = start(), {}, threading.Event()
thread = threading.Thread(target=in_thread, args=(go, later))
thread.start()
identity.become(identity.STARTING + 9, identity.STARTING + 9)
confine.refuse_more()
go.set()
thread.join()
later["socket"] = outcome(lambda: socket.socket(socket.AF_UNIX))
later["root"] = outcome(lambda: os.setresuid(0, 0, 0))
later["calls"] = {name: call(number) for name, number in confine.REFUSED_LATER.items()}

print(json.dumps({
    "starting": starting, "later": later, "network": network != os.readlink("/proc/self/ns/net"), "user": os.getresuid(),
    "limits": [resource.getrlimit(what)[1] for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_MSGQUEUE)],
    "regions": outcome(lambda: open(sys.argv[4])), "listed": outcome(lambda: os.listdir("/dev/shm")),
    "missing": missing,
    "secret": outcome(lambda: open(sys.argv[1]).read()),
    "before": outcome(lambda: os.pread(before, 6, 0)),
    "write": outcome(lambda: open(sys.argv[1] + ".new", "w")),
    "shadow": outcome(lambda: open("/etc/shadow").read()),
    "passwords of others": outcome(lambda: open("/proc/1/environ", "rb").read()),
    "memory of others": outcome(lambda: open("/proc/1/mem", "rb").read(1)),
    "listing": outcome(lambda: os.listdir("/root")),
    "library": outcome(lambda: open(sys.argv[2] + "/lib.so").read()),
    "own": outcome(lambda: len(open("/proc/self/maps").read()) > 100),
    "system": outcome(lambda: len(os.listdir("/usr/lib")) > 1),
    "links": outcome(lambda: os.listdir("/proc/self/net")),
    "execute": outcome(lambda: os.execv("/bin/true", ["true"])),
    "calls": {name: call(number) for name, number in confine.REFUSED.items()},
}))
"""


@pytest.fixture(scope="module")
def inside() -> Iterator[dict[str, object]]:
    """What a process saw that confined itself; its files are everybody's, so that it is not for its user that they are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield _confined(Path(folder))


def _confined(folder: Path) -> dict[str, object]:
    (folder / "lib").mkdir(0o755)
    (folder / "lib" / "lib.so").write_text("library")
    (folder / "secret").write_text("secret")
    region = tempfile.NamedTemporaryFile(dir="/dev/shm")  # as a region's: 0600, root's
    made = Path("/dev/shm") / f"orion-test-{os.getpid()}"
    done = subprocess.run([sys.executable, "-c", INSIDE, folder / "secret", folder / "lib", made, region.name], env=os.environ | {"PYTHONPATH": str(hosts.ROOT)},
                          capture_output=True, text=True, timeout=180)
    made.unlink(missing_ok=True)
    region.close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_this_kernel_has_all_walls(inside: dict[str, object]) -> None:
    assert inside["missing"] == []


@pytest.mark.parametrize("what", ["secret", "write", "shadow", "passwords of others", "memory of others", "listing"])
def test_files_of_others_are_closed(inside: dict[str, object], what: str) -> None:
    assert inside[what] == "EACCES"


def test_what_it_needs_is_open(inside: dict[str, object]) -> None:
    assert (inside["before"], inside["library"], inside["own"], inside["system"]) == ("b'secret'", "library", "True", "True")


def test_the_start_of_the_driver(inside: dict[str, object]) -> None:
    assert inside["starting"] == {"unix": "True", "inet": "EPERM", "fork": "EPERM", "clone3": "ENOSYS", "newer": "ENOSYS", "shared": "True"}
    assert inside["network"] is True


def test_what_ends_with_the_start(inside: dict[str, object]) -> None:
    """For threads that were there before, too."""
    later = inside["later"]
    assert isinstance(later, dict)
    assert {name: result for name, result in later.pop("calls").items() if result != "EPERM"} == {}
    assert later == {"thread": "EPERM", "socket": "EPERM", "root": "EPERM"}
    assert inside["user"] == [identity.STARTING + 9] * 3


def test_regions_of_others_are_closed(inside: dict[str, object]) -> None:
    assert (inside["regions"], inside["listed"]) == ("EACCES", "EACCES")


def test_limits(inside: dict[str, object]) -> None:
    files, threads, queues = inside["limits"]  # type: ignore[misc]
    assert files <= 16384 and threads <= 8192 and queues == 0


def test_no_other_program(inside: dict[str, object]) -> None:
    assert inside["execute"] == "EPERM"


def test_every_call_on_the_list_is_refused(inside: dict[str, object]) -> None:
    calls = inside["calls"]
    assert isinstance(calls, dict)
    assert {name: result for name, result in calls.items() if result != "EPERM"} == {}


def test_the_list_has_this_machine_s_numbers() -> None:
    """Names and numbers belong together: compared with the system's header."""
    header = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-"], input="", capture_output=True, text=True, check=True)
    listed = confine.REFUSED | confine.REFUSED_LATER
    numbers = dict(line.split()[1:3] for line in header.stdout.splitlines() if line.startswith("#define __NR_"))
    assert {name: numbers.get(f"__NR_{name}") for name in listed} == {n: str(v) for n, v in listed.items()}


def test_another_architecture_s_call_ends_the_process() -> None:
    """The numbers of 32-bit calls are others: int 0x80 would go round the list."""
    code = ("import ctypes, mmap\nfrom orion_virt.server import confine\n"
            "m = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov eax, 20 (getpid); int 0x80; ret
            "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
            "confine.enter()\nconfine.refuse_calls()\ncall()\n")
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(hosts.ROOT)}, capture_output=True, timeout=180)
    assert done.returncode == -31, done.stderr  # SIGSYS


def test_a_confined_worker_serves(tmp_path: Path) -> None:
    """And has no network, no new privileges, both filters, and a user of its domain's own, as the kernel tells."""
    with hosts.running(tmp_path, config="[server]\nconfine = on\n") as host:
        client = subprocess.Popen([sys.executable, hosts.ROOT / "tests/loopback/client.py", "hold", "3"], env=host.env, stdout=subprocess.PIPE,
                                  text=True)
        assert client.stdout.readline() == "READY True\n"
        worker = Path("/proc", str(host.status()["channels"][0]["worker"]))
        status = dict(line.split(":\t", 1) for line in (worker / "status").read_text().splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert int(status["Seccomp_filters"]) >= 2 and status["CapPrm"].strip("0") == status["CapEff"].strip("0") == ""
        assert status["Uid"].split() == [str(identity.of("auto", host.uuid, True)[0])] * 4
        assert os.readlink(worker / "ns/net") != os.readlink("/proc/self/ns/net")
        assert client.communicate(timeout=180)[0] == "DONE\n"
        assert client.returncode == 0
