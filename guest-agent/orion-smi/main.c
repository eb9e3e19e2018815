/* SPDX-License-Identifier: Apache-2.0 */
/* orion-smi: shows this machine's vGPUs and what its processes use of them, for any user. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "orion-smi.h"

static const char usage[] =
    "Usage: orion-smi [-L | -q | --json | -h]\n"
    "  (nothing)  a table of the vGPUs and of this machine's processes on them\n"
    "  -L         one line for each vGPU: name and UUID\n"
    "  -q         everything, one figure a line\n"
    "  --json     the same for programs\n"
    "Those are shown that a process has without asking (one, unless the host says more for this machine), and each that\n"
    "a process uses; ORION_VGPU=N shows N of them, ORION_GMEM=MIB gives their size.\n";

/* The value of a figure, UNKNOWN where the host does not tell it. */
static long long known(nvmlReturn_t r, unsigned value)
{
    return r == NVML_SUCCESS ? (long long)value : UNKNOWN;
}

static void gather_processes(nvmlDevice_t device, struct vgpu *g)
{
    nvmlProcessInfo_t info[MAX_PROCESSES];
    unsigned count = MAX_PROCESSES;

    if (nvmlDeviceGetComputeRunningProcesses_v3(device, &count, info) != NVML_SUCCESS)
        return;
    g->nr_processes = count;
    for (unsigned i = 0; i < count; i++) {
        g->process[i].pid = info[i].pid;
        g->process[i].used = info[i].usedGpuMemory;
        /* one of another container, or one that has just ended */
        if (nvmlSystemGetProcessName(info[i].pid, g->process[i].name, sizeof(g->process[i].name)) != NVML_SUCCESS)
            strcpy(g->process[i].name, "[not found]");
    }
}

static void gather_sensors(nvmlDevice_t device, struct vgpu *g)
{
    unsigned long long errors = 0;
    nvmlUtilization_t load = { 0 };
    unsigned value = 0;
    nvmlReturn_t r;

    r = nvmlDeviceGetUtilizationRates(device, &load);
    g->load = known(r, load.gpu);
    g->memory_load = known(r, load.memory);
    g->temperature = known(nvmlDeviceGetTemperature(device, 0, &value), value);
    g->power_mw = known(nvmlDeviceGetPowerUsage(device, &value), value);
    g->limit_mw = known(nvmlDeviceGetEnforcedPowerLimit(device, &value), value);
    g->pstate = known(nvmlDeviceGetPerformanceState(device, &value), value);
    g->sm_mhz = known(nvmlDeviceGetClockInfo(device, 1, &value), value);
    g->memory_mhz = known(nvmlDeviceGetClockInfo(device, 2, &value), value);
    r = nvmlDeviceGetTotalEccErrors(device, 1, 0, &errors); /* uncorrected, since the driver was loaded */
    g->ecc = r == NVML_SUCCESS ? (long long)errors : UNKNOWN;
}

static nvmlReturn_t gather(unsigned index, struct vgpu *g)
{
    nvmlMemory_t memory = { 0 };
    nvmlPciInfo_t pci;
    nvmlDevice_t device;
    nvmlReturn_t r = nvmlDeviceGetHandleByIndex_v2(index, &device);

    g->index = index;
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetName(device, g->name, sizeof(g->name));
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetUUID(device, g->uuid, sizeof(g->uuid));
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetSerial(device, g->serial, sizeof(g->serial));
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetPciInfo_v3(device, &pci);
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetCudaComputeCapability(device, &g->major, &g->minor);
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetMemoryInfo(device, &memory);
    if (r != NVML_SUCCESS)
        return r;
    strcpy(g->bus_id, pci.busId);
    g->total = memory.total;
    g->used = memory.used;
    gather_sensors(device, g);
    gather_processes(device, g);
    return NVML_SUCCESS;
}

/* How many vGPUs a process of this machine has that says nothing; then all that there may be are looked at. */
static nvmlReturn_t open_all(unsigned *least)
{
    nvmlReturn_t r = nvmlInit_v2();

    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetCount_v2(least);
    if (r != NVML_SUCCESS)
        return r;
    nvmlShutdown();
    setenv("ORION_VGPU", "32", 1);
    return nvmlInit_v2();
}

/* The first `least` are shown, and of the others those that a process uses. */
static nvmlReturn_t gather_all(struct machine *m, unsigned least)
{
    unsigned count;
    nvmlReturn_t r = nvmlSystemGetDriverVersion(m->driver, sizeof(m->driver));

    if (r == NVML_SUCCESS)
        r = nvmlSystemGetCudaDriverVersion(&m->cuda);
    if (r == NVML_SUCCESS)
        r = nvmlDeviceGetCount_v2(&count);
    if (r != NVML_SUCCESS)
        return r;
    m->vgpu = calloc(count, sizeof(*m->vgpu));
    if (!m->vgpu)
        return NVML_ERROR_MEMORY;
    for (unsigned i = 0; r == NVML_SUCCESS && i < count; i++) {
        struct vgpu *g = &m->vgpu[m->nr_vgpus];

        r = gather(i, g);
        if (i < least || g->nr_processes)
            m->nr_vgpus++;
        else
            memset(g, 0, sizeof(*g));
    }
    return r;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *option;
        void (*print)(const struct machine *m);
    } modes[] = { { "", print_table }, { "-L", print_list }, { "-q", print_details }, { "--json", print_json } };
    const char *option = argc > 1 ? argv[1] : "", *asked = getenv("ORION_VGPU");
    void (*print)(const struct machine *m) = NULL;
    struct machine m = { .cuda = 0 };
    unsigned least = MAX_VGPUS;
    nvmlReturn_t r;

    if (argc == 2 && (!strcmp(option, "-h") || !strcmp(option, "--help"))) {
        fputs(usage, stdout);
        return 0;
    }
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]) && argc <= 2; i++)
        if (!strcmp(option, modes[i].option))
            print = modes[i].print;
    if (!print || (argc == 2 && !*option)) {
        fprintf(stderr, "orion-smi: unknown option '%s'\n%s", argc > 2 ? argv[2] : option, usage);
        return 2;
    }
    r = asked && *asked ? nvmlInit_v2() : open_all(&least);
    if (r == NVML_SUCCESS)
        r = gather_all(&m, least);
    if (r != NVML_SUCCESS) {
        fprintf(stderr, "orion-smi: the vGPUs cannot be shown: %s. `orion-check runtime client` looks for the cause\n",
                nvmlErrorString(r));
        return 1;
    }
    print(&m);
    return fflush(stdout) ? 1 : 0;
}
