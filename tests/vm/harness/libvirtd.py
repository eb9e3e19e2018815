# SPDX-License-Identifier: Apache-2.0
"""libvirtd inside a PrivateHost, with our hook installed and one network of its own."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from orion_virt.errors import NotFound, Unavailable

from .host import PrivateHost

REPO = Path(__file__).resolve().parents[3]
QEMU_USERS = ("libvirt-qemu", "qemu")
QEMU_GROUPS = ("kvm", "libvirt-qemu", "qemu")
START_SECONDS = 30

QEMU_CONF = """\
user = "{user}"
group = "{group}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
LIBVIRTD_CONF = """\
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
host_uuid = "{host_uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""
# no-ping: dnsmasq would wait three seconds to see that an address is free, which it is here.
# Mode open: libvirt adds no firewall rules, so that neither iptables nor nftables is needed.
NETWORK = """\
<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>orion</name>
  <bridge name='orionbr0' stp='off' delay='0'/>
  <mac address='52:54:00:6f:72:01'/>
  <forward mode='open'/>
  <ip address='{prefix}.1' netmask='255.255.255.0'>
    <dhcp><range start='{prefix}.10' end='{prefix}.200'/></dhcp>
  </ip>
  <dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options>
</network>
"""


class PrivateLibvirt:
    """A libvirtd of our own. ``uri`` reaches it from outside; inside it is qemu:///system."""

    def __init__(self, host: PrivateHost, prefix: str = "10.213.77",
                 host_uuid: str = "5f1d7c1a-2a0e-4c55-8d8a-0e6a3b5c9d21") -> None:
        """``host_uuid``: libvirt migrates nothing to a host that has the same, or the same name."""
        self.host = host
        self.host_uuid = host_uuid
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self.user = _first(QEMU_USERS, pwd.getpwnam, "user")
        self.group = _first(QEMU_GROUPS, grp.getgrnam, "group")

    @property
    def gateway(self) -> str:
        """The host's address on the guests' network."""
        return f"{self.prefix}.1"

    @property
    def socket(self) -> Path:
        return self.host.state / "run" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    def start(self, network: bool = True) -> None:
        """Configures and starts the daemon; Unavailable with its log's end if it does not come up."""
        if not shutil.which("libvirtd"):
            raise NotFound("libvirtd is not installed", hint="apt-get install libvirt-daemon-system qemu-system-x86")
        etc = self.host.state / "etc-libvirt"
        (etc / "qemu.conf").write_text(QEMU_CONF.format(user=self.user, group=self.group))
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(host_uuid=self.host_uuid))
        self.install_hook()
        self.open_directory("vm")
        self.launch()
        if network:
            self.add_network()

    def launch(self) -> None:
        """Starts the daemon as it is configured, also again after ``kill``."""
        self.process = self.host.popen(["libvirtd"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.socket.exists() and self.virsh("uri", check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise Unavailable(f"the private libvirtd did not start: {self.log()[-600:]}", hint=f"Look at {self.host.state}")

    def kill(self) -> None:
        """Ends the daemon; running domains live on."""
        if self.process is None:
            return
        # The process is nsenter's child: found by its pid file, as nsenter --pid forks.
        pid = int((self.host.state / "run" / "libvirtd.pid").read_text())
        self.host.run(["kill", f"-{signal.SIGTERM.value}", str(pid)])
        self.process.wait(20)
        self.process = None

    def log(self) -> str:
        path = self.host.state / "log-libvirt" / "libvirtd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def install_hook(self) -> None:
        """As a user does."""
        done = self.host.run([sys.executable, "-m", "orion_virt.cli.main", "hook", "install"], cwd=REPO)
        if done.returncode:
            raise Unavailable(f"the hook cannot be installed: {done.stderr.strip()}")

    def open_directory(self, name: str) -> Path:
        """A directory in which QEMU's user may make sockets and logs."""
        path = self.host.state / name
        path.mkdir(exist_ok=True)
        os.chown(path, pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid)
        return path

    def virsh(self, *args: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """virsh inside; Unavailable with what it said where it fails and `check` is set."""
        done = self.host.run(["virsh", "-q", *args], timeout=timeout)
        if check and done.returncode:
            raise Unavailable(f"virsh {' '.join(args)}: {done.stderr.strip()}")
        return done

    def define(self, xml: str) -> None:
        """Defines a domain (without starting it)."""
        path = self.host.state / "vm" / "define.xml"
        path.write_text(xml)
        self.virsh("define", str(path))

    def add_network(self) -> None:
        path = self.host.state / "vm" / "network.xml"
        path.write_text(NETWORK.format(prefix=self.prefix))
        self.virsh("net-define", str(path))
        self.virsh("net-start", "orion")


def _first(names: tuple[str, ...], known: object, what: str) -> str:
    for name in names:
        try:
            known(name)  # type: ignore[operator]
        except KeyError:
            continue
        return name
    raise NotFound(f"QEMU's {what} ({' or '.join(names)}) is missing", hint="apt-get install libvirt-daemon-system")
