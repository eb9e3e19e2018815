# SPDX-License-Identifier: Apache-2.0
"""Takes from a worker what serving a guest does not need: the network, files, other programs, other processes.

A guest that takes its worker over through a hole in the driver's compiler then finds little there. Three walls of the kernel, each for
good: a network namespace with nothing in it (network_namespaces(7); descriptors that are open stay), Landlock for files
(landlock(7)), and a seccomp filter for system calls (seccomp(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# ---- files: landlock.h ----

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_OF_VERSION_1 = (1 << 13) - 1
_READ = _EXECUTE | _READ_FILE | _READ_DIR  # EXECUTE also stands for what is mapped executable
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE

#: What a driver reads when it makes a context or loads its compiler late; what is missing is left out.
_READABLE = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/nvidia", "/etc/localtime", "/sys", "/proc/self", "/proc/driver",
             "/proc/devices", "/proc/modules", "/proc/meminfo", "/proc/cpuinfo", "/proc/filesystems", "/proc/sys", "/proc/stat",
             "/proc/version", "/run/nvidia-persistenced")  # fmt: skip
_WRITABLE = ("/proc/self/task",)  # names of its threads
_DEVICES = ("nvidia*", "nvidia-caps/*", "null", "zero", "full", "urandom", "random")

# ---- system calls: x86-64, linux/seccomp.h, linux/bpf_common.h ----

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_SOCKET, _AF_UNIX = 41, 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2

#: By number: other programs and processes, the kernel's settings, namespaces and mounts, new connections, and interfaces on
#: which much of the kernel hangs and the driver nothing.
REFUSED = {
    "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "pidfd_getfd": 438, "connect": 42,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsmount": 432, "name_to_handle_at": 303, "open_by_handle_at": 304, "mknod": 133, "mknodat": 259,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169,
    "swapon": 167, "swapoff": 168, "syslog": 103, "acct": 163, "quotactl": 179, "settimeofday": 164, "adjtimex": 159,
    "clock_settime": 227, "clock_adjtime": 305, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "add_key": 248, "request_key": 249, "keyctl": 250,
    "personality": 135, "kill": 62, "tkill": 200, "pidfd_send_signal": 424, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
}  # fmt: skip


def enter(libraries: Iterable[Path] = ()) -> list[str]:
    """Puts the calling process behind the walls; call it as root, with one thread, before it becomes another user.

    ``libraries``: directories that it reads besides the system's. Returns what this kernel lacks, in words for the log; a
    wall that is there and cannot be put up is an OSError.
    """
    missing = []
    if os.geteuid() == 0:
        _leave_the_network()
    else:
        missing.append("it keeps the network: oriond is not root")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if not _close_files(libraries):
        missing.append("it keeps the files that its user may open: this kernel has no Landlock")
    return missing


def refuse_calls() -> None:
    """The filter of system calls; after `enter`, as the user that serves the guest. Raises OSError."""
    program = ctypes.create_string_buffer(_filter(sorted(REFUSED.values())))
    header = struct.pack("HxxxxxxP", len(program.raw) // 8, ctypes.addressof(program))
    _check(_libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0), "seccomp")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _leave_the_network() -> None:
    """The systemd unit gives no right to namespaces: a drop-in does, see docs/reference.md. Raises OSError."""
    _check(_libc.unshare(0x40000000), "a network namespace (under systemd: CAP_SYS_ADMIN and RestrictNamespaces=net)")


def _close_files(libraries: Iterable[Path]) -> bool:
    attributes = ctypes.c_uint64(_ALL_OF_VERSION_1)
    ruleset = _libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    try:
        for path in [*map(Path, _READABLE), *libraries, Path(sys.prefix), Path(sys.base_prefix)]:
            _allow(ruleset, path, _READ)
        for path in [*map(Path, _WRITABLE), *(path for pattern in _DEVICES for path in Path("/dev").glob(pattern))]:
            _allow(ruleset, path, _READ | _WRITE_FILE)
        _check(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", rights if path.is_dir() else rights & _ON_FILES, fd)
        _check(_libc.syscall(_SYS_ADD_RULE, ruleset, 1, ctypes.c_char_p(rule), 0), f"landlock for {path}")
    finally:
        os.close(fd)


def _filter(numbers: list[int]) -> bytes:
    """BPF: another architecture's calls end the process, those listed are refused with EPERM, the others allowed. Sockets are of
    AF_UNIX only: at cuInit the driver listens on one, for debuggers, whom its network namespace keeps out."""
    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    last = len(numbers) + 3
    program = [step(_LOAD, 4), step(_JUMP_EQUAL, _ARCH_X86_64, 1), step(_RETURN, _KILL), step(_LOAD, 0)]
    program += [step(_JUMP_AT_LEAST, _X32_BIT, last + 1)]
    program += [step(_JUMP_EQUAL, number, last - at) for at, number in enumerate(numbers)]
    program += [step(_JUMP_EQUAL, _SOCKET, 0, 2), step(_LOAD, 16), step(_JUMP_EQUAL, _AF_UNIX, 0, 1)]
    return b"".join([*program, step(_RETURN, _ALLOW), step(_RETURN, _REFUSE)])
