# SPDX-License-Identifier: Apache-2.0
"""cuda_abi.h: our own minimal declaration of the driver's ABI."""

from __future__ import annotations

from .load import Spec
from .text import banner, prototype


def cuda_abi_h(spec: Spec) -> str:
    """The text of cuda_abi.h."""
    lines = [banner(spec, "The driver's ABI as far as we use it: types, codes, prototypes.")]
    lines += ["#ifndef ORION_CUDA_ABI_H", "#define ORION_CUDA_ABI_H", "", "#include <stddef.h>", "#include <stdint.h>"]
    lines += abi_types(spec)
    lines += [""] + [f"{p};" for p in prototypes(spec)]
    return "\n".join([*lines, "", "#endif", ""])


def abi_types(spec: Spec) -> list[str]:
    """Codes, constants and type definitions."""
    lines: list[str] = []
    for group, values in spec.constants:
        if group == "CUresult":
            lines += ["", "typedef enum cudaError_enum {"] + [f"    {n} = {v}," for n, v in values] + ["} CUresult;"]
        else:
            lines += ["", f"/* {group} */"] + [f"#define {n} {_number(v)}" for n, v in values]
    bodies = list(dict.fromkeys(t.body for t in spec.types if t.body))
    return [*lines, ""] + bodies


def _number(value: int) -> str:
    return f"({value})" if value < 0 else f"{value}u" if value > 0x7FFFFFFF else str(value)


def prototypes(spec: Spec) -> list[str]:
    """One prototype for each exported symbol that the spec describes, per-thread variants included."""
    result = []
    for call in spec.calls:
        if not call.internal:
            result.append(prototype(call))
            if call.ptsz:
                result.append(prototype(call, suffix=f"_{call.ptsz}"))
    return result
