# SPDX-License-Identifier: Apache-2.0
"""Operations of libvirt's qemu hook.

Only `prepare` may fail: a failing `started` or `reconnect` kills the running VM. It refuses in three cases: the
region's file cannot be made safe, /dev/shm cannot hold it, or the metadata says required='yes' and oriond does not
answer. A domain whose doorbell has no server cannot start in any case, since QEMU connects to it: it is refused here,
where the reason can be given. Nothing here may call libvirt (the call would wait for this hook) or print to stdout
(restore and migrate take that for the domain's XML).
"""

from __future__ import annotations

import os
import socket
import sys
import syslog
from collections.abc import Mapping, Sequence

from . import backing, domain_xml, doorbell

REPORTED = ("started", "reconnect", "stopped", "release", "restore", "migrate")
ANSWER_SECONDS = 0.2


def main(arguments: Sequence[str], xml: bytes, settings: Mapping[str, str]) -> int:
    """`arguments` are libvirt's: GUEST OP SUBOP EXTRA. Returns the exit status."""
    op = arguments[1] if len(arguments) > 1 else ""
    if op != "prepare" and op not in REPORTED:
        return 0
    try:
        domain = domain_xml.parse(xml)
        if op == "prepare":
            prepare(domain, settings)
        elif op == "release":
            backing.remove(settings.get("ORION_SHM", "/dev/shm"), domain.region)
            doorbell.forget(_run_path(settings, "doorbell"), domain.uuid)
        if op != "prepare":
            tell(op, domain, settings)
    except backing.Refusal as refusal:
        print(f"orion-virt: domain {domain.name}: {refusal}", file=sys.stderr)
        return 1
    except Exception as error:  # the outermost frame: whatever it is, the domain lives
        syslog.syslog(syslog.LOG_ERR, f"orion-virt hook, {op}: {error!r}")
    return 0


def prepare(domain: domain_xml.Domain, settings: Mapping[str, str]) -> None:
    """Makes every region of the domain safe. Raises Refusal."""
    for shmem in domain.shmems:
        if shmem.name != domain.region:
            raise backing.Refusal(
                f"its definition carries the region {shmem.name} of another domain (a clone?); start oriond, which "
                f"gives it one of its own, or remove the <shmem name='{shmem.name}'> element: virsh edit {domain.name}")
    base, group = settings.get("ORION_SHM", "/dev/shm"), settings.get("ORION_QEMU_GROUP", "kvm")
    for shmem in domain.shmems:
        if shmem.server and not shmem.size_bytes:
            raise backing.Refusal(f"its doorbell's server {shmem.server} is not orion-virt's; start oriond, which "
                                  f"corrects it; {doorbell.way_out(domain.name, 0)}")
        backing.replace(base, shmem.name, shmem.size_bytes, group)
        if shmem.server:
            why = doorbell.start(os.path.join(base, shmem.name), shmem.server, group)
            if why:
                raise backing.Refusal(f"its doorbell's server does not start, and QEMU would not without it: {why}; "
                                      f"{doorbell.way_out(domain.name, shmem.size_bytes)}")
    if domain.required and not oriond_answers(settings):
        raise backing.Refusal("its metadata says required='yes' and oriond does not answer; start it "
                              "(systemctl start oriond), or set required='no'")


def _run_path(settings: Mapping[str, str], name: str) -> str:
    return os.path.join(settings.get("ORION_RUN", "/run/orion"), name)


def oriond_answers(settings: Mapping[str, str]) -> bool:
    """Whether control.sock answers a ping at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.connect(_run_path(settings, "control.sock"))
            sock.sendall(b'{"cmd": "ping"}\n')
            return b'"ok":true' in sock.recv(4096).replace(b" ", b"")
        except OSError:
            return False


def tell(op: str, domain: domain_xml.Domain, settings: Mapping[str, str]) -> None:
    """One datagram to oriond, a hint; a daemon that is not there learns it from libvirt later."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(f"{op} {domain.uuid} {domain.name}".encode(), _run_path(settings, "hook.sock"))
        except OSError:
            pass
