# SPDX-License-Identifier: Apache-2.0
"""driver.[ch] of the executor: one pointer for each function of the host's driver."""

from __future__ import annotations

from .load import Spec
from .text import banner, parameters


def driver_h(spec: Spec) -> str:
    """The text of driver.h."""
    lines = [banner(spec, "The host's driver, one pointer for each function; NULL where it is older than that.")]
    lines += ["#ifndef ORION_DRIVER_H", "#define ORION_DRIVER_H", "", '#include "gen/cuda_abi.h"', ""]
    lines += ["struct oh_driver {"]
    lines += [f"    CUresult (*{c.name})({parameters(c)});" for c in spec.calls if not c.internal]
    lines += ["};", "extern struct oh_driver oh_drv;", ""]
    lines += ["/* Fills oh_drv from a dlopen handle; returns how many functions that library lacks. */"]
    lines += ["int oh_driver_resolve(void *dl);", "", "#endif", ""]
    return "\n".join(lines)


def driver_c(spec: Spec) -> str:
    """The text of driver.c."""
    lines = [banner(spec, "Looks up the host driver's functions.")]
    lines += ["#include <dlfcn.h>", "#include <stddef.h>", "#include <string.h>", "", '#include "gen/driver.h"', ""]
    lines += ["struct oh_driver oh_drv;", "", "static const struct {", "    const char *name;", "    size_t offset;"]
    lines += ["} functions[] = {"]
    lines += [f'    {{ "{c.name}", offsetof(struct oh_driver, {c.name}) }},' for c in spec.calls if not c.internal]
    lines += ["};", "", "int oh_driver_resolve(void *dl)", "{", "    int missing = 0;", ""]
    lines += ["    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {"]
    lines += ["        void *f = dlsym(dl, functions[i].name);", ""]
    lines += ["        memcpy((char *)&oh_drv + functions[i].offset, &f, sizeof(f));", "        missing += f == NULL;"]
    return "\n".join([*lines, "    }", "    return missing;", "}", ""])
