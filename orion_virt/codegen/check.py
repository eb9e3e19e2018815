# SPDX-License-Identifier: Apache-2.0
"""What a spec line must satisfy; each failure names the file, the function and the remedy."""

from __future__ import annotations

from orion_virt.spec.schema import ASYNC, LOCAL, Call, Param

from .load import MAX_OP, Spec, SpecError
from .spans import parse_checks, parse_flags

#: Operation numbers of each family; internal_* files have their own.
RANGES = {
    "internal_core": (1, 19), "internal_module": (20, 49), "internal_memory": (50, 99), "internal_mark": (130, 136),
    "internal_ipc": (110, 119), "internal_host": (120, 129),
    "device": (100, 199), "context": (100, 199), "module": (200, 299), "library": (200, 299),
    "launch": (300, 399), "occupancy": (300, 399), "memory": (400, 599), "copy": (400, 599),
    "memset": (400, 599), "pool": (400, 599), "vmm": (400, 599), "stream": (600, 699), "event": (600, 699),
    "callback": (600, 699), "graph": (700, 899), "array": (800, 899), "texture": (800, 899), "texref": (800, 899),
    "tensor": (800, 899),
}  # fmt: skip


def check_spec(spec: Spec) -> None:
    """Raises SpecError at the first line that is wrong."""
    ops: dict[int, str] = {}
    names: dict[str, str] = {}
    for family in spec.families:
        for name in [line.name for lines in (family.calls, family.unsupported) for line in lines]:
            if name in names:
                raise SpecError(f"{family.name}.py: {name}: already in {names[name]}.py; remove one")
            names[name] = family.name
        for call in family.calls:
            _check_call(spec, call)
            _check_op(call, ops)


def _fail(call: Call, text: str) -> None:
    raise SpecError(f"{call.family}.py: {call.name}: {text}")


def _check_op(call: Call, ops: dict[int, str]) -> None:
    if call.order is LOCAL:
        if call.op is not None:
            _fail(call, "a local function has no operation number")
        return
    if call.op is None or not 0 < call.op <= MAX_OP:
        _fail(call, f"operation number {call.op} is not in 1..{MAX_OP}")
        return
    if call.op in ops:
        _fail(call, f"operation number {call.op} belongs to {ops[call.op]}; take the next free one")
    low, high = RANGES.get(call.family, (900, MAX_OP))
    if not (low <= call.op <= high or call.op >= 1000):
        _fail(call, f"operation number {call.op} is outside {low}..{high} of family {call.family}")
    ops[call.op] = call.name


def _check_call(spec: Spec, call: Call) -> None:
    known = {t for t in spec.types}
    params = {p.name: p for p in call.params}
    if len(params) != len(call.params):
        _fail(call, "two parameters have the same name")
    for param in call.params:
        if param.shape != "cstr" and param.type not in known:
            _fail(call, f"{param.name}: type {param.type.c} is not in spec/types.py")
        if param.shape == "buffer":
            _check_length(call, param, params)
        if call.order is not LOCAL:
            _check_crosses(call, param)
    _check_variant(spec, call)
    if call.order is LOCAL:
        return
    for word in ("makes", "frees"):
        _check_handle(call, word, params)
    if call.reports and (call.makes or (call.ledger or "-")[0] == "+"):
        _fail(call, "a call that makes something cannot report an older error: the client would forget what it made")
    if call.order is ASYNC and any(p.dir != "in" and p.name != call.makes for p in call.params):
        _fail(call, "a one-way call can have no results; use order=CALL")
    parse_checks(call)
    parse_flags(call)
    _check_books(call, params)


def _check_variant(spec: Spec, call: Call) -> None:
    if call.ptsz is None:
        return
    streams = [p for p in call.params if p.type.handle == "STREAM" and p.dir == "in"]
    ours = (call.per_thread or "").startswith("og_")  # a function of the client that the API lacks
    if call.per_thread and not ours and call.per_thread not in {c.name for c in spec.calls}:
        _fail(call, f'per_thread="{call.per_thread}" is no function of the spec')
    if call.stream_in and call.stream_in.partition(".")[0] not in {p.name for p in call.params}:
        _fail(call, f'stream_in="{call.stream_in}" is not "param.field"')
    if not (streams or call.per_thread or call.stream_in):
        _fail(call, f'ptsz="{call.ptsz}" needs a stream parameter, per_thread="..." or stream_in="..."')


def _check_length(call: Call, param: Param, params: dict[str, Param]) -> None:
    if isinstance(param.length, int):
        return
    if param.length not in params or params[param.length].shape != "value":
        _fail(call, f"{param.name}: length {param.length!r} names no integer parameter")


def _check_crosses(call: Call, param: Param) -> None:
    if param.type.wire == "bytes" and param.shape != "buffer":
        _fail(call, f"{param.name}: a struct crosses as buf({param.name!r}, ..., 1) only")
    by_hand = "executor" in call.hand
    if param.dir == "inout" and param.type.handle and not by_hand:
        _fail(call, f'{param.name}: a handle that goes in and comes out needs hand="executor"')
    if param.type.c == "CUdevice" and not by_hand and (param.dir != "in" or param.shape != "value"):
        _fail(call, f'{param.name}: an ordinal that comes out must be translated; use hand="executor"')
    if param.shape == "buffer" and param.dir == "inout":
        _fail(call, f"{param.name}: a buffer is in or out, not both; write the body by hand")
    if param.shape == "buffer" and param.dir == "out" and param.type.handle:
        _fail(call, f"{param.name}: an array of handles cannot come out; write the body by hand")


def _check_handle(call: Call, word: str, params: dict[str, Param]) -> None:
    name = getattr(call, word)
    if name is None:
        return
    want = "out" if word == "makes" else "in"
    if name not in params or not params[name].type.handle or params[name].dir != want:
        _fail(call, f'{word}="{name}" names no {want} parameter that is a handle')


def _check_books(call: Call, params: dict[str, Param]) -> None:
    for word in (call.books, call.ledger):
        if word is None:
            continue
        if word[0] not in "+-" or any(part not in params for part in word[1:].split(":")):
            _fail(call, f'"{word}" is not "+arg" or "-arg" with arguments of this function')
    if call.ledger and call.ledger[0] == "+" and ":" not in call.ledger:
        _fail(call, f'ledger="{call.ledger}" needs a size: "+ptr:size"')
