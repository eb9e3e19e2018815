# SPDX-License-Identifier: Apache-2.0
"""Takes from a worker what serving a guest does not need: root, the network, files, other programs, other processes.

A guest that takes its worker over through a hole in the driver's compiler then finds little there. Walls of the kernel, each for good:
a network namespace with nothing in it (network_namespaces(7); descriptors that are open stay), Landlock for files (landlock(7)), limits
(getrlimit(2)), a user that nothing else runs as, and two seccomp filters (seccomp(2)): one before the driver starts, and one that takes what
the driver's start needed, before the first byte of a guest is read.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# ---- files: landlock.h ----

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_OF_VERSION_1 = (1 << 13) - 1
_REMOVE_FILE, _MAKE_FILE = 1 << 5, 1 << 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR  # EXECUTE also stands for what is mapped executable
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE

#: What a driver reads when it makes a context or loads its compiler late; what is missing is left out.
_READABLE = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/nvidia", "/etc/localtime", "/sys", "/proc/self", "/proc/driver",
             "/proc/devices", "/proc/modules", "/proc/meminfo", "/proc/cpuinfo", "/proc/filesystems", "/proc/sys", "/proc/stat",
             "/proc/version", "/run/nvidia-persistenced")  # fmt: skip
_WRITABLE = ("/proc/self/task",)  # names of its threads
#: Where the driver keeps what two processes share of an event. Its files there are those of its user; regions are root's.
_SHARED = "/dev/shm"
_DEVICES = ("nvidia*", "nvidia-caps/*", "null", "zero", "full", "urandom", "random")

# ---- system calls: x86-64, linux/seccomp.h, linux/bpf_common.h ----

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # of struct seccomp_data
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_SOCKET, _AF_UNIX = 41, 1
_CLONE, _CLONE_THREAD, _CLONE3 = 56, 0x10000, 435
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP, _SET_MODE_FILTER, _ON_ALL_THREADS = 317, 1, 1

#: By number: other programs and processes, the kernel's settings, namespaces and mounts, new connections, and interfaces on
#: which much of the kernel hangs and the driver nothing.
REFUSED = {
    "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440, "process_mrelease": 448, "connect": 42,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "mknod": 133, "mknodat": 259, "fanotify_init": 300, "vhangup": 153, "lookup_dcookie": 212,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169,
    "swapon": 167, "swapoff": 168, "syslog": 103, "acct": 163, "quotactl": 179, "settimeofday": 164, "adjtimex": 159,
    "clock_settime": 227, "clock_adjtime": 305, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "modify_ldt": 154,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "add_key": 248, "request_key": 249, "keyctl": 250,
    "personality": 135, "kill": 62, "tkill": 200, "pidfd_send_signal": 424, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "msgget": 68, "mq_open": 240,
}  # fmt: skip
#: What the start needed: sockets (at cuInit the driver listens on one, for debuggers), another user, other limits.
REFUSED_LATER = {
    "socket": 41, "bind": 49, "listen": 50, "setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114, "setgroups": 116, "setresuid": 117,
    "setresgid": 119, "setfsuid": 122, "setfsgid": 123, "capset": 126,
}  # fmt: skip
#: The first number that this list's author did not know: new calls do not exist here, and libraries do without.
NEWER = 463

# ---- limits ----

_MIB = 1 << 20
_FILES, _THREADS = 16384, 8192  # threads: of all workers of a domain together, whose user is the same
_LEAST_DATA = 8 << 30


def enter(libraries: Iterable[Path] = (), shares: bool = False) -> list[str]:
    """Puts the calling process behind the walls; call it as root, with one thread, before it becomes another user.

    ``libraries``: directories that it reads besides the system's. ``shares``: it may make files in memory, for the driver: not for a user
    to whom those of others are open. Returns what this kernel lacks, in words for the log; a
    wall that is there and cannot be put up is an OSError.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise OSError(errno.EBUSY, "a worker is confined with one thread; something has started another")
    _leave_the_network()
    _limit()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if not _close_files(libraries, shares):
        return ["it keeps the files that its user may open: this kernel has no Landlock"]
    return []


def refuse_calls() -> None:
    """The filter for the start of the driver; after `enter`, with one thread. Raises OSError."""
    _install(_filter(sorted(REFUSED.values())), 0)


def refuse_more() -> None:
    """The filter for the rest of its life, on all its threads: call it when the worker is who it shall be. Raises OSError."""
    _install(_list(sorted(REFUSED_LATER.values())), _ON_ALL_THREADS)


def landlock_version() -> int:
    """The kernel's, 0 where it has none or it is switched off."""
    return max(0, int(_libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _leave_the_network() -> None:
    """Where it may. Under systemd it may not, since the unit gives no right to namespaces, and elsewhere than as root: there the filters
    alone keep it from sockets, and what they let through, the host's abstract ones, nobody can reach without a socket."""
    if _libc.unshare(0x40000000) < 0 and ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        _check(-1, "a network namespace")


def _limit() -> None:
    """Descriptors, threads of its user, private memory: a worker that asks for more than a quarter of the host's is refused it."""
    data = max(_LEAST_DATA, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
    for what, most in ((resource.RLIMIT_NOFILE, _FILES), (resource.RLIMIT_NPROC, _THREADS), (resource.RLIMIT_DATA, data),
                       (resource.RLIMIT_MSGQUEUE, 0)):  # fmt: skip
        hard = resource.getrlimit(what)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))


def _close_files(libraries: Iterable[Path], shares: bool) -> bool:
    attributes = ctypes.c_uint64(_ALL_OF_VERSION_1)
    ruleset = _libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    try:
        for path in [*map(Path, _READABLE), *libraries, Path(sys.prefix), Path(sys.base_prefix)]:
            _allow(ruleset, path, _READ)
        for path in [*map(Path, _WRITABLE), *(path for pattern in _DEVICES for path in Path("/dev").glob(pattern))]:
            _allow(ruleset, path, _READ | _WRITE_FILE)
        if shares:
            _allow(ruleset, Path(_SHARED), _READ_FILE | _WRITE_FILE | _MAKE_FILE | _REMOVE_FILE)
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


def _install(program: bytes, flags: int) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    result = _libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, flags, ctypes.c_char_p(header))
    if result > 0:  # the number of a thread that has filters of its own
        raise OSError(errno.EBUSY, f"seccomp: thread {result} cannot be given the filter")
    _check(result, "seccomp")


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _list(numbers: list[int]) -> bytes:
    """BPF: the calls with these numbers are refused with EPERM, all others allowed."""
    last = len(numbers)
    program = [_step(_LOAD, _NUMBER)]
    program += [_step(_JUMP_EQUAL, number, last - at) for at, number in enumerate(numbers)]
    return b"".join([*program, _step(_RETURN, _ALLOW), _refuse(errno.EPERM)])


def _filter(numbers: list[int]) -> bytes:
    """As `_list`; and another architecture's calls end the process, newer ones do not exist, sockets are of AF_UNIX only, and what is
    cloned is a thread (glibc takes the older call, whose flags can be seen, where there is no clone3)."""
    head = [_step(_LOAD, _ARCHITECTURE), _step(_JUMP_EQUAL, _ARCH_X86_64, 1), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER),
            _step(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _refuse(errno.EPERM),
            _step(_JUMP_AT_LEAST, NEWER, 1), _step(_JUMP_EQUAL, _CLONE3, 0, 1), _refuse(errno.ENOSYS),
            _step(_JUMP_EQUAL, _SOCKET, 0, 4), _step(_LOAD, _FIRST_ARGUMENT), _step(_JUMP_EQUAL, _AF_UNIX, 0, 1), _step(_RETURN, _ALLOW),
            _refuse(errno.EPERM),
            _step(_JUMP_EQUAL, _CLONE, 0, 4), _step(_LOAD, _FIRST_ARGUMENT), _step(_JUMP_ANY_BIT, _CLONE_THREAD, 0, 1),
            _step(_RETURN, _ALLOW), _refuse(errno.EPERM)]  # fmt: skip
    return b"".join(head) + _list(numbers)
