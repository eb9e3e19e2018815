/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver reports of this process: NVML's list of processes, read in the process itself. */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include "extra.h"
#include "loop.h"

#define NOT_AVAILABLE UINT64_MAX
#define MOST_PROCESSES 4096u
#define BUS_ID_BYTES 32

struct process { /* nvmlProcessInfo_t of nvml.h */
    unsigned pid;
    unsigned long long used_bytes;
    unsigned instance, compute_instance;
};
enum { NVML_SUCCESS = 0, NVML_INSUFFICIENT_SIZE = 7 };

static int (*by_bus_id)(const char *bus_id, void **device);
static int (*running)(void *device, unsigned *count, struct process *infos);
static void *devices[OC_MAX_DEVICES]; /* by the client's device; NULL: not asked for yet */
static struct process *infos;
static unsigned room;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The simulated GPU has these functions itself; a card's driver has them in a library of their own. */
void oh_report_open(void *driver)
{
    void *dl = dlsym(driver, "nvmlInit_v2") ? driver : dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*init)(void) = dl ? (int (*)(void))dlsym(dl, "nvmlInit_v2") : NULL;

    if (!init || init() != NVML_SUCCESS)
        return;
    by_bus_id = (int (*)(const char *, void **))dlsym(dl, "nvmlDeviceGetHandleByPciBusId_v2");
    running = (int (*)(void *, unsigned *, struct process *))dlsym(dl, "nvmlDeviceGetComputeRunningProcesses_v3");
}

/* NULL: NVML does not know the card. */
static void *device_locked(int ordinal)
{
    char bus_id[BUS_ID_BYTES];
    CUdevice dev;

    if (ordinal < 0 || (unsigned)ordinal >= OC_MAX_DEVICES)
        return NULL;
    if (!devices[ordinal] && (oh_drv.cuDeviceGet(&dev, ordinal) != CUDA_SUCCESS ||
                              OH_CALL(cuDeviceGetPCIBusId, bus_id, sizeof(bus_id), dev) != CUDA_SUCCESS ||
                              by_bus_id(bus_id, &devices[ordinal]) != NVML_SUCCESS))
        devices[ordinal] = NULL;
    return devices[ordinal];
}

/* Fills infos; the number of processes, -1: no answer. */
static int list_locked(void *device)
{
    int result;

    for (;;) {
        unsigned count = room;

        result = running(device, &count, infos);
        if (result == NVML_SUCCESS)
            return (int)count;
        if (result != NVML_INSUFFICIENT_SIZE || room >= MOST_PROCESSES)
            return -1;
        free(infos);
        room = count + 64 < MOST_PROCESSES ? count + 64 : MOST_PROCESSES; /* others may come meanwhile */
        infos = calloc(room, sizeof(*infos));
        if (!infos)
            room = 0;
        if (!infos)
            return -1;
    }
}

bool oh_report(int ordinal, uint64_t *bytes)
{
    bool found = true;
    void *device;
    int count;

    *bytes = 0;
    if (!by_bus_id || !running)
        return false;
    pthread_mutex_lock(&lock);
    device = device_locked(ordinal);
    count = device ? list_locked(device) : -1;
    for (int i = 0; i < count; i++)
        if (infos[i].pid == (unsigned)getpid()) {
            found = infos[i].used_bytes != NOT_AVAILABLE;
            *bytes = infos[i].used_bytes;
        }
    pthread_mutex_unlock(&lock);
    return count >= 0 && found;
}
