# SPDX-License-Identifier: Apache-2.0
"""unsupported.c, ptsz.c, procaddr.[ch] and libcuda.map: the symbols of the guest library."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from orion_virt.spec import constants
from orion_virt.spec.schema import LOCAL, Call

from .load import Spec, base_name
from .text import banner, prototype

#: The newest driver version whose whole public surface is described; newer names are not known by name.
SURFACE_VERSION = 13000
#: The version that brought the variants for per-thread default streams.
PER_THREAD_VERSION = 7000


def unsupported_c(spec: Spec) -> str:
    """The text of unsupported.c: symbols that answer NOT_SUPPORTED whatever their arguments."""
    lines = [banner(spec, "Functions that are not carried.", "spec/calls/unsupported*.py")]
    lines += ['#include "client.h"', "", "/* The arguments are not looked at, so one shape serves every prototype. */"]
    lines += ["#define OG_UNSUPPORTED(name, why) \\", "    OG_EXPORT CUresult name(void); \\"]
    lines += ['    OG_EXPORT CUresult name(void) { return og_unsupported(#name " (" why ")"); }', ""]
    for line in spec.unsupported:
        names = [line.name, f"{line.name}_{line.ptsz}"] if line.ptsz else [line.name]
        lines += [f'OG_UNSUPPORTED({name}, "{line.reason}")' for name in names]
    return "\n".join([*lines, ""])


def unsupported_md(spec: Spec) -> str:
    """The text of docs/unsupported.md: the reasons, each with its functions."""
    lines = ["# Functions that are not carried", ""]
    lines += ["Of the public driver API these answer CUDA_ERROR_NOT_SUPPORTED, whatever their arguments; the client's log"]
    lines += ["names each once, with its reason. Written by the generator from `orion_virt/spec/calls`: change it there."]
    for reason in sorted({line.reason for line in spec.unsupported}):
        names = sorted(f"`{line.name}`" for line in spec.unsupported if line.reason == reason)
        lines += ["", f"## {reason[0].upper()}{reason[1:]}", ""]
        lines += textwrap.wrap(", ".join(names), 118, break_on_hyphens=False)
    return "\n".join([*lines, ""])


def ptsz_c(spec: Spec) -> str:
    """The text of ptsz.c: variants for the per-thread default stream."""
    lines = [banner(spec, "Per-thread default stream variants: stream 0 becomes CU_STREAM_PER_THREAD.")]
    lines += ['#include "gen/send.h"', '#include "gen/ptsz.h"']
    for call in spec.calls:
        if call.ptsz:
            lines += ["", f"OG_EXPORT {prototype(call, suffix='_' + call.ptsz)}", "{", *_variant(call), "}"]
    return "\n".join([*lines, ""])


def _variant(call: Call) -> list[str]:
    if call.per_thread:
        args = ", ".join([p.name for p in call.params] + ["og_per_thread(NULL)"])
        return [
            f"    CUresult r_ = {call.per_thread}({args});", "",
            f"    return r_ != CUDA_SUCCESS ? r_ : {constants.SYNCHRONIZE}(og_per_thread(NULL));",
        ]  # fmt: skip
    if call.stream_in:
        return _struct_variant(call, *call.stream_in.split("."))
    stream = next(p.name for p in call.params if p.type.handle == "STREAM" and p.dir == "in")
    args = ", ".join(f"og_per_thread({p.name})" if p.name == stream else p.name for p in call.params)
    return [f"    return {call.name}({args});"]


def _struct_variant(call: Call, name: str, field: str) -> list[str]:
    param = next(p for p in call.params if p.name == name)
    args = ", ".join("&copy_" if p is param else p.name for p in call.params)
    plain = ", ".join(p.name for p in call.params)
    lines = [f"    {param.type.c} copy_;", "    CUresult r_;", "", f"    if (!{name})"]
    lines += [f"        return {call.name}({plain});", f"    copy_ = *{name};"]
    lines += [f"    copy_.{field} = og_per_thread(copy_.{field});", f"    r_ = {call.name}({args});"]
    if not param.const or param.dir != "in":
        lines += [f"    copy_.{field} = {name}->{field};", f"    *{name} = copy_;"]
    return [*lines, "    return r_;"]


@dataclass(frozen=True)
class Symbol:
    """One ABI of a name."""

    name: str
    since: int
    function: str
    variant: str | None


def symbols(spec: Spec) -> list[Symbol]:
    """What can be found by name, by name and version."""
    lines = [call for call in spec.calls if not call.internal] + [line for line in spec.unsupported if line.by_name]
    found = [Symbol(base_name(c.name), c.since, c.name, f"{c.name}_{c.ptsz}" if c.ptsz else None) for c in lines]
    return sorted((s for s in found if s.since <= SURFACE_VERSION), key=lambda s: (s.name, s.since, s.function))


def procaddr_h(spec: Spec) -> str:
    """The text of procaddr.h."""
    return banner(spec, "Symbols by name and version.") + f"""
#ifndef ORION_PROCADDR_H
#define ORION_PROCADDR_H

#include <stdint.h>

/* Newest driver version whose names we know; advertise min(host's, this). */
#define OG_SURFACE_VERSION {SURFACE_VERSION}

/* Symbol of `name` (without suffix) for a program built for `version`, as a driver of version `driver` finds it;
 * flags bit 1 asks for per-thread default streams. Returns the symbol status: 0 found, 1 not found, 2 the program's
 * version is too old for it. *pfn is NULL unless found. A function that is not carried is found as on the driver:
 * it answers CUDA_ERROR_NOT_SUPPORTED. */
int og_procaddr(const char *name, int version, int driver, uint64_t flags, void **pfn);

#endif
"""


_LOOKUP = """
static int compare(const void *key, const void *entry)
{
    return strcmp(key, ((const struct symbol *)entry)->name);
}

int og_procaddr(const char *name, int version, int driver, uint64_t flags, void **pfn)
{
    const struct symbol *end = symbols + sizeof(symbols) / sizeof(symbols[0]), *best = NULL;
    bool known = false, varies = false;
    const struct symbol *s = bsearch(name, symbols, (size_t)(end - symbols), sizeof(*symbols), compare);

    *pfn = NULL;
    if (!s)
        return 1;
    while (s > symbols && strcmp(s[-1].name, name) == 0)
        s--;
    for (; s < end && strcmp(s->name, name) == 0 && s->since <= driver; s++) {
        known = true;
        varies |= s->variant != NULL;
        if (s->since <= version)
            best = s;
    }
    if (!best || ((flags & 2) && varies && version < PER_THREAD_VERSION))
        return known ? 2 : 1;
    *pfn = (flags & 2) && best->variant ? best->variant : best->function;
    return 0;
}
"""


def procaddr_c(spec: Spec) -> str:
    """The text of procaddr.c."""
    lines = [banner(spec, "Symbols by name and version.")]
    lines += ["#include <stdlib.h>", "#include <string.h>", "", '#include "client.h"', '#include "gen/procaddr.h"']
    lines += ["", f"#define PER_THREAD_VERSION {PER_THREAD_VERSION}", ""]
    lines += ['#include "gen/ptsz.h"', "", "/* unsupported.c */"]
    for u in spec.unsupported:
        lines += [f"CUresult {n}(void);" for n in (u.name, f"{u.name}_{u.ptsz}" if u.ptsz else None) if n]
    lines += ["", "struct symbol {", "    const char *name;", "    int since;"]
    lines += ["    void *function, *variant;", "};", ""]
    lines += ["/* By name, then by version. */", "static const struct symbol symbols[] = {"]
    for s in symbols(spec):
        variant = f"(void *){s.variant}" if s.variant else "NULL"
        lines.append(f'    {{ "{s.name}", {s.since}, (void *){s.function}, {variant} }},')
    return "\n".join([*lines, "};", _LOOKUP])


def ptsz_h(spec: Spec) -> str:
    """The text of ptsz.h."""
    return banner(spec, "What the per-thread variants share.") + """
#ifndef ORION_PTSZ_H
#define ORION_PTSZ_H

#include "client.h"

/* Stream 0 is the calling thread's own in a program built for per-thread default streams. */
static inline CUstream og_per_thread(CUstream stream)
{
    return stream ? stream : (CUstream)(uintptr_t)2;
}

#endif
"""


def export_map(spec: Spec) -> str:
    """The text of libcuda.map."""
    names = []
    for call in spec.calls:
        if not call.internal:
            names += [call.name] + ([f"{call.name}_{call.ptsz}"] if call.ptsz else [])
    for line in spec.unsupported:
        names += [line.name] + ([f"{line.name}_{line.ptsz}"] if line.ptsz else [])
    head = f"/* SPDX-License-Identifier: Apache-2.0 */\n/* Exported symbols, spec {spec.hash:x}; generated. */\n"
    return head + "{\n  global:\n" + "".join(f"    {n};\n" for n in sorted(set(names))) + "  local: *;\n};\n"


def hand_count(spec: Spec) -> int:
    """Calls with a body written by hand on either side."""
    return sum(1 for c in spec.calls if c.hand or c.order is LOCAL)
