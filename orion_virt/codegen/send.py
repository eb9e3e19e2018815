# SPDX-License-Identifier: Apache-2.0
"""send.h and op_flags.c of the guest: what stubs and hand-written bodies share."""

from __future__ import annotations

from orion_virt.spec.schema import Call

from .load import Spec
from .text import banner, prototype

_HELPERS = """
/* What the library's state says, else `why`: before initialisation a call is NOT_INITIALIZED whatever its arguments. */
static inline CUresult og_refuse(CUresult why)
{
    CUresult state = og_check_init();

    return state != CUDA_SUCCESS ? state : why;
}

/* Bytes of an array, UINT64_MAX when that overflows or `count` was negative. */
static inline uint64_t og_array_bytes(uint64_t count, uint64_t size)
{
    uint64_t bytes;

    return __builtin_mul_overflow(count, size, &bytes) ? UINT64_MAX : bytes;
}

/* False: no memory of a card, whatever it holds, could be `rows` rows of `width` bytes there, `pitch` apart. */
static inline bool og_span_ok(uint64_t ptr, uint64_t element, uint64_t width, uint64_t pitch, uint64_t rows)
{
    if (width == 0 || rows == 0)
        return true;
    return ptr >= 65536 && ptr % element == 0 && (rows == 1 || (pitch >= width && pitch % element == 0));
}

static inline void og_put_part(uint8_t *at, const void *data, uint64_t bytes)
{
    if (bytes)
        memcpy(at, data, bytes);
}

/* Copies the next part of a reply; false: the reply is not what the call asked for. */
static inline bool og_take_part(const uint8_t **at, const uint8_t *end, uint64_t bytes, void *to, uint64_t room)
{
    if (bytes > room || bytes > (uint64_t)(end - *at))
        return false;
    if (bytes && to)
        memcpy(to, *at, bytes);
    *at += ow_align(bytes) > (uint64_t)(end - *at) ? (uint64_t)(end - *at) : ow_align(bytes);
    return true;
}

/* What og_begin has to know of an operation. */
#define OG_OP_CONTEXT 1u /* the twin's current context must be this thread's */
#define OG_OP_CALL 2u    /* a round trip */
extern const uint8_t og_op_flags[OW_NR_OPS];
"""


def send_h(spec: Spec) -> str:
    """The text of send.h."""
    lines = [banner(spec, "Senders: the transport of each call that crosses, without the exported function.")]
    lines += ["#ifndef ORION_SEND_H", "#define ORION_SEND_H", "", "#include <string.h>", "", '#include "client.h"']
    lines += [_HELPERS]
    lines += [f"OG_MUST_CHECK {prototype(c, 'og_send_')};" for c in spec.crossing]
    return "\n".join([*lines, "", "#endif", ""])


def op_flags_c(spec: Spec) -> str:
    """The text of op_flags.c."""
    lines = [banner(spec, "What og_begin has to know of each operation.")]
    lines += ['#include "gen/send.h"', "", "const uint8_t og_op_flags[OW_NR_OPS] = {"]
    lines += [f"    [{c.op}] = {_flags(c)}," for c in spec.crossing]
    return "\n".join([*lines, "};", ""])


def _flags(call: Call) -> str:
    flags = ["OG_OP_CONTEXT"] if call.context else []
    flags += ["OG_OP_CALL"] if call.order.name == "CALL" else []
    return " | ".join(flags) or "0"
