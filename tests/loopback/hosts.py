# SPDX-License-Identifier: Apache-2.0
"""Two hosts, each oriond with its controller in a network namespace of its own, with a wire between, that share an etcd.

Run in the first one's namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import etcds
import host

PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
print(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), flush=True)
sys.stdin.readline()
"""


class OneOfTwo(host.Host):
    """A host of the pool; its controller serves loopback and its address, on a port of its own since the machine is one."""

    def __init__(self, directory: Path, address: str, etcd: str, namespace: str) -> None:
        super().__init__(directory)
        self.namespace = namespace
        self.address, self.port = address, 9960
        self.server, self.controller = f"{address}:9960", f"{address}:{self.controller_port}"
        (self.dir / "etc" / "controller.conf").write_text(f"[store]\nkind = etcd\netcd = {etcd}\n")

    def write_config(self) -> Path:
        path = self.dir / "etc" / "server.conf"
        path.write_text(f"[server]\nlisten_port = {self.port}\nbind_addr = {self.address}\npool_addr = {self.address}\n"
                        f"driver = simulated\n[controller]\ncontroller_addr = 127.0.0.1:{self.controller_port}\n[libvirt]\nattach = off\n")
        return path


@contextlib.contextmanager
def inside(made: OneOfTwo):
    """What is started here is on that host."""
    libc, home = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(made.namespace, os.O_RDONLY)
    try:
        assert libc.setns(there, 0x40000000) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(home, 0x40000000) == 0
        os.close(home)
        os.close(there)


class Program:
    """A guest process; `result` of its first context, `text` of a refused one."""

    def __init__(self, made: OneOfTwo, vgpus: int, env: dict[str, str] | None = None) -> None:
        env = (made.env if env is None else env) | {"ORION_VGPU": str(vgpus)}
        with inside(made):
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, text=True, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.result = int(self.process.stdout.readline())

    def end(self) -> str:
        return self.process.communicate(timeout=180)[1]


def servers_of(made: OneOfTwo) -> list[str]:
    """Of all allocations, as `orion-virt allocations` of this host shows them."""
    with inside(made):
        done = subprocess.run([sys.executable, "-m", "orion_virt.cli.main", "allocations"], env=made.server_env,
                              capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return sorted(line.split()[4] for line in done.stdout.splitlines()[1:-1])


def check(one: OneOfTwo, other: OneOfTwo) -> None:
    for made in (one, other):
        assert made.command("region-create", uuid=made.uuid, size_mib=128)["ok"]
    ours, theirs = Program(one, 3), Program(other, 3)
    assert ours.result == theirs.result == 0
    assert servers_of(one) == servers_of(other) == [one.address, other.address]
    # with shared memory only the own host will do
    refused = Program(one, 2)
    assert refused.result == 100 and "vGPU" in refused.end()
    # over TCP any host's card will: the own one is full
    full = Program(one, 1, one.tcp_env)
    remote = Program(one, 1, {k: v for k, v in one.tcp_env.items() if k != "ORION_SERVER"})
    assert full.result == 0 and remote.result == 0, remote.end()
    assert servers_of(one) == [one.address, one.address, other.address, other.address]
    for program in (ours, full, theirs, remote):
        program.end()
    assert host.wait_for(lambda: servers_of(one) == servers_of(other) == [])
    kept = Program(other, 4)
    one.kill()  # oriond and controller: a host that is dead
    assert kept.result == 0 and servers_of(other) == [other.address]
    kept.end()


def wire(pid: int) -> None:
    """Between our namespace and that of `pid`: 10.99.0.1 here, 10.99.0.2 there."""
    there = ["nsenter", "-t", str(pid), "-n"]
    for words in (["ip", "link", "set", "lo", "up"], ["ip", "link", "add", "here", "type", "veth", "peer", "name", "there"],
                  ["ip", "link", "set", "there", "netns", str(pid)], ["ip", "addr", "add", "10.99.0.1/24", "dev", "here"],
                  ["ip", "link", "set", "here", "up"], [*there, "ip", "link", "set", "lo", "up"],
                  [*there, "ip", "addr", "add", "10.99.0.2/24", "dev", "there"], [*there, "ip", "link", "set", "there", "up"]):
        subprocess.run(words, check=True)


def run(home: Path, second: str) -> None:
    with etcds.running(home, "10.99.0.1") as etcd:
        made = [OneOfTwo(home / "a", "10.99.0.1", etcd.url, "/proc/self/ns/net"), OneOfTwo(home / "b", "10.99.0.2", etcd.url, second)]
        try:
            for each in made:
                with inside(each):
                    each.start()
            check(*made)
        except BaseException:
            print(*(each.output() for each in made if each.process))
            raise
        finally:
            for each in made:
                if each.process is not None:
                    each.kill()
                each.region.unlink(missing_ok=True)


def main() -> None:
    with subprocess.Popen(["unshare", "-n", "sleep", "1000"]) as second:
        try:
            namespace, ours = f"/proc/{second.pid}/ns/net", os.readlink("/proc/self/ns/net")
            assert host.wait_for(lambda: os.readlink(namespace) != ours)
            wire(second.pid)
            run(Path(sys.argv[1]), namespace)
        finally:
            second.kill()
    print("in order")


main()
