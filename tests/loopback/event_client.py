# SPDX-License-Identifier: Apache-2.0
"""A CUDA process for test_events.py in plain ctypes, `event_client.py CASE`; prints OK or ends with a traceback."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

cu = ctypes.CDLL("libcuda.so.1")
NOT_READY, CAPTURED_EVENT, ILLEGAL_ADDRESS = 600, 907, 700
TIMED, PLAIN = 0, 2  # flags of events; PLAIN: DISABLE_TIMING
GATE_GEQ = 0
PTX = b""".version 7.0
.target sm_52
.address_size 64
.visible .entry store(.param .u64 at) { .reg .b64 %a; .reg .b32 %v; ld.param.u64 %a, [at]; mov.u32 %v, 1;
    st.global.u32 [%a], %v; ret; }
\0"""


def call(name: str, *args: object, want: int = 0) -> None:
    got = getattr(cu, name)(*args)
    assert got == want, f"{name}: {got}, expected {want}"


def setup() -> None:
    context = c_void_p()
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", byref(context), 0)
    call("cuCtxSetCurrent", context)


def made(name: str, *args: object) -> c_void_p:
    thing = c_void_p()
    call(name, byref(thing), *args)
    return thing


class Gate:
    """Holds a stream until it is opened."""

    def __init__(self) -> None:
        self.word, self.value = c_uint64(), 0
        call("cuMemAlloc_v2", byref(self.word), c_size_t(8))
        call("cuMemsetD32_v2", self.word, 0, c_size_t(2))
        self.opener = made("cuStreamCreate", 1)

    def hold(self, stream: c_void_p) -> None:
        self.value += 1
        call("cuStreamWaitValue32_v2", stream, self.word, self.value, GATE_GEQ)

    def open(self) -> None:
        call("cuStreamWriteValue32_v2", self.opener, self.word, self.value, 0)
        call("cuStreamSynchronize", self.opener)


def worker() -> int:
    """The process that serves this one: it maps the same region and has read a command."""
    for task in Path("/proc").glob("[0-9]*/task/*/comm"):
        with contextlib.suppress(OSError):
            if task.read_text().startswith("twin-") and os.environ["ORION_REGION"] in (task.parents[2] / "maps").read_text():
                return int(task.parts[2])
    raise AssertionError("no worker serves this process")


def stop() -> int:
    """Returns when no thread of the worker runs any more."""
    pid = worker()
    os.kill(pid, signal.SIGSTOP)
    while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
        time.sleep(0.001)
    return pid


@contextlib.contextmanager
def stopped() -> Iterator[None]:
    """While nobody on the host can answer."""
    pid = stop()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def query(event: c_void_p, want: int) -> None:
    call("cuEventQuery", event, want=want)


def make_marked(stream: c_void_p) -> c_void_p:
    """An event whose records are marked: a query of it took long."""
    event = made("cuEventCreate", PLAIN)
    mark(event, stream)
    return event


def mark(event: c_void_p, stream: c_void_p) -> None:
    call("cuEventRecord", event, stream)
    call("cuStreamSynchronize", stream)
    threading.Timer(0.1, os.kill, (stop(), signal.SIGCONT)).start()
    query(event, 0)


def done(event: c_void_p, stream: c_void_p) -> None:
    call("cuEventRecord", event, stream)
    call("cuStreamSynchronize", stream)


def local() -> None:
    """Complete and marked: answered while the host is stopped. Each new record begins anew."""
    stream, gate = made("cuStreamCreate", 1), Gate()
    event = make_marked(stream)
    for _ in range(3):
        done(event, stream)
        with stopped():
            begin = time.monotonic()
            for _ in range(100):
                query(event, 0)
            assert time.monotonic() - begin < 5
        gate.hold(stream)
        call("cuEventRecord", event, stream)
        query(event, NOT_READY)
        call("cuEventSynchronize", made("cuEventCreate", PLAIN))  # the host has read the record by now
        query(event, NOT_READY)
        gate.open()
        call("cuEventSynchronize", event)
        query(event, 0)


def shared_mark() -> None:
    """Two events of one mark: the completion of one says nothing about the other."""
    stream, held, gate = made("cuStreamCreate", 1), made("cuStreamCreate", 1), Gate()
    events = [make_marked(stream)] + [made("cuEventCreate", PLAIN) for _ in range(256)]
    twin = events[-1]
    assert twin.value is not None and events[0].value is not None
    assert (twin.value >> 4) % 256 == (events[0].value >> 4) % 256
    mark(twin, stream)
    gate.hold(held)
    call("cuEventRecord", twin, held)
    done(events[0], stream)
    query(twin, NOT_READY)
    query(events[0], 0)
    gate.open()
    call("cuEventSynchronize", twin)
    query(twin, 0)
    query(events[0], 0)


def threads() -> None:
    """What one thread has seen complete is complete for the next; its new record is not."""
    stream, gate = made("cuStreamCreate", 1), Gate()
    event = make_marked(stream)
    results: list[int] = []
    context = made("cuCtxGetCurrent")

    def other() -> None:
        call("cuCtxSetCurrent", context)
        results.append(cu.cuEventQuery(event))

    def ask() -> int:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return results.pop()

    for _ in range(50):
        done(event, stream)
        assert ask() == 0
        gate.hold(stream)
        call("cuEventRecord", event, stream)
        assert ask() == NOT_READY
        gate.open()
        call("cuEventSynchronize", event)
        assert ask() == 0


def capture() -> None:
    """Recorded into a capture the event answers as natively, and the graph gets no node of ours."""
    stream, graph, count = made("cuStreamCreate", 1), c_void_p(), c_size_t()
    event = make_marked(stream)
    done(event, stream)
    call("cuStreamBeginCapture_v2", stream, 0)
    call("cuEventRecord", event, stream)
    query(event, CAPTURED_EVENT)
    call("cuStreamEndCapture", stream, byref(graph))
    call("cuGraphGetNodes", graph, None, byref(count))
    assert count.value == 0, f"{count.value} nodes"
    query(event, CAPTURED_EVENT)
    done(event, stream)
    query(event, 0)


def asks(event: c_void_p) -> None:
    """A query of the event, which is complete, needs the host."""
    threading.Timer(0.2, os.kill, (stop(), signal.SIGCONT)).start()
    begin = time.monotonic()
    query(event, 0)
    assert time.monotonic() - begin > 0.1, "answered while the host was stopped"


def graph_record() -> None:
    """An event that a graph records is asked of the host: its mark may be of an older record."""
    stream = made("cuStreamCreate", 1)
    event, other = make_marked(stream), make_marked(stream)
    graph, node = made("cuGraphCreate", 0), c_void_p()
    done(event, stream)
    done(other, stream)
    call("cuGraphAddEventRecordNode", byref(node), graph, None, c_size_t(0), event)
    asks(event)
    with stopped():
        query(other, 0)


def error() -> None:
    """After a fault the error is the answer, not the mark."""
    stream, module, kernel = made("cuStreamCreate", 1), made("cuModuleLoadData", PTX), c_void_p()
    call("cuModuleGetFunction", byref(kernel), module, b"store")
    event, bad = make_marked(stream), c_uint64(0x2A0000000000)
    done(event, stream)
    params = (c_void_p * 1)(ctypes.addressof(bad))
    call("cuLaunchKernel", kernel, 1, 1, 1, 1, 1, 1, 0, stream, params, None)
    call("cuStreamSynchronize", stream, want=ILLEGAL_ADDRESS)
    query(event, ILLEGAL_ADDRESS)


def reset() -> None:
    """The end of the context ends its events."""
    stream = made("cuStreamCreate", 1)
    event, context = make_marked(stream), c_void_p()
    done(event, stream)
    call("cuDevicePrimaryCtxReset_v2", 0)
    call("cuDevicePrimaryCtxRetain", byref(context), 0)
    call("cuCtxSetCurrent", context)
    assert cu.cuEventQuery(event) != 0


def timed() -> None:
    """A timing event is never marked: the mark would count in the time that is measured."""
    stream = made("cuStreamCreate", 1)
    event = made("cuEventCreate", TIMED)
    for _ in range(2):
        done(event, stream)
        asks(event)


def ahead() -> None:
    """A thread that launches without end waits before the driver would, and others are served meanwhile."""
    stream, other, gate = made("cuStreamCreate", 1), made("cuStreamCreate", 1), Gate()
    module, kernel, word = made("cuModuleLoadData", PTX), c_void_p(), c_uint64()
    call("cuModuleGetFunction", byref(kernel), module, b"store")
    call("cuMemAlloc_v2", byref(word), c_size_t(4))
    params, context, issued = (c_void_p * 1)(ctypes.addressof(word)), made("cuCtxGetCurrent"), [0]

    def flood(count: int) -> None:
        call("cuCtxSetCurrent", context)
        for _ in range(count):
            call("cuLaunchKernel", kernel, 1, 1, 1, 1, 1, 1, 0, stream, params, None)
            issued[0] += 1

    def start(count: int) -> threading.Thread:
        thread = threading.Thread(target=flood, args=(count,))
        thread.start()
        return thread

    gate.hold(stream)
    thread = start(3000)
    time.sleep(1)
    assert 700 < issued[0] < 1024, issued
    call("cuStreamQuery", other)
    gate.open()
    thread.join()
    call("cuStreamSynchronize", stream)
    gate.hold(stream)
    start(1200).join()  # nothing moves, so it goes on after a while: who waits for itself is no worse off than natively
    gate.open()
    call("cuStreamSynchronize", stream)


CASES = {f.__name__: f for f in (local, shared_mark, threads, capture, graph_record, error, reset, timed, ahead)}

if __name__ == "__main__":
    cu.cuStreamWaitValue32_v2.argtypes = [c_void_p, c_uint64, c_uint, c_uint]
    cu.cuStreamWriteValue32_v2.argtypes = [c_void_p, c_uint64, c_uint, c_uint]
    cu.cuMemsetD32_v2.argtypes = [c_uint64, c_uint, c_size_t]
    cu.cuDevicePrimaryCtxRetain.argtypes = [c_void_p, c_int]
    setup()
    CASES[sys.argv[1]]()
    print("OK")
