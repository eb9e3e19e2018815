# SPDX-License-Identifier: Apache-2.0
"""checks.h of the executor: the checks that generated bodies share."""

from __future__ import annotations

from .load import Spec
from .text import banner

_TEXT = """
#ifndef ORION_CHECKS_H
#define ORION_CHECKS_H

#include "executor.h"

/* Product that saturates, so that a length that overflows passes no later check. */
static inline uint64_t oh_array_bytes(uint64_t count, uint64_t size)
{
    uint64_t bytes;

    return __builtin_mul_overflow(count, size, &bytes) ? UINT64_MAX : bytes;
}

/* Bytes from the first of `rows` rows to the end of the last. */
static inline uint64_t oh_rows_bytes(uint64_t width, uint64_t pitch, uint64_t rows)
{
    uint64_t bytes;

    if (rows == 0 || width == 0)
        return 0;
    if (pitch < width) /* a driver may take it for packed rows */
        pitch = width;
    return __builtin_add_overflow(oh_array_bytes(pitch, rows - 1), width, &bytes) ? UINT64_MAX : bytes;
}

/* True when the client may touch these bytes: its device memory or its part of the region. */
static inline bool oh_touches(uint64_t ptr, uint64_t bytes)
{
    return bytes == 0 || oh_ledger_has(ptr, bytes) || oh_is_ours((const void *)(uintptr_t)ptr, bytes);
}

/* The physical ordinal of the client's device. */
static inline CUresult oh_ordinal(int32_t device, int *ordinal)
{
    if (device < 0 || (uint32_t)device >= oh_nr_devices)
        return CUDA_ERROR_INVALID_DEVICE;
    *ordinal = oh_devices[device].ordinal;
    return CUDA_SUCCESS;
}

/* A function handle, or a kernel handle where the driver takes either. */
static inline CUresult oh_get_function(uint64_t id, void **real)
{
    return oh_get(((id >> 40) & 63) == OW_KIND_KERNEL ? OW_KIND_KERNEL : OW_KIND_FUNCTION, id, real);
}

/* Turns an array of client handles, in the private copy of the command, into the driver's. */
static inline CUresult oh_get_array(enum ow_kind kind, const void *handles, uint32_t bytes)
{
    uint64_t *at = (uint64_t *)(uintptr_t)handles;

    for (uint32_t i = 0; at && i < bytes / sizeof(*at); i++) {
        void *real;
        CUresult r = oh_get(kind, at[i], &real);

        if (r != CUDA_SUCCESS)
            return r;
        at[i] = (uint64_t)(uintptr_t)real;
    }
    return CUDA_SUCCESS;
}

/* The next part, which must be `want` bytes long (or absent, where that is allowed). */
static inline bool oh_array(struct ow_cursor *parts, uint32_t bytes, bool optional, uint64_t want, const void **p)
{
    *p = NULL;
    if (bytes == OW_NULL)
        return optional;
    if (bytes != want)
        return false;
    *p = ow_take(parts, bytes);
    return *p != NULL;
}

/* The next part, which must be a terminated string (or absent, where that is allowed). */
static inline bool oh_text(struct ow_cursor *parts, uint32_t bytes, bool optional, const void **p)
{
    *p = NULL;
    if (bytes == OW_NULL)
        return optional;
    *p = bytes ? ow_take(parts, bytes) : NULL;
    return *p && ((const char *)*p)[bytes - 1] == 0;
}

#endif
"""


def checks_h(spec: Spec) -> str:
    """The text of checks.h."""
    return banner(spec, "Checks that the generated bodies share; bodies by hand may use them.") + _TEXT
