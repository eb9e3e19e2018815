/* SPDX-License-Identifier: Apache-2.0 */
/* Which driver variables still act when set after cuInit, or after the context exists (a warm worker)? */
#include "probe.h"

#include <sys/wait.h>

static const char *const settings[][2] = {
    { "CUDA_LAUNCH_BLOCKING", "1" }, { "CUDA_MODULE_LOADING", "EAGER" },
    { "CUDA_DEVICE_MAX_CONNECTIONS", "1" }, { "CUDA_DISABLE_PTX_JIT", "1" },
};

static void body(const char *name, const char *value, int phase)
{
    CUmoduleLoadingMode mode = 0;
    CUdevice d;
    CUcontext c;
    CUdeviceptr p;
    CUmodule m;
    CUresult jit;
    double t;

    if (phase == 0)
        setenv(name, value, 1);
    NEED(cuInit(0));
    if (phase == 1)
        setenv(name, value, 1);
    NEED(cuDeviceGet(&d, 0));
    NEED(cuDevicePrimaryCtxRetain(&c, d));
    NEED(cuCtxSetCurrent(c));
    if (phase == 2)
        setenv(name, value, 1);
    NEED(cuModuleGetLoadingMode(&mode));
    jit = cuModuleLoadData(&m, SPIN_PTX);
    unsetenv("CUDA_DISABLE_PTX_JIT");
    if (jit) {
        fact("%s=%s set %s: mode %d, PTX load %d", name, value, phase == 0 ? "before cuInit" : phase == 1 ? "after cuInit" : "after the context", mode, jit);
        return;
    }
    CUfunction f;
    NEED(cuModuleGetFunction(&f, m, "spin"));
    NEED(cuMemAlloc(&p, 4096));
    NEED(spin(f, p, 10, 0));
    NEED(cuCtxSynchronize());
    t = now();
    NEED(spin(f, p, 100000000, 0));
    t = now() - t;
    NEED(cuCtxSynchronize());
    /* four independent streams: serialized when there is one connection */
    CUstream s[4];
    double u;
    for (int i = 0; i < 4; i++)
        NEED(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
    u = now();
    for (int i = 0; i < 8; i++)
        NEED(spin(f, p + 64 * i, 20000000, s[i / 2]));
    NEED(cuCtxSynchronize());
    fact("%s=%s set %s: mode %d, launch of a 50 ms kernel returned in %.2f ms, 8 kernels of 10 ms on 4 streams took %.0f ms",
         name, value, phase == 0 ? "before cuInit" : phase == 1 ? "after cuInit" : "after the context", mode, t * 1e3, (now() - u) * 1e3);
}

int main(void)
{
    for (unsigned i = 0; i < sizeof settings / sizeof *settings; i++)
        for (int phase = 0; phase < 3; phase++) {
            if (fork() == 0) {
                body(settings[i][0], settings[i][1], phase);
                _exit(0);
            }
            wait(NULL);
        }
    if (fork() == 0) {
        body("NOTHING", "0", 0);
        _exit(0);
    }
    wait(NULL);
    return 0;
}
