# SPDX-License-Identifier: Apache-2.0
"""What doctor says of a packet filter is what the kernel does: real rules, real connections, own namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from orion_virt.config import ServerConfig
from orion_virt.doctor import firewall
from orion_virt.doctor.facts import Facts, Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not shutil.which("nft"), reason="nft is not installed: apt-get install nftables"),
]

SETUP = """
set -e
mount -t tmpfs tmpfs /run
ip netns add guest
ip link set lo up
ip link add virbr0 type bridge
ip addr add 192.168.122.1/24 dev virbr0
ip -6 addr add fd00::1/64 dev virbr0 nodad
ip link add vnet0 type veth peer name eth0 netns guest
ip link set vnet0 master virbr0
ip link set vnet0 up
ip link set virbr0 up
ip netns exec guest ip addr add 192.168.122.10/24 dev eth0
ip netns exec guest ip -6 addr add fd00::10/64 dev eth0 nodad
ip netns exec guest ip link set eth0 up
"""
LISTEN = """
import select, socket
socks = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in (9123, 9960, 9961)]
print("ready", flush=True)
while True:
    for sock in select.select(socks, [], [])[0]:
        sock.accept()[0].close()
"""
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5).close()"
STRICT = """
table inet filter {
  chain input { type filter hook input priority 0; policy drop;
  ct state established,related accept
  iifname "lo" accept
  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  tcp dport 22 accept
}
}"""
ZONES = """
table inet guard {
  set open { type inet_service; flags interval; elements = { 22, 9000-9122 } }
  chain zone { tcp dport @open accept; reject with icmpx admin-prohibited; }
  chain input { type filter hook input priority 0; policy accept;
    ct state vmap { established : accept, related : accept }
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    iifname vmap { "lo" : accept, "virbr0" : goto zone }
  }
}"""
OPEN = """
table inet guard {
  chain input { type filter hook input priority 0; policy drop;
    ct state established accept
    meta nfproto ipv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    iifname "virbr*" ip daddr 192.168.122.0/24 tcp dport { 9123, 9900-9999 } counter accept
    iifname "virbr*" ip6 daddr fd00::1 tcp dport 9960 accept
}
}"""


class Network(Machine):
    """A host with a bridge and a guest behind it."""

    def __init__(self) -> None:
        super().__init__()
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", "--propagation", "private", "sleep", "600"])
        time.sleep(0.1)
        self.inside(["sh", "-c", SETUP])
        self._server = subprocess.Popen([*self._enter, sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
        assert self._server.stdout and self._server.stdout.readline() == "ready\n"

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "--net", "--mount"]

    def inside(self, argv: Sequence[str], text: str = "") -> None:
        done = subprocess.run([*self._enter, *argv], input=text, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr

    def run(self, argv: Sequence[str]) -> str | None:
        return super().run([*self._enter, *argv])

    def reaches(self, address: str, port: int) -> bool:
        """Whether a connection of the guest comes through."""
        argv = [*self._enter, "ip", "netns", "exec", "guest", sys.executable, "-c", DIAL, address, str(port)]
        return subprocess.run(argv, capture_output=True, timeout=180).returncode == 0

    def close(self) -> None:
        for process in (self._server, self._holder):
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


def examine(network: Network) -> list[tuple[str, int, bool, str]]:
    """(address, port, reached, fix) as doctor has it."""
    told = {
        "name": "vm1",
        "uuid": "u",
        "state": "running",
        "server_addrs": ["192.168.122.1:9960", "[fd00::1]:9960"],
        "controller_addr": "192.168.122.1:9123",
    }
    found = list(firewall.firewall(Facts(network, ServerConfig(), {}, [told])))
    ways = [("192.168.122.1", 9123), ("192.168.122.1", 9960), ("fd00::1", 9960)]
    assert len(found) == len(ways), found
    return [(*way, f.level == "ok", f.fix) for way, f in zip(ways, found)]


@pytest.mark.parametrize(
    ("tool", "rules", "stopped"),
    [
        ("nft", "", 0),
        ("nft", STRICT, 3),
        ("nft", ZONES, 3),
        ("nft", OPEN, 0),
        ("iptables", "*filter\n:INPUT DROP\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n", 2),
        (
            "iptables",
            "*filter\n:INPUT ACCEPT\n:OWN -\n-A INPUT -i virbr0 -j OWN\n-A OWN -p tcp --dport 22 -j RETURN\n"
            "-A OWN -p tcp -j REJECT\nCOMMIT\n",
            2,
        ),
    ],
    ids=["none", "strict", "zones", "open", "iptables-policy", "iptables-chain"],
)
def test_doctor_says_what_the_kernel_does_and_its_fix_works(
    network: Network, tool: str, rules: str, stopped: int
) -> None:
    network.inside(["nft", "flush", "ruleset"])
    if tool == "nft":
        network.inside(["nft", "-f", "-"], rules)
    else:
        network.inside(["iptables-restore"], rules)
    found = examine(network)
    assert [reached for _, _, reached, _ in found] == [network.reaches(address, port) for address, port, _, _ in found]
    assert sum(not reached for _, _, reached, _ in found) == stopped
    for address, port, reached, fix in found:
        if not reached:
            network.inside(["sh", "-c", fix])
            assert network.reaches(address, port), f"{fix} does not let {address}:{port} pass"
    assert all(reached for _, _, reached, _ in examine(network))
    if stopped:
        assert not network.reaches("192.168.122.1", 9961), "the fix opens more than what is needed"
