# SPDX-License-Identifier: Apache-2.0
"""A guest in the private libvirt: its domain XML, its boot, and commands that run in it."""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from orion_virt.errors import Unavailable

from .initramfs import build, with_files
from .kernel import Kernel, fetch
from .libvirtd import PrivateLibvirt

BOOT_SECONDS = 240
SOCKET_LIMIT = 100  # bytes; the kernel's limit for a unix socket's path is 107


@dataclass(frozen=True)
class Share:
    """A host directory in the guest, over 9p. QEMU's own user must be able to read (or write) it."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class GuestConfig:
    """What a guest is made of. Without ``root`` it has only the initramfs: busybox, no libc, and ``files`` (by their
    paths in the guest). Such a guest can be saved and migrated; one with a root or shares over 9p cannot."""

    name: str
    machine: str = "pc"
    kind: str = "qemu"
    memory_mib: int = 512
    vcpus: int = 1
    root: Path | None = None
    shares: tuple[Share, ...] = ()
    network: bool = True
    domain_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    metadata: str = ""
    devices: str = ""
    files: tuple[tuple[str, Path], ...] = ()
    on_reboot: str = "destroy"
    networks: tuple[str, ...] = ("orion",)


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended, and what it wrote on stdout and stderr together."""

    status: int
    output: str


class Guest:
    """One domain. ``define``, ``start``, then ``run``; ``destroy`` when done."""

    def __init__(self, libvirt: PrivateLibvirt, config: GuestConfig, cache: Path) -> None:
        self.libvirt = libvirt
        self.config = config
        self.uuid = config.domain_uuid
        self._cache = cache
        self._directory = libvirt.open_directory("vm")
        self._socket: socket.socket | None = None
        self._buffer = b""

    @property
    def console(self) -> Path:
        """What the guest's kernel and init wrote on the serial console."""
        return self._directory / f"{self.config.name}.log"

    @property
    def _port(self) -> Path:
        return self._directory / f"{self.config.name}.sock"

    def define(self) -> None:
        self.libvirt.define(self.xml())

    def start(self, timeout: float = BOOT_SECONDS) -> None:
        """Starts the defined domain and waits until it takes commands."""
        self.libvirt.virsh("start", self.config.name)
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = BOOT_SECONDS) -> None:
        """Waits for the guest's init. Unavailable with the console's end when it does not come."""
        deadline = time.monotonic() + timeout
        self._connect(deadline)
        while b"READY\n" not in self._buffer:
            self._receive(deadline, "did not reach user space")
        self._buffer = self._buffer.split(b"READY\n", 1)[1]

    def _connect(self, deadline: float) -> None:
        if len(str(self._port)) > SOCKET_LIMIT:
            raise Unavailable(f"{self._port} is too long for a socket", hint="Use a shorter domain name")
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(self._port))
                return
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise Unavailable(f"no command port of {self.config.name}: {error}") from error
                time.sleep(0.1)

    def _receive(self, deadline: float, failure: str) -> None:
        assert self._socket is not None
        self._socket.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            data = b""
        if not data:
            raise Unavailable(f"the guest {self.config.name} {failure}: {self.console_tail()}")
        self._buffer += data

    def console_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.console.read_text(errors="replace")[-1500:]
        return "(no console)"

    def run(self, command: str, user: str = "guest", timeout: float = 180) -> Result:
        """Runs a shell command in the guest's root as `user`, in that user's home.

        Raises Unavailable when the guest does not answer in time; it cannot be used afterwards.
        """
        return self._ask(user, command, timeout)

    def boot_systemd(self, timeout: float = BOOT_SECONDS) -> None:
        """Hands a guest with a root over to the systemd in it, which starts as on any machine; commands go on."""
        self._ask("init", "-", timeout)

    def _ask(self, user: str, command: str, timeout: float) -> Result:
        assert self._socket is not None, "the guest is not started"
        token = secrets.token_hex(8)
        script = base64.b64encode(command.encode()).decode()
        self._socket.sendall(f"{token} {user} {script}\n".encode())
        deadline = time.monotonic() + timeout
        mark = f"\n{token} ".encode()
        while mark not in self._buffer or b"\n" not in self._buffer.split(mark, 1)[1]:
            self._receive(deadline, f"did not answer to `{command[:60]}` (so far: {self._buffer[-500:]!r})")
        output, rest = self._buffer.split(mark, 1)
        status, self._buffer = rest.split(b"\n", 1)
        return Result(int(status), output.decode(errors="replace"))

    def reconnect(self, timeout: float = BOOT_SECONDS) -> None:
        """Opens the command port of a guest that came back as it was (restored, migrated) and still listens there."""
        self.close()
        self._connect(time.monotonic() + timeout)

    @property
    def connected(self) -> bool:
        """Whether our end of the command port is open."""
        return self._socket is not None

    def close(self) -> None:
        """Closes our end of the command port."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer = b""

    def destroy(self, undefine: bool = True) -> None:
        """Ends the domain at once, running or not."""
        self.close()
        self.libvirt.virsh("destroy", self.config.name, check=False)
        if undefine:
            self.libvirt.virsh("undefine", self.config.name, check=False)

    def xml(self) -> str:
        """The domain's definition, without our device: that is the daemon's work."""
        kernel = fetch(self._cache)
        config = self.config
        shares = [(f"share{i}", s) for i, s in enumerate(config.shares)]
        words = ["console=ttyS0", "quiet", "panic=-1", f"orion.name={config.name}"]
        if config.root:
            words.append("orion.root=9p")
        if shares:
            listed = (f"{tag}:{s.target}:{'rw' if s.writable else 'ro'}" for tag, s in shares)
            words.append("orion.shares=" + ",".join(listed))
        mounts = ([("root", Share(config.root, "/"))] if config.root else []) + shares
        return TEMPLATE.format(
            kind=config.kind, name=config.name, uuid=self.uuid, memory=config.memory_mib, vcpus=config.vcpus,
            cpu="maximum" if config.kind == "qemu" else "host-passthrough", machine=config.machine,
            metadata=config.metadata, kernel=kernel.image, initrd=self._initrd(kernel), words=" ".join(words),
            log=self.console, port=self._port, filesystems="".join(_filesystem(tag, s) for tag, s in mounts),
            interface="".join(INTERFACE.format(name=n) for n in config.networks) if config.network else "",
            devices=config.devices, on_reboot=config.on_reboot)

    def _initrd(self, kernel: Kernel) -> Path:
        plain = build(kernel, self._cache)
        target = self._directory / f"{self.config.name}.initrd"
        if self.config.files and not target.exists():
            with_files(plain, dict(self.config.files), target)
        return target if self.config.files else plain


def _filesystem(tag: str, share: Share) -> str:
    readonly = "" if share.writable else "<readonly/>"
    return (f"<filesystem type='mount' accessmode='passthrough'><source dir={quoteattr(str(share.source))}/>"
            f"<target dir='{tag}'/>{readonly}</filesystem>\n")


INTERFACE = "<interface type='network'><source network='{name}'/><model type='virtio'/><rom enabled='no'/></interface>"
TEMPLATE = """\
<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{words}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='{cpu}'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>{on_reboot}</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {filesystems}{interface}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='file'><source path='{log}'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{port}'/>
      <target type='virtio' name='org.orion.run.0'/>
    </channel>
    {devices}
  </devices>
</domain>
"""
