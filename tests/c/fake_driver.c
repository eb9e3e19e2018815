/* SPDX-License-Identifier: Apache-2.0 */
/* A driver library with just what the executor's core calls. */
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

int cuInit(unsigned flags);
int cuCtxSetCurrent(void *context);
int cuCtxGetCurrent(void **context);
int cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags);
int cuMemHostUnregister(void *p);

int cuInit(unsigned flags)
{
    return flags ? 1 : 0;
}

int cuCtxSetCurrent(void *context)
{
    (void)context;
    return 0;
}

int cuCtxGetCurrent(void **context)
{
    *context = NULL;
    return 0;
}

int cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags)
{
    return p && bytes && flags ? 0 : 1;
}

int cuMemHostUnregister(void *p)
{
    return p ? 0 : 1;
}

/* ---- a card of which NVML tells what this process has ---- */

int cuDeviceGet(int *device, int ordinal);
int cuDeviceGetPCIBusId(char *text, int bytes, int device);
int nvmlInit_v2(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *infos);

_Atomic unsigned long long fake_used; /* the test's to change */

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return 0;
}

int cuDeviceGetPCIBusId(char *text, int bytes, int device)
{
    return snprintf(text, (size_t)bytes, "0000:%02x:00.0", device) < bytes ? 0 : 1;
}

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device)
{
    static int card;

    *device = &card;
    return bus_id ? 0 : 2;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *infos)
{
    struct {
        unsigned pid;
        unsigned long long used;
        unsigned unused[2];
    } *p = infos;

    if (!device || *count < 1) {
        *count = 1;
        return 7; /* NVML_ERROR_INSUFFICIENT_SIZE */
    }
    *count = 1;
    p->pid = (unsigned)getpid();
    p->used = fake_used;
    return 0;
}
