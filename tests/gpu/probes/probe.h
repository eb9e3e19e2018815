/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the probes: each probe is a program that prints facts about the real driver, one a line. */
#ifndef PROBE_H
#define PROBE_H

#include <cuda.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline void fact(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static inline void need(CUresult r, const char *what)
{
    const char *name = "?";

    if (r == CUDA_SUCCESS)
        return;
    cuGetErrorName(r, &name);
    fact("FAILED %s: %d %s", what, r, name);
    exit(1);
}
#define NEED(call) need((call), #call)

static inline double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Spins for `ticks` clock ticks, then adds 1 to *p. */
static const char *const SPIN_PTX =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry spin(.param .u64 p, .param .u64 ticks) {\n"
    " .reg .pred %q; .reg .b64 %a,%t,%s,%n; .reg .b32 %v;\n"
    " ld.param.u64 %a,[p]; ld.param.u64 %t,[ticks]; mov.u64 %s,%clock64;\n"
    "L: mov.u64 %n,%clock64; sub.s64 %n,%n,%s; setp.lt.u64 %q,%n,%t; @%q bra L;\n"
    " ld.volatile.u32 %v,[%a]; add.u32 %v,%v,1; st.volatile.u32 [%a],%v; ret; }\n";

static inline CUfunction spin_kernel(void)
{
    CUmodule m;
    CUfunction f;

    NEED(cuModuleLoadData(&m, SPIN_PTX));
    NEED(cuModuleGetFunction(&f, m, "spin"));
    return f;
}

static inline CUresult spin(CUfunction f, CUdeviceptr p, uint64_t ticks, CUstream s)
{
    void *params[] = { &p, &ticks };

    return cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, s, params, NULL);
}

static inline CUcontext start(void)
{
    CUdevice d;
    CUcontext c;

    NEED(cuInit(0));
    NEED(cuDeviceGet(&d, 0));
    NEED(cuDevicePrimaryCtxRetain(&c, d));
    NEED(cuCtxSetCurrent(c));
    return c;
}

#endif
