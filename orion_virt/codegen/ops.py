# SPDX-License-Identifier: Apache-2.0
"""ops.h and ops.c of the executor: the table of operations."""

from __future__ import annotations

from orion_virt.spec.schema import Call

from .load import Spec
from .text import banner


def by_hand(call: Call) -> bool:
    """True where the executor's body is written by hand."""
    return "executor" in call.hand


def ops_h(spec: Spec) -> str:
    """The text of ops.h: bodies by hand, and the generated ones that ops.c refers to."""
    lines = [banner(spec, "Bodies of the operations.")]
    lines += ["#ifndef ORION_OPS_H", "#define ORION_OPS_H", "", '#include "executor.h"', "", "/* By hand. */"]
    for call in spec.crossing:
        if by_hand(call):
            types = f"const struct ow_{call.name}_in *in, uint32_t bytes, struct ow_{call.name}_out *out"
            lines.append(f"CUresult oh_{call.name}(struct oh_twin *t, {types}, uint32_t *out_bytes);")
    lines += ["", "/* Generated. */"]
    lines += [f"oh_dispatch_fn oh_run_{c.name};" for c in spec.crossing]
    return "\n".join([*lines, "", "#endif", ""])


def ops_c(spec: Spec) -> str:
    """The text of ops.c."""
    lines = [banner(spec, "The table of operations."), '#include "gen/ops.h"', ""]
    lines += ["const struct oh_op oh_ops[OW_NR_OPS] = {"]
    for c in spec.crossing:
        flags = "".join(f", .{word} = true" for word in ("blocks", "reports", "works", "grows") if getattr(c, word))
        size = f"sizeof(struct ow_{c.name}_in)"
        lines.append(f'    [{c.op}] = {{ .run = oh_run_{c.name}, .name = "{c.name}", .in_bytes = {size}{flags} }},')
    return "\n".join([*lines, "};", ""])
