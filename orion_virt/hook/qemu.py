# SPDX-License-Identifier: Apache-2.0
"""Operations of libvirt's qemu hook.

Only `prepare` may fail: a failing `started` or `reconnect` kills the running VM. It refuses in three cases: the
region's file cannot be made safe, /dev/shm cannot hold it, or the metadata says required='yes' and oriond does not
answer. A domain whose doorbell has no server cannot start in any case, since QEMU connects to it: it is refused here,
where the reason can be given. Nothing here may call libvirt (the call would wait for this hook) or print to stdout
(restore and migrate take that for the domain's XML). Each call leaves one line in syslog.
"""

from __future__ import annotations

import os
import sys
import syslog
import time
from collections.abc import Mapping, Sequence

from . import backing, domain_xml, doorbell, label, owner

REPORTED = ("started", "reconnect", "attach", "stopped", "release", "restore", "migrate")
ANSWER_SECONDS = 0.2


def main(arguments: Sequence[str], xml: bytes, settings: Mapping[str, str]) -> int:
    """`arguments` are libvirt's: GUEST OP SUBOP EXTRA. Returns the exit status."""
    op = arguments[1] if len(arguments) > 1 else ""
    guest = arguments[0] if arguments else "?"
    before = time.monotonic()
    priority, status = syslog.LOG_INFO, 0
    try:
        domain = domain_xml.parse(xml)
        done = act(op, domain, settings)
    except backing.Refusal as refusal:
        print(f"orion-virt: domain {guest}: {refusal}", file=sys.stderr)
        priority, status, done = syslog.LOG_ERR, 1, f"refused: {refusal}"
    except Exception as error:  # the outermost frame: whatever it is, the domain lives
        priority, done = syslog.LOG_ERR, f"failed, the domain goes on: {error!r}"
    syslog.syslog(priority, f"orion-virt hook: {guest} {op or '?'}: {done} ({(time.monotonic() - before) * 1e3:.0f} ms)")
    return status


def act(op: str, domain: domain_xml.Domain, settings: Mapping[str, str]) -> str:
    """Does what `op` asks for; what was done, for the log. Raises Refusal in `prepare` alone."""
    if op == "prepare":
        return prepare(domain, settings)
    done = ""
    if op == "start":
        return set_label(domain, settings)
    if op == "release":
        done = "region removed, " if backing.remove(_shm(settings), domain.region) else ""
        doorbell.forget(_run_path(settings, "doorbell"), domain.uuid)
    if op not in REPORTED:
        return "nothing to do"
    return done + tell(op, domain, settings)


def _shm(settings: Mapping[str, str]) -> str:
    return settings.get("ORION_SHM") or "/dev/shm"


def prepare(domain: domain_xml.Domain, settings: Mapping[str, str]) -> str:
    """Makes the domain's region safe. Raises Refusal."""
    for shmem in domain.shmems:
        if shmem.name != domain.region:
            raise backing.Refusal(
                f"its definition carries the region {shmem.name} of another domain (a clone?); start oriond, which "
                f"gives it one of its own, or remove the <shmem name='{shmem.name}'> element: virsh edit {domain.name}")
        if shmem.server and not shmem.size_bytes:
            raise backing.Refusal(f"its doorbell's server {shmem.server} is not orion-virt's; start oriond, which "
                                  f"corrects it; {doorbell.way_out(domain.name, 0)}")
    if domain.required and not oriond_answers(settings):
        raise backing.Refusal("its metadata says required='yes' and oriond does not answer; start it "
                              "(systemctl start oriond), or set required='no'")
    if not domain.shmems:
        return "it has no region"
    try:
        found = owner.find(settings.get("ORION_QEMU_GROUP") or owner.AUTO)
    except owner.Unknown as error:
        raise backing.Refusal(f"its region cannot be given to QEMU: {error}, then run `orion-virt hook install`") from error
    for shmem in domain.shmems:
        backing.replace(_shm(settings), shmem.name, shmem.size_bytes, found.gid)
        if shmem.server:
            why = doorbell.start(os.path.join(_shm(settings), shmem.name), shmem.server, found.group)
            if why:
                raise backing.Refusal(f"its doorbell's server does not start, and QEMU would not without it: {why}; "
                                      f"{doorbell.way_out(domain.name, shmem.size_bytes)}")
    return f"region of {domain.shmems[0].size_bytes >> 20} MiB made, for group {found.group}"


def set_label(domain: domain_xml.Domain, settings: Mapping[str, str]) -> str:
    """libvirt has chosen the domain's labels by now, and QEMU has not opened the file yet."""
    if not domain.shmems or not domain.label or not label.is_on():
        return "nothing to do"
    label.apply(os.path.join(_shm(settings), domain.region), domain.label)
    return f"region labelled {domain.label}"


def _run_path(settings: Mapping[str, str], name: str) -> str:
    return os.path.join(settings.get("ORION_RUN", "/run/orion"), name)


def oriond_answers(settings: Mapping[str, str]) -> bool:
    """Whether control.sock answers a ping within ANSWER_SECONDS, connection and answer together."""
    import socket  # only here and in `tell`: it takes as long to import as the rest

    deadline = time.monotonic() + ANSWER_SECONDS
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect(_run_path(settings, "control.sock"))
            sock.sendall(b'{"cmd": "ping"}\n')
            while not answer.endswith(b"\n"):
                sock.settimeout(max(1e-3, deadline - time.monotonic()))
                part = sock.recv(4096)
                if not part:
                    break
                answer += part
        except OSError:
            return False
    return b'"ok":true' in answer.replace(b" ", b"")


def tell(op: str, domain: domain_xml.Domain, settings: Mapping[str, str]) -> str:
    """One datagram to oriond, a hint; a daemon that is not there learns it from libvirt later."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(f"{op} {domain.uuid} {domain.name}".encode(), _run_path(settings, "hook.sock"))
        except OSError as error:
            return f"oriond is not told ({error.strerror})"
    return "oriond is told"
