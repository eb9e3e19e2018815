# SPDX-License-Identifier: Apache-2.0
"""A real guest reaches its host over each kind of network, and oriond listens there just as long as it is needed.

One guest serves all tests: NICs are plugged in and out. The domain's region is there all the while.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from orion_virt import layout, paths
from orion_virt.region import header
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Result, Share
from vm.harness.root import guest_root
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

DEMO = "/usr/lib/orion/demo/orion-demo /usr/lib/orion/demo/kernels.ptx"
BUSYBOX = "/run/harness/busybox"
DHCP = "<dhcp><range start='{0}.10' end='{0}.99'/></dhcp>"
NETWORKS = {
    "nat": f"<forward mode='nat'/><bridge name='natbr0' stp='off'/><ip address='10.213.78.1' prefix='24'>{DHCP.format('10.213.78')}</ip>",
    "isolated": f"<bridge name='isobr0' stp='off'/><ip address='10.213.79.1' prefix='24'>{DHCP.format('10.213.79')}</ip>",
    "routed": "<forward mode='route'/><bridge name='rtbr0' stp='off'/><ip address='10.213.82.1' prefix='24'/>",
    "six": "<forward mode='open'/><bridge name='sixbr0' stp='off'/><ip family='ipv6' address='fd00:213:80::1' prefix='64'/>",
    "dual": "<forward mode='open'/><bridge name='dualbr0' stp='off'/><ip address='10.213.83.1' prefix='24'/>"
            "<ip family='ipv6' address='fd00:213:83::1' prefix='64'/>",
    "bridged": "<forward mode='bridge'/><bridge name='hostbr0'/>",
    "bare": "<bridge name='barebr0' stp='off'/>",
}
MAC = "52:54:00:aa:00:01"
OTHER_MAC = "52:54:00:aa:00:02"
UNUSED_MAC = "52:54:00:aa:00:03"  # never had a lease


def nic(kind: str, more: str = "", mac: str = MAC) -> str:
    """A NIC on a network of ours, on the host's bridge, or of user mode."""
    source = f"<source network='{kind}'/>" if kind in NETWORKS else "<source bridge='hostbr0'/>" if kind == "bridge" else ""
    type_ = "network" if kind in NETWORKS else kind
    return f"<interface type='{type_}'><mac address='{mac}'/>{source}{more}<model type='virtio'/><rom enabled='no'/></interface>"


@dataclass
class Stage:
    """The guest and what is asked of it."""

    setup: Setup
    guest: Guest

    def told(self) -> dict[str, Any]:
        return self.setup.oriond.domain("reach")

    def says(self, *words: str) -> Callable[[], bool]:
        """Whether a problem with these words is shown."""
        return lambda: any(all(w in p for w in words) for p in self.told()["problems"])

    def header(self) -> list[str]:
        with open(self.setup.shm / f"orion-{self.guest.uuid}", "rb") as file:
            found = header.read(file.fileno())
        assert found is not None, "the header is not valid"
        return [a for i in range(layout.MAX_ADDRS) if (a := found.server_addr[i].value.decode())]

    def listens(self) -> set[str]:
        """"ip:port" of oriond and controller, loopback left out."""
        shown = self.setup.host.run(["ss", "-Hltn"]).stdout
        return {a for a in re.findall(r"LISTEN \S+ +\S+ +(\S+:(?:9960|9123)) ", shown) if not a.startswith("127.")}

    def await_header(self, *ips: str) -> None:
        wanted = [f"[{ip}]:9960" if ":" in ip else f"{ip}:9960" for ip in ips]
        eventually(lambda: self.header() == wanted, f"the header has {self.header()} instead of {wanted}: {self.told()}", 120)

    def await_listeners(self, *ips: str) -> None:
        wanted = {f"[{ip}]:{p}" if ":" in ip else f"{ip}:{p}" for ip in ips for p in (9960, 9123)}
        eventually(lambda: self.listens() == wanted, f"listening on {self.listens()} instead of {wanted}", 120)

    def configure(self, mac: str, how: str) -> None:
        """In the guest; `how`: dhcp, auto (what IPv6 announces), or an address with its prefix."""
        done = self.guest.run(CONFIGURE.format(mac=mac, how=how), user="root")
        assert done.status == 0, done.output

    def compute(self, size: int = 16) -> str:
        done: Result = self.guest.run(f"{DEMO} {size}", timeout=120)
        assert done.status == 0 and "PASSED" in done.output, done.output + self.setup.oriond.output()[-1500:]
        return done.output

    def show(self) -> str:
        done = self.setup.oriond.command("show", "reach")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def virsh_rows(self) -> str:
        """As virsh prints them without -q."""
        return self.setup.host.run(["virsh", "domifaddr", "reach"]).stdout.rstrip()

    @contextmanager
    def plugged(self, xml: str, mac: str = MAC) -> Iterator[None]:
        virsh = self.setup.libvirt.virsh
        path = self.setup.host.state / "vm" / f"{mac[-2:]}.xml"
        path.write_text(xml)
        virsh("attach-device", "reach", str(path), "--live")
        eventually(lambda: mac in self.guest.run("cat /sys/class/net/*/address").output, "the guest does not see the NIC", 120)
        try:
            yield
        finally:
            virsh("detach-device", "reach", str(path), "--live")
            eventually(lambda: mac not in virsh("dumpxml", "reach").stdout, "the NIC is not unplugged", 120)


CONFIGURE = """
PATH=/run/harness:$PATH; bb=/run/harness/busybox
for d in /sys/class/net/*; do [ "$(cat $d/address)" = {mac} ] && nic=${{d##*/}}; done
[ -n "$nic" ] || exit 3
$bb ip link set $nic up
case {how} in
    dhcp)
        cat >/run/dhcp <<'SCRIPT'
#!/run/harness/busybox sh
[ "$1" = bound ] || exit 0
/run/harness/busybox ip addr add "$ip/$mask" dev "$interface"
for gateway in $router; do /run/harness/busybox ip route add default via $gateway dev $interface; done
exit 0
SCRIPT
        chmod 755 /run/dhcp
        $bb udhcpc -i $nic -n -q -t 10 -T 1 -s /run/dhcp ;;
    auto)
        for i in $($bb seq 100); do
            $bb ip -6 addr show dev $nic | $bb grep global | $bb grep -qv tentative && exit 0
            $bb usleep 100000
        done
        exit 4 ;;
    *) $bb ip addr add {how} dev $nic; while $bb ip addr show dev $nic | $bb grep -q tentative; do $bb usleep 100000; done ;;
esac
"""


AGENT_CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
# As much of QEMU's guest agent as libvirt needs for addresses.
AGENT = """\
#!/run/harness/busybox sh
bb=/run/harness/busybox
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=/dev/$($bb basename $($bb dirname $name))
done
exec 3<>$port
while :; do
    read -r line <&3 || { $bb usleep 100000; continue; } # libvirt connects only once the port is open
    case $line in
        *guest-sync*) echo "{\\"return\\": $(echo "$line" | $bb sed 's/.*"id": *\\([0-9]*\\).*/\\1/')}" >&3 ;;
        *guest-network-get-interfaces*) $bb cat /tmp/interfaces >&3; echo >&3 ;;
    esac
done
"""


@pytest.fixture(scope="module")
def stage(setup: Setup) -> Iterator[Stage]:
    if not (paths.lib() / "install-client").exists():
        pytest.skip("the guest's installer is not built: make build")
    bridge = "ip link add hostbr0 type bridge && ip addr add 10.213.81.1/24 dev hostbr0 && ip link set hostbr0 up"
    assert setup.host.run(["sh", "-c", bridge]).returncode == 0
    for name, text in NETWORKS.items():
        path = setup.host.state / "vm" / "network.xml"
        path.write_text(f"<network><name>{name}</name>{text}</network>")
        setup.libvirt.virsh("net-define", str(path))
        setup.libvirt.virsh("net-start", name)
    client = setup.libvirt.open_directory("reach")
    shutil.copy(paths.lib() / "install-client", client)
    (client / "agent").write_text(AGENT)
    config = GuestConfig("reach", root=guest_root(CACHE), memory_mib=640, network=False, shares=(Share(client, "/client"),),
                         devices=AGENT_CHANNEL)
    guest = Guest(setup.libvirt, config, CACHE)
    try:
        guest.define()
        eventually(lambda: setup.oriond.domain("reach").get("device") == "defined", "no device")
        guest.start()
        done = guest.run("sh /client/install-client -q --user guest", user="root")
        assert done.status == 0, done.output
        yield Stage(setup, guest)
    finally:
        guest.destroy()
        for name in NETWORKS:
            setup.libvirt.virsh("net-destroy", name, check=False)
            setup.libvirt.virsh("net-undefine", name)
        setup.host.run(["ip", "link", "del", "hostbr0"])
    eventually(lambda: setup.regions() == [], "the region's file is left")


def test_no_nic(stage: Stage) -> None:
    eventually(lambda: stage.told().get("device") == "live", "no device")
    assert stage.header() == [] and stage.told()["gateways"] == [] and stage.listens() == set()
    assert re.search(r"gateway: +none$", stage.show(), re.M)


@pytest.mark.parametrize(("kind", "how", "ip", "why"), [
    ("nat", "dhcp", "10.213.78.1", "on the nat network 'nat', on which this host is 10.213.78.1/24"),
    ("isolated", "dhcp", "10.213.79.1", "on the isolated network 'isolated'"),
    ("routed", "10.213.82.7/24", "10.213.82.1", "on the route network 'routed'"),
    ("six", "auto", "fd00:213:80::1", "on the open network 'six'"),
    ("bridge", "10.213.81.7/24", "10.213.81.1", "on the bridge hostbr0, on which this host is 10.213.81.1/24"),
    ("bridged", "10.213.81.8/24", "10.213.81.1", "on the bridge hostbr0")])
def test_each_kind_of_network(stage: Stage, kind: str, how: str, ip: str, why: str) -> None:
    with stage.plugged(nic(kind)):
        stage.await_header(ip)  # before the guest has an address
        stage.configure(MAC, how)
        stage.compute()
        stage.await_listeners(ip)
        told = stage.told()
        assert why in told["gateways"][0]["why"] and told["problems"] == [], told
        source = "lease" if how == "dhcp" else "arp"
        assert {(row["mac"], row["source"]) for row in told["domifaddr"]} == {(MAC, source)}, told["domifaddr"]
        if how == "dhcp":
            assert stage.virsh_rows() in stage.show()
        elif how != "auto":
            assert [row["address"] for row in told["domifaddr"]] == [how.partition("/")[0]]
    stage.await_header()
    stage.await_listeners()


@pytest.mark.parametrize(("subnet", "ip"), [
    ("", "10.0.2.2"), ("<ip family='ipv4' address='172.17.2.0' prefix='24'/>", "172.17.2.2")])
def test_user_mode(stage: Stage, subnet: str, ip: str) -> None:
    with stage.plugged(nic("user", subnet)):
        stage.await_header(ip)
        stage.configure(MAC, "dhcp")
        stage.compute()
        assert stage.listens() == set()  # loopback alone
        assert f"in which {ip} is this host's 127.0.0.1" in stage.show()


def test_no_address_on_the_network(stage: Stage) -> None:
    """Only link-local ones: they are none to dial. One that comes counts at once, and one that goes."""
    with stage.plugged(nic("bare")):
        eventually(lambda: any("barebr0" in why for why in stage.told()["unusable"]), "nothing is said")
        assert stage.header() == [] and "ip addr add ADDRESS/PREFIX dev barebr0" in stage.show()
        add = "echo 0 >/proc/sys/net/ipv6/conf/barebr0/disable_ipv6 && ip addr add fd00:213:84::1/64 dev barebr0"
        stage.setup.host.run(["sh", "-c", add], check=True)
        stage.await_header("fd00:213:84::1")
        stage.await_listeners("fd00:213:84::1")
        stage.configure(MAC, "fd00:213:84::7/64")
        stage.compute()
        stage.setup.host.run(["ip", "addr", "del", "fd00:213:84::1/64", "dev", "barebr0"], check=True)
        stage.await_header()
        stage.await_listeners()


def test_the_nic_that_the_guest_uses_wins(stage: Stage) -> None:
    """Without that knowledge the NAT network comes first; then the guest talks on the bridge only."""
    with stage.plugged(nic("nat", mac=UNUSED_MAC), UNUSED_MAC), stage.plugged(nic("bridge", mac=OTHER_MAC), OTHER_MAC):
        stage.await_header("10.213.78.1")
        stage.configure(OTHER_MAC, "10.213.81.9/24")
        assert stage.guest.run(f"{BUSYBOX} ping -c 1 -W 5 10.213.81.1", user="root").status == 0
        stage.await_header("10.213.81.1")
        stage.await_listeners("10.213.81.1")
        stage.compute()
        assert "the guest's 10.213.81.9 (arp) is in the same subnet" in stage.show()


def test_the_second_address_serves_where_the_first_does_not(stage: Stage) -> None:
    """A network of both families, and a guest with IPv6 only: server and controller are found all the same."""
    with stage.plugged(nic("dual")):
        stage.await_header("10.213.83.1", "fd00:213:83::1")
        stage.configure(MAC, "auto")
        stage.compute()


def test_gateway_of_the_metadata(stage: Stage) -> None:
    uri, virsh = "https://orion-virt/domain/1", stage.setup.libvirt.virsh
    with stage.plugged(nic("nat")):
        virsh("metadata", "reach", uri, "--live", "--key", "orion", "--set", "<vgpu gateway='10.213.81.1'/>")
        stage.await_header("10.213.81.1")
        stage.await_listeners("10.213.81.1")
        assert "gateway= in the domain's metadata names it" in stage.show()
        virsh("metadata", "reach", uri, "--live", "--key", "orion", "--set", "<vgpu gateway='192.0.2.1'/>")
        eventually(stage.says("192.0.2.1:9960", "does not have the address (now)"), "the missing address is not said")
        virsh("metadata", "reach", uri, "--live", "--remove")
        stage.await_header("10.213.78.1")


LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))):
    print("taken", flush=True)
    sys.stdin.read()
"""


@contextmanager
def taken(setup: Setup, ip: str, port: int) -> Iterator[None]:
    process = setup.host.popen([sys.executable, "-c", LISTEN, ip, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout and process.stdout.readline() == b"taken\n"
    try:
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


@pytest.mark.parametrize(("port", "in_header"), [(9960, []), (9123, ["10.213.78.1:9960"])])
def test_a_port_that_somebody_else_has(stage: Stage, port: int, in_header: list[str]) -> None:
    """It is said, and mended by itself once the port is free."""
    with stage.plugged(nic("nat")):
        stage.await_header("10.213.78.1")
        stage.setup.libvirt.virsh("net-destroy", "nat")
        stage.await_listeners()
        stage.setup.host.run(["ip", "addr", "add", "10.213.78.1/32", "dev", "lo"], check=True)
        with taken(stage.setup, "10.213.78.1", port):
            stage.setup.host.run(["ip", "addr", "del", "10.213.78.1/32", "dev", "lo"], check=True)
            stage.setup.libvirt.virsh("net-start", "nat")
            eventually(stage.says(f"cannot listen on 10.213.78.1:{port}: Address already in use. "), "it is not said", 120)
            assert stage.header() == in_header
        stage.await_header("10.213.78.1")
        stage.await_listeners("10.213.78.1")
        eventually(lambda: not any("cannot listen" in p for p in stage.told()["problems"]), "it is still said", 120)


def test_a_network_that_comes_and_goes_under_a_running_program(stage: Stage) -> None:
    virsh, host = stage.setup.libvirt.virsh, stage.setup.host

    def channels() -> int:
        return int(stage.told()["channels"])

    with stage.plugged(nic("nat")):
        stage.await_header("10.213.78.1")
        stage.configure(MAC, "dhcp")
        stage.guest.run(f"{DEMO} 400 >/tmp/out 2>&1; echo status $? >>/tmp/out".join(("(", ") </dev/null >/dev/null 2>&1 &")))
        eventually(lambda: channels() == 1, "the program does not come up", 120)
        virsh("net-destroy", "nat")
        stage.await_header()
        stage.await_listeners()
        eventually(lambda: any("'nat', which is not active: virsh net-start nat" in why for why in stage.told()["unusable"]),
                   "the stopped network is not said")
        assert channels() == 1
        virsh("net-start", "nat")
        stage.await_header("10.213.78.1")
        stage.await_listeners("10.213.78.1")
        eventually(stage.says("is no port of natbr0 any more"), "the loose tap device is not said")
        tap = re.search(r"ip link set (vnet\d+) master natbr0", json.dumps(stage.told()["problems"]))
        assert tap
        host.run(["ip", "link", "set", tap[1], "master", "natbr0"], check=True)
        eventually(lambda: stage.told()["problems"] == [], f"it is still said: {stage.told()}")
        assert channels() == 1
        stage.compute()
        eventually(lambda: "status" in stage.guest.run("cat /tmp/out").output, "the program does not end", 120)
        said = stage.guest.run("cat /tmp/out").output
        assert "PASSED" in said and "status 0" in said, said
        eventually(lambda: channels() == 0, "the channel is left", 120)
