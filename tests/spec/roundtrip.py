# SPDX-License-Identifier: Apache-2.0
"""Writes a C program that sends every generated call through stub, wire and executor to a fake driver."""

from __future__ import annotations

from orion_virt.codegen.load import Spec
from orion_virt.codegen.spans import parse_flags
from orion_virt.codegen.text import is_variable, join_c, parameters
from orion_virt.spec.schema import Call, Param

COUNT = 3  # elements of every array


def generated(spec: Spec) -> list[Call]:
    """Calls whose executor body is generated."""
    return [c for c in spec.crossing if "executor" not in c.hand]


def is_length(call: Call, p: Param) -> bool:
    """True for the parameter that counts the elements of a buffer."""
    return any(q.shape == "buffer" and q.length == p.name for q in call.params)


def value(call: Call, p: Param) -> str:
    """The value that the guest passes for a scalar or handle."""
    i = call.params.index(p) + 1
    flags = parse_flags(call)
    if flags and flags[0] == p.name:
        return f"{flags[1]}u"
    if is_length(call, p):
        return str(COUNT)
    if p.type.c == "CUdevice":
        return "1"
    if p.type.handle:
        return f"({p.type.c})(uintptr_t){0x10000 * i}"
    if p.type.c == "CUdeviceptr" or p.name.endswith("Pitch"):  # what the sender takes for possible
        return f"({p.type.c}){0x100000 * i}"
    return f"({p.type.c}){i + 16}" if p.type.wire in ("u8", "i8", "f32") else f"({p.type.c}){0x1111 * i}"


def real(call: Call, p: Param) -> str:
    """What the driver must be given for it: the fake handle table adds 7."""
    if p.type.c == "CUdevice":
        return "5"
    if p.type.handle:
        return f"({p.type.c})(uintptr_t){0x10000 * (call.params.index(p) + 1) + 7}"
    return value(call, p)


def count(p: Param) -> int:
    return p.length if isinstance(p.length, int) else COUNT


def driver(call: Call) -> list[str]:
    """The fake driver's function: checks what comes in, fills what goes out."""
    lines = [f"static CUresult fake_{call.name}({parameters(call)})", "{", f'    seen = "{call.name}";']
    lines += ["    if (hostile_mode) {", *(f"        {t}" for p in call.params for t in touches(p))]
    lines += [f"        (void){p.name};" for p in call.params] + ["        return CUDA_SUCCESS;", "    }"]
    for i, p in enumerate(call.params, 1):
        if p.shape == "cstr":
            lines.append(f'    CHECK(strcmp({p.name}, "a name") == 0);')
        elif is_variable(p) and p.dir == "in":
            size = f"{count(p)} * sizeof(*{p.name})"
            lines.append(f"    CHECK(looks_like({p.name}, {size}, {i}, {int(bool(p.type.handle))}));")
        elif is_variable(p):
            lines.append(f"    fill({p.name}, {count(p)} * sizeof(*{p.name}), {i}, 0);")
        elif p.dir == "in":
            lines.append(f"    CHECK({p.name} == {real(call, p)});")
        else:
            lines.append(f"    *{p.name} = ({p.type.c})(uintptr_t){i + 100};")
    return [*lines, "    return driver_says;", "}", ""]


def touches(p: Param) -> list[str]:
    """Reads of everything that a pointer leads to."""
    if p.shape == "cstr":
        return [f"touch({p.name}, {p.name} ? strlen({p.name}) + 1 : 0);"]
    return [f"touch({p.name}, (uint64_t){p.length} * sizeof(*{p.name}));"] if p.shape == "buffer" else []


def sender(call: Call) -> list[str]:
    """Sends the call twice: the driver succeeds, then fails."""
    lines = [f"static void send_{call.name}(void)", "{"]
    args = []
    for i, p in enumerate(call.params, 1):
        if p.shape == "cstr":
            args.append('"a name"')
        elif is_variable(p):
            lines.append(f"    {join_c(p.type.c, 'v' + str(i))}[{count(p)}];")
            fill = f"    fill(v{i}, sizeof(v{i}), {i}, {int(bool(p.type.handle))});" if p.dir == "in" else ""
            lines.append(fill or f"    memset(v{i}, 0xee, sizeof(v{i}));")
            args.append(f"v{i}")
        elif p.dir == "in":
            args.append(value(call, p))
        else:
            lines.append(f"    {join_c(p.type.c, 'v' + str(i))} = 0;")
            args.append(f"&v{i}")
    send = f"og_send_{call.name}({', '.join(args)})"
    lines += [f"    EXPECT({send}, CUDA_SUCCESS);", f'    CHECK(strcmp(seen, "{call.name}") == 0);']
    lines += results(call)
    lines += ["    driver_says = CUDA_ERROR_NOT_FOUND;", f"    EXPECT({send}, CUDA_ERROR_NOT_FOUND);"]
    lines += ["    driver_says = CUDA_SUCCESS;"] + null_outs(call, args)
    return [*lines, "}", ""]


def results(call: Call) -> list[str]:
    """Checks of what came back."""
    lines = []
    for i, p in enumerate(call.params, 1):
        if is_variable(p) and p.dir == "out":
            lines.append(f"    CHECK(looks_like(v{i}, sizeof(v{i}), {i}, 0));")
        elif not is_variable(p) and p.dir != "in":
            want = "minted" if p.name == call.makes else f"{i + 100 - 7 * bool(p.type.handle)}"
            lines.append(f"    CHECK((uint64_t)(uintptr_t)v{i} == {want});" if p.type.handle else
                         f"    CHECK(v{i} == {want});")
    return lines


def null_outs(call: Call, args: list[str]) -> list[str]:
    """NULL for each pointer that must not be NULL."""
    lines = []
    for i, p in enumerate(call.params):
        if p.optional or (p.dir == "in" and not is_variable(p)):
            continue
        with_null = ", ".join("NULL" if j == i else a for j, a in enumerate(args))
        lines.append(f"    EXPECT(og_send_{call.name}({with_null}), CUDA_ERROR_INVALID_VALUE);")
    return lines


def guest_c(spec: Spec) -> str:
    """The guest's half: senders, and the driver's functions as the host half sees them."""
    calls = generated(spec)
    lines = ['#include "client.h"', '#include "gen/send.h"', '#include "fake.h"', ""]
    for call in calls:
        lines += driver(call) + sender(call)
    lines += ["const struct pair pairs[] = {"]
    lines += [f"    {{ OW_OP_{c.name}, (void *)fake_{c.name}, send_{c.name} }}," for c in calls]
    return "\n".join([*lines, "    { 0, NULL, NULL },", "};", ""])


def install_c(spec: Spec) -> str:
    """Puts the fake functions into oh_drv."""
    lines = ['#include "executor.h"', '#include "fake.h"', "", "void install(uint32_t op, void *f)"]
    lines += ["{", "    switch (op) {"]
    for c in generated(spec):
        lines.append(f"    case OW_OP_{c.name}: memcpy(&oh_drv.{c.name}, &f, sizeof(f)); break;")
    return "\n".join([*lines, "    }", "}", ""])
