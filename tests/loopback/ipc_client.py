# SPDX-License-Identifier: Apache-2.0
"""Two CUDA processes that share: `ipc_client.py CASE` starts the other one, `ipc_client.py CASE FD` is the other one.

Both speak over a unix socket pair; prints OK or what was wrong.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p

from memory_client import HOST_FN, Access, Prop, answers, call, device, expect, pattern, setup, stream

TOKEN = c_char * 64
SIZE = (3 << 20) + 500


class Handle(ctypes.Structure):
    """CUipcMemHandle and its sisters, which go by value."""

    _fields_ = [("bytes", TOKEN)]


class PoolProps(ctypes.Structure):
    _fields_ = [("type", c_uint), ("handles", c_uint), ("where", c_uint), ("id", c_int), ("meta", c_void_p),
                ("most", c_size_t), ("rest", c_char * 56)]  # fmt: skip


class Peer:
    """The other process: objects and descriptors there and back."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self.sock, self.process = sock, process

    def send(self, what: object, *fds: int) -> None:
        socket.send_fds(self.sock, [pickle.dumps(what)], fds)

    def get(self) -> object:
        return self.get_fds()[0]

    def get_fds(self) -> tuple[object, list[int]]:
        raw, fds, _, _ = socket.recv_fds(self.sock, 1 << 16, 4)
        if not raw:
            sys.exit("the other process has gone")
        return pickle.loads(raw), fds

    def end(self) -> None:
        assert self.process is not None
        self.sock.close()
        status = self.process.wait(30)
        if status:
            sys.exit(f"the other process ended with {status}")


def ours(handle: Handle) -> bytes:
    return ctypes.string_at(byref(handle), 64)


def theirs(raw: object) -> Handle:
    assert isinstance(raw, bytes)
    return Handle.from_buffer_copy(raw)


def free_bytes() -> int:
    free, total = c_size_t(), c_size_t()
    call("cuMemGetInfo_v2", byref(free), byref(total))
    return free.value


def read(pointer: int, size: int) -> bytes:
    back = (c_char * size)()
    call("cuMemcpyDtoH_v2", back, c_uint64(pointer), c_size_t(size))
    return back.raw


def write(pointer: int, data: bytes) -> None:
    call("cuMemcpyHtoD_v2", c_uint64(pointer), data, c_size_t(len(data)))
    call("cuCtxSynchronize")  # the copy has read the data when it returns, other processes see it later


def handle_of(pointer: int) -> Handle:
    handle = Handle()
    call("cuIpcGetMemHandle", byref(handle), c_uint64(pointer))
    return handle


def opened(raw: object) -> int:
    pointer = c_uint64()
    call("cuIpcOpenMemHandle_v2", byref(pointer), theirs(raw), 1)
    return pointer.value


def refused(raw: object, want: int) -> None:
    answers("cuIpcOpenMemHandle_v2", want, byref(c_uint64()), theirs(raw), 1)


# ---- cases: one function for who shows, one for who opens ----


def memory(peer: Peer) -> None:
    small, large = device(1000), device(SIZE)
    write(small, pattern(1000, 1))
    write(large, pattern(SIZE, 2))
    handle = handle_of(large)
    assert ours(handle_of(large + 700)) == ours(handle), "a handle is that of the allocation"
    assert ours(handle_of(small)) != ours(handle)
    refused(ours(handle), 201)  # the process that shows it
    refused(bytes(64), 1)
    answers("cuIpcGetMemHandle", 1, byref(handle), c_uint64(large + (1 << 40)))
    answers("cuIpcGetMemHandle", 1, None, c_uint64(large))
    peer.send((ours(handle_of(small)), ours(handle)))
    assert peer.get() == "written"
    expect(read(large, SIZE), pattern(SIZE, 3), "what the other process wrote")
    call("cuMemFree_v2", c_uint64(small))
    peer.send("freed")
    assert peer.get() == "done"


def memory_other(peer: Peer) -> None:
    small_handle, large_handle = peer.get()  # type: ignore[misc]
    device(4096)  # pools and chunks of our own stay ours
    before = free_bytes()
    small, large = opened(small_handle), opened(large_handle)
    assert free_bytes() == before, "booked twice"
    assert opened(large_handle) == large, "opened twice: the same pointer"
    expect(read(small, 1000), pattern(1000, 1), "small")
    expect(read(large, SIZE), pattern(SIZE, 2), "large")
    base, size = c_uint64(), c_size_t()
    call("cuMemGetAddressRange_v2", byref(base), byref(size), c_uint64(large + 5))
    assert (base.value, size.value) == (large, SIZE)
    answers("cuMemcpyDtoH_v2", 1, (c_char * 1000)(), c_uint64(large + SIZE - 3), c_size_t(1000))
    answers("cuMemFree_v2", 1, c_uint64(large))
    assert free_bytes() == before, "a refused free books nothing"
    answers("cuIpcGetMemHandle", 1, byref(Handle()), c_uint64(large))
    write(large, pattern(SIZE, 3))
    peer.send("written")
    for pointer in (large, large, small):
        call("cuIpcCloseMemHandle", c_uint64(pointer))
    answers("cuIpcCloseMemHandle", 1, c_uint64(large))
    answers("cuMemcpyDtoH_v2", 1, (c_char * 8)(), c_uint64(large), c_size_t(8))
    assert peer.get() == "freed"
    refused(small_handle, 1)
    peer.send("done")


def events(peer: Peer) -> None:
    plain, shown, handle, s = c_void_p(), c_void_p(), Handle(), stream()
    gate = threading.Event()
    hold = HOST_FN(lambda _: gate.wait(20) and None)
    call("cuEventCreate", byref(plain), 2)
    answers("cuIpcGetEventHandle", 1, byref(handle), plain)
    call("cuEventCreate", byref(shown), 6)  # DISABLE_TIMING, INTERPROCESS
    call("cuIpcGetEventHandle", byref(handle), shown)
    answers("cuIpcOpenEventHandle", 201, byref(c_void_p()), theirs(ours(handle)))
    memory_ = device(100)
    call("cuMemsetD8_v2", c_uint64(memory_), ctypes.c_ubyte(1), c_size_t(100))
    call("cuLaunchHostFunc", s, hold, None)
    call("cuMemsetD8Async", c_uint64(memory_), ctypes.c_ubyte(2), c_size_t(100), s)
    call("cuEventRecord", shown, s)
    peer.send((ours(handle), ours(handle_of(memory_))))
    assert peer.get() == "waits"
    answers("cuEventQuery", 600, shown)
    gate.set()
    assert peer.get() == "recorded"
    call("cuEventSynchronize", shown)  # what the other process recorded
    expect(read(memory_, 100), bytes([3]) * 100, "in the other process's order")
    call("cuEventDestroy_v2", shown)
    peer.send("destroyed")
    assert peer.get() == "done"


def events_other(peer: Peer) -> None:
    event_handle, memory_handle = peer.get()  # type: ignore[misc]
    event, s = c_void_p(), stream()
    pointer = opened(memory_handle)
    answers("cuIpcOpenEventHandle", 205, byref(event), theirs(bytes(64)))
    call("cuIpcOpenEventHandle", byref(event), theirs(event_handle))
    answers("cuEventQuery", 600, event)
    call("cuStreamWaitEvent", s, event, 0)
    back = c_uint64()
    call("cuMemAllocHost_v2", byref(back), c_size_t(100))
    call("cuMemcpyAsync", back, c_uint64(pointer), c_size_t(100), s)
    answers("cuStreamQuery", 600, s)
    peer.send("waits")
    call("cuEventSynchronize", event)
    call("cuStreamSynchronize", s)
    expect(ctypes.string_at(back.value, 100), bytes([2]) * 100, "after the event")
    call("cuMemsetD8Async", c_uint64(pointer), ctypes.c_ubyte(3), c_size_t(100), s)
    call("cuEventRecord", event, s)
    peer.send("recorded")
    assert peer.get() == "destroyed"
    call("cuEventDestroy_v2", event)
    peer.send("done")


def mapped(handle: c_uint64, size: int) -> int:
    at = c_uint64()
    call("cuMemAddressReserve", byref(at), c_size_t(size), c_size_t(0), c_uint64(0), c_uint64(0))
    call("cuMemMap", at, c_size_t(size), c_size_t(0), handle, c_uint64(0))
    call("cuMemSetAccess", at, c_size_t(size), byref(Access(1, 0, 3)), c_size_t(1))
    return at.value


def unmapped(at: int, size: int) -> None:
    call("cuMemUnmap", c_uint64(at), c_size_t(size))
    call("cuMemAddressFree", c_uint64(at), c_size_t(size))


def vmm(peer: Peer) -> None:
    size, handle, again, fd = 4 << 20, c_uint64(), c_uint64(), c_int(-1)
    before = free_bytes()
    answers("cuMemCreate", 801, byref(handle), c_size_t(size), byref(Prop(type=1, where=1, handles=8)), c_uint64(0))
    # NCCL asks how much memory of the host's processors there is in one piece, and takes /dev/shm when it gets none
    on_host = Prop(type=1, where=3, handles=1)
    call("cuMemGetAllocationGranularity", byref(c_size_t()), byref(on_host), 0)
    answers("cuMemCreate", 801, byref(handle), c_size_t(size), byref(on_host), c_uint64(0))
    call("cuMemCreate", byref(handle), c_size_t(size), byref(Prop(type=1, where=1)), c_uint64(0))
    answers("cuMemExportToShareableHandle", 1, byref(fd), handle, 1, c_uint64(0))  # no such type was asked for
    call("cuMemRelease", handle)
    call("cuMemCreate", byref(handle), c_size_t(size), byref(Prop(type=1, where=1, handles=1)), c_uint64(0))
    at = mapped(handle, size)
    write(at, pattern(size, 4))
    call("cuMemRetainAllocationHandle", byref(again), c_void_p(at + 12345))
    assert again.value == handle.value, "the same handle, held twice"
    call("cuMemRelease", again)
    call("cuMemExportToShareableHandle", byref(fd), handle, 1, c_uint64(0))
    answers("cuMemExportToShareableHandle", 1, byref(fd), handle, 8, c_uint64(0))
    assert os.fstat(fd.value).st_size > 64
    copy = os.dup(fd.value)
    os.close(fd.value)
    own = c_uint64()
    call("cuMemImportFromShareableHandle", byref(own), c_void_p(copy), 1)
    peer.send("fd", copy)
    os.close(copy)
    call("cuMemRelease", own)
    assert free_bytes() == before - size
    assert peer.get() == "written"
    expect(read(at, size), pattern(size, 5), "what the other process wrote")
    call("cuMemRelease", handle)
    answers("cuMemRelease", 1, handle)
    call("cuMemRetainAllocationHandle", byref(again), c_void_p(at))
    call("cuMemRelease", again)
    unmapped(at, size)
    answers("cuMemRetainAllocationHandle", 1, byref(again), c_void_p(at))
    assert free_bytes() == before, "given back here"
    peer.send("gone")
    assert peer.get() == "done"


def vmm_other(peer: Peer) -> None:
    size, handle, prop = 4 << 20, c_uint64(), Prop()
    _, (fd,) = peer.get_fds()
    before = free_bytes()
    answers("cuMemImportFromShareableHandle", 1, byref(handle), c_void_p(0), 1)  # a descriptor of something else
    answers("cuMemImportFromShareableHandle", 1, byref(handle), c_void_p(fd), 8)
    call("cuMemImportFromShareableHandle", byref(handle), c_void_p(fd), 1)
    os.close(fd)
    call("cuMemGetAllocationPropertiesFromHandle", byref(prop), handle)
    assert (prop.type, prop.handles, prop.where, prop.id) == (1, 1, 1, 0)
    at = mapped(handle, size)
    assert free_bytes() == before, "booked twice"
    expect(read(at, size), pattern(size, 4), "imported")
    write(at, pattern(size, 5))
    peer.send("written")
    assert peer.get() == "gone"
    expect(read(at, size), pattern(size, 5), "memory that only we have")
    assert booked(before) == size, "whoever is left books it"
    unmapped(at, size)
    assert booked(before) == size, "held by its handle"
    call("cuMemRelease", handle)
    assert free_bytes() == before
    peer.send("done")


def booked(before: int) -> int:
    """Bytes taken since; word of a new owner comes by the daemon."""
    until = time.monotonic() + 5
    while free_bytes() == before and time.monotonic() < until:
        time.sleep(0.01)
    return before - free_bytes()


def pool(peer: Peer) -> None:
    made, plain, p, fd, data, s = c_void_p(), c_void_p(), c_uint64(), c_int(-1), Handle(), stream()
    call("cuMemPoolCreate", byref(plain), byref(PoolProps(type=1, where=1)))
    answers("cuMemPoolExportToShareableHandle", 1, byref(fd), plain, 1, c_uint64(0))
    call("cuMemPoolCreate", byref(made), byref(PoolProps(type=1, where=1, handles=1)))
    call("cuMemPoolExportToShareableHandle", byref(fd), made, 1, c_uint64(0))
    call("cuMemAllocFromPoolAsync", byref(p), c_size_t(5000), made, s)
    call("cuStreamSynchronize", s)
    write(p.value, pattern(5000, 6))
    call("cuMemPoolExportPointer", byref(data), p)
    answers("cuMemPoolExportPointer", 1, byref(data), c_uint64(device(5000)))
    answers("cuIpcGetMemHandle", 1, byref(Handle()), p)
    peer.send(ours(data), fd.value)
    os.close(fd.value)
    assert peer.get() == "written"
    expect(read(p.value, 5000), pattern(5000, 7), "what the other process wrote")
    call("cuMemFreeAsync", p, s)
    call("cuStreamSynchronize", s)
    call("cuMemPoolDestroy", made)


def pool_other(peer: Peer) -> None:
    raw, (fd,) = peer.get_fds()
    imported, p, s, data = c_void_p(), c_uint64(), stream(), theirs(raw)
    before = free_bytes()
    answers("cuMemPoolImportFromShareableHandle", 1, byref(imported), c_void_p(0), 1, c_uint64(0))
    call("cuMemPoolImportFromShareableHandle", byref(imported), c_void_p(fd), 1, c_uint64(0))
    answers("cuMemAllocFromPoolAsync", 1, byref(p), c_size_t(100), imported, s)
    answers("cuMemPoolImportPointer", 1, byref(p), imported, byref(theirs(bytes(64))))
    call("cuMemPoolImportPointer", byref(p), imported, byref(data))
    expect(read(p.value, 5000), pattern(5000, 6), "imported")
    write(p.value, pattern(5000, 7))
    assert free_bytes() == before, "booked twice"
    call("cuMemFreeAsync", p, s)
    call("cuStreamSynchronize", s)
    answers("cuMemcpyDtoH_v2", 1, (c_char * 8)(), p, c_size_t(8))
    call("cuMemPoolDestroy", imported)
    peer.send("written")


def shower_dies(peer: Peer) -> None:
    """Killed in use: the other process goes on with what it has, books it, and opens nothing more."""
    at = device(SIZE)
    write(at, pattern(SIZE, 8))
    peer.send((ours(handle_of(at)), ours(handle_of(device(100)))))
    assert peer.get() == "opened"
    os.kill(os.getpid(), signal.SIGKILL)


def shower_dies_other(peer: Peer) -> None:
    handle, more = peer.get()  # type: ignore[misc]
    before = free_bytes()
    at = opened(handle)
    peer.send("opened")
    while peer.sock.recv(1):
        pass
    assert booked(before) == SIZE, "whoever is left books it"
    expect(read(at, SIZE), pattern(SIZE, 8), "memory of a dead process")
    refused(more, 1)
    call("cuIpcCloseMemHandle", c_uint64(at))
    assert free_bytes() == before
    print("OK", flush=True)


def opener_dies(peer: Peer) -> None:
    """Killed in use: nothing changes for who shows, and its memory is whole when it frees it."""
    before = free_bytes()
    at = device(SIZE)
    write(at, pattern(SIZE, 9))
    peer.send(ours(handle_of(at)))
    assert not peer.sock.recv(1) and peer.process
    assert peer.process.wait(30) == -signal.SIGKILL
    peer.process = None
    expect(read(at, SIZE), pattern(SIZE, 9), "after the other's death")
    call("cuMemFree_v2", c_uint64(at))
    assert free_bytes() == before


def opener_dies_other(peer: Peer) -> None:
    expect(read(opened(peer.get()), SIZE), pattern(SIZE, 9), "opened")
    os.kill(os.getpid(), signal.SIGKILL)


def two(peer: Peer) -> None:
    """Shown by the first vGPU of one process, opened on both of another."""
    at = device(5000)
    write(at, pattern(5000, 1))
    peer.send(ours(handle_of(at)))
    assert peer.get() == "written"
    expect(read(at, 5000), pattern(5000, 2), "written by the second vGPU")


def two_other(peer: Peer) -> None:
    handle, contexts, got = peer.get(), [c_void_p(), c_void_p()], []
    for i, context in enumerate(contexts):
        call("cuDevicePrimaryCtxRetain", byref(context), i)
        call("cuCtxSetCurrent", context)
        got.append(opened(handle))
        expect(read(got[-1], 5000), pattern(5000, 1), f"vGPU {i}")
    own = device(5000)
    write(own, pattern(5000, 2))
    call("cuMemcpyDtoD_v2", c_uint64(got[1]), c_uint64(own), c_size_t(5000))
    call("cuCtxSynchronize")
    for pointer, context in zip(got, contexts):
        call("cuCtxSetCurrent", context)
        call("cuIpcCloseMemHandle", c_uint64(pointer))
    peer.send("written")


def context_ends(peer: Peer) -> None:
    at = device(5000)
    write(at, pattern(5000, 1))
    peer.send(ours(handle_of(at)))
    assert peer.get() == "done"


def context_ends_other(peer: Peer) -> None:
    """What a context opened is gone with it, and can be opened again."""
    handle = peer.get()
    at = opened(handle)
    call("cuDevicePrimaryCtxReset_v2", 0)
    setup()
    answers("cuMemcpyDtoH_v2", 1, (c_char * 8)(), c_uint64(at), c_size_t(8))
    expect(read(opened(handle), 5000), pattern(5000, 1), "after the reset")
    peer.send("done")


# ---- pages of a file in memory, registered by both: NCCL's way where GPUs cannot reach each other ----

LENGTH = (2 << 20) + 8192


class Pages:
    """A mapping of the file that outlives registration."""

    def __init__(self, fd: int) -> None:
        self.map = mmap.mmap(fd, LENGTH)
        self.at = ctypes.addressof(c_char.from_buffer(self.map))

    def register(self) -> int:
        pointer = c_uint64()
        call("cuMemHostRegister_v2", c_void_p(self.at), c_size_t(LENGTH), 3)  # PORTABLE, DEVICEMAP
        call("cuMemHostGetDevicePointer_v2", byref(pointer), c_void_p(self.at), 0)
        assert pointer.value == self.at
        return pointer.value


def pages(peer: Peer) -> None:
    fd = os.memfd_create("pages")
    os.truncate(fd, LENGTH)
    mine = Pages(fd)
    mine.map[:] = pattern(LENGTH, 1)
    pointer = mine.register()
    assert mine.map[:] == pattern(LENGTH, 1), "the contents come along"
    peer.send("registered", fd)
    assert peer.get() == "set"
    assert mine.map[:100] == bytes([5]) * 100, "what the other's GPU wrote"
    mine.map[:3] = b"abc"
    call("cuMemsetD8_v2", c_uint64(pointer + LENGTH - 50), ctypes.c_ubyte(6), c_size_t(50))
    call("cuCtxSynchronize")
    peer.send("written")
    assert peer.get() == "seen"
    call("cuMemHostUnregister", c_void_p(mine.at))
    peer.send("unregistered")
    assert peer.get() == "done"
    want = b"abc" + bytes([5]) * 97 + pattern(LENGTH, 1)[100:-50] + bytes([6]) * 50
    assert mine.map[:] == want and os.pread(fd, LENGTH, 0) == want, "the file has it all in the end"
    mine.register()
    assert mine.map[:] == want, "registered again"


def pages_other(peer: Peer) -> None:
    _, (fd,) = peer.get_fds()
    mine = Pages(fd)
    half = c_void_p(mine.at + 4096)
    answers("cuMemHostRegister_v2", 801, half, c_size_t(4096), 3)  # a part of what is shared otherwise
    pointer = mine.register()
    assert mine.map[:] == pattern(LENGTH, 1)
    call("cuMemsetD8_v2", c_uint64(pointer), ctypes.c_ubyte(5), c_size_t(100))
    call("cuCtxSynchronize")
    peer.send("set")
    assert peer.get() == "written"
    back = device(LENGTH)
    call("cuMemcpyHtoD_v2", c_uint64(back), c_void_p(mine.at), c_size_t(LENGTH))
    assert (read(back, 3), read(back + LENGTH - 50, 50)) == (b"abc", bytes([6]) * 50)
    peer.send("seen")
    assert peer.get() == "unregistered"
    assert mine.map[:3] == b"abc"
    call("cuMemHostUnregister", c_void_p(mine.at))
    answers("cuMemHostUnregister", 713, c_void_p(mine.at))
    peer.send("done")


def late(peer: Peer) -> None:
    """A counter in shared pages, which the other counts down before it registers them too."""
    fd = os.memfd_create("late")
    os.truncate(fd, LENGTH)
    mine = Pages(fd)
    mine.map[LENGTH - 8 : LENGTH - 4] = (7).to_bytes(4, "little")
    mine.register()
    mine.map[LENGTH - 4 :] = b"mine"
    mine.map[4096:4100] = b"mine"
    peer.send("registered", fd)
    assert peer.get() == "counted"
    assert mine.map[LENGTH - 8 :] == (5).to_bytes(4, "little") + b"mine"
    assert mine.map[4096:4100] == b"mine"
    peer.send("done")


def late_other(peer: Peer) -> None:
    _, (fd,) = peer.get_fds()
    kept = []
    for left in (6, 5):
        mine = Pages(fd)
        kept.append(mine)
        mine.map[LENGTH - 8 : LENGTH - 4] = left.to_bytes(4, "little")
        mine.register()
        assert mine.map[LENGTH - 8 :] == left.to_bytes(4, "little") + b"mine"
        assert mine.map[4096:4100] == b"mine"
    peer.send("counted")
    assert peer.get() == "done"


def tcp(peer: Peer | None) -> None:
    """Without a region nothing proves which processes belong together."""
    value, handle, fd = c_int(-1), c_uint64(), c_int()
    for attribute in (103, 119, 125):
        call("cuDeviceGetAttribute", byref(value), attribute, 0)
        assert value.value == 0, attribute
    answers("cuIpcGetMemHandle", 801, byref(Handle()), c_uint64(device(100)))
    answers("cuIpcOpenMemHandle_v2", 801, byref(c_uint64()), Handle(), 1)
    answers("cuIpcOpenEventHandle", 801, byref(c_void_p()), Handle())
    prop = Prop(type=1, where=1, handles=1)
    answers("cuMemCreate", 801, byref(handle), c_size_t(2 << 20), byref(prop), c_uint64(0))
    answers("cuMemImportFromShareableHandle", 801, byref(handle), c_void_p(0), 1)
    answers("cuMemPoolImportPointer", 801, byref(c_uint64()), c_void_p(0), byref(Handle()))
    call("cuMemCreate", byref(handle), c_size_t(2 << 20), byref(Prop(type=1, where=1)), c_uint64(0))
    answers("cuMemExportToShareableHandle", 801, byref(fd), handle, 1, c_uint64(0))


def show(peer: Peer | None) -> None:
    """A token on standard output, for a process of another domain; ends with standard input."""
    print(ours(handle_of(device(100))).hex(), flush=True)
    sys.stdin.read()


def steal(peer: Peer | None) -> None:
    refused(bytes.fromhex(sys.stdin.readline()), 1)


ALONE = ("tcp", "show", "steal")


def main() -> None:
    case = sys.argv[1]
    if len(sys.argv) > 2:
        setup()
        globals()[case + "_other"](Peer(socket.socket(fileno=int(sys.argv[2]))))
        os._exit(0)
    peer = None
    if case not in ALONE:
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, __file__, case, str(other.fileno())]
        peer = Peer(mine, subprocess.Popen(argv, pass_fds=[other.fileno()]))
        other.close()
    setup()
    globals()[case](peer)
    if peer and peer.process:
        peer.end()
    print("OK", flush=True)


if __name__ == "__main__":
    main()
