/* SPDX-License-Identifier: Apache-2.0 */
/* cuInit and what the simulated devices say about themselves. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim_device sim_devices[SIM_MAX_DEVICES];
int sim_nr_devices;
static _Atomic bool initialized, forked;
static pthread_once_t once = PTHREAD_ONCE_INIT;

bool sim_initialized(void)
{
    return initialized;
}

void sim_say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("orion simulated GPU: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* Says what is wrong with a variable of the environment, once. */
static void say_bad(const char *name, const char *text, const char *wanted, const char *used)
{
    static const char *said[8];
    static _Atomic unsigned nr;

    for (unsigned i = 0; i < nr && i < 8; i++)
        if (said[i] && !strcmp(said[i], name))
            return;
    if (nr < 8)
        said[nr++] = name;
    sim_say("%s=%s is not %s; using %s", name, text, wanted, used);
}

static uint64_t env_number(const char *name, uint64_t fallback, uint64_t limit)
{
    const char *text = getenv(name);
    char *end, wanted[64], used[24];

    if (!text || !*text)
        return fallback;
    uint64_t v = strtoull(text, &end, 10);
    if (!*end && *text != '-' && v <= limit)
        return v;
    snprintf(wanted, sizeof(wanted), "a number from 0 to %llu", (unsigned long long)limit);
    snprintf(used, sizeof(used), "%llu", (unsigned long long)fallback);
    say_bad(name, text, wanted, used);
    return fallback;
}

/* Read at each launch, so that a program may change them. */
void sim_launch_settings(struct ptx_launch *l)
{
    const char *text = getenv("ORION_SIM_TRANSLATE");

    l->threads = (unsigned)env_number("ORION_SIM_THREADS", 0, PTX_THREADS_MAX);
    l->timeout_s = (unsigned)env_number("ORION_SIM_TIMEOUT", 0, 1u << 30);
    l->translate = PTX_TRANSLATE_HOT;
    if (text && !strcmp(text, "always"))
        l->translate = PTX_TRANSLATE_ALL;
    else if (text && !strcmp(text, "never"))
        l->translate = PTX_TRANSLATE_NONE;
    else if (text && *text && strcmp(text, "auto"))
        say_bad("ORION_SIM_TRANSLATE", text, "auto, always or never", "auto");
}

/* Its threads do not exist in a child, whose CUDA is over therefore. */
static void in_child(void)
{
    initialized = false;
    forked = true;
}

static void init_devices(void)
{
    pthread_atfork(NULL, NULL, in_child);
    uint64_t mib = env_number("ORION_SIM_MEMORY", 8192, 1u << 20);

    sim_nr_devices = (int)env_number("ORION_SIM_GPUS", 1, SIM_MAX_DEVICES);
    for (int i = 0; i < sim_nr_devices; i++) {
        sim_devices[i].ordinal = i;
        sim_devices[i].total_bytes = mib << 20;
        sim_devices[i].context_bytes = env_number("ORION_SIM_CONTEXT", 0, 1u << 20) << 20;
    }
    if (sim_nr_devices && sim_devices[0].context_bytes)
        sim_own_open();
}

SIM_API CUresult cuInit(unsigned int flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (forked)
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_once(&once, init_devices);
    if (!sim_nr_devices)
        return CUDA_ERROR_NO_DEVICE;
    initialized = true;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = 13000;
    return CUDA_SUCCESS;
}

struct sim_device *sim_device(CUdevice device)
{
    return device >= 0 && device < sim_nr_devices ? &sim_devices[device] : NULL;
}

/* What every query of a device checks first. */
static CUresult check(const void *out, CUdevice device)
{
    if (!initialized)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

SIM_API CUresult cuDeviceGetCount(int *count)
{
    CUresult r = check(count, 0);

    if (!r)
        *count = sim_nr_devices;
    return r;
}

SIM_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult r = check(device, ordinal);

    if (!r)
        *device = ordinal;
    return r;
}

SIM_API CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    CUresult r = check(name, dev);

    if (r)
        return r;
    if (len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)len, "Orion Simulated GPU");
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    CUresult r = check(bytes, dev);

    if (!r)
        *bytes = sim_devices[dev].total_bytes;
    return r;
}

SIM_API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    CUresult r = check(uuid, dev);

    if (r)
        return r;
    memcpy(uuid->bytes, "OrionSimulated\0\0", 16);
    uuid->bytes[15] = (char)dev;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    return cuDeviceGetUuid_v2(uuid, dev);
}

SIM_API CUresult cuDeviceGetLuid(char *luid, unsigned int *mask, CUdevice dev)
{
    CUresult r = check(luid, dev);

    (void)mask;
    return r ? r : CUDA_ERROR_NOT_SUPPORTED;
}

SIM_API CUresult cuDeviceGetPCIBusId(char *text, int len, CUdevice dev)
{
    CUresult r = check(text, dev);

    if (r)
        return r;
    if (len < 13)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(text, (size_t)len, "0000:%02X:00.0", dev + 1);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *text)
{
    CUresult r = check(dev, 0);
    unsigned domain = 0, bus, slot, fn = 0;

    if (r)
        return r;
    if (!text || (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &fn) != 4 &&
                  sscanf(text, "%x:%x.%x", &bus, &slot, &fn) != 3))
        return CUDA_ERROR_INVALID_VALUE;
    if (domain || slot || fn || !bus || !sim_device((int)bus - 1))
        return CUDA_ERROR_INVALID_DEVICE;
    *dev = (int)bus - 1;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    CUresult r = check(major, dev);

    if (r)
        return r;
    if (!minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = 9;
    *minor = 0;
    return CUDA_SUCCESS;
}

/* Index = CUdevice_attribute. The card class of compute capability 9.0, small, and honest about
 * what the simulation lacks: 0 for textures in hardware, GPUDirect, fabric, multicast. */
static const int attributes[151] = {
    [1] = 1024, [2] = 1024, [3] = 1024, [4] = 64, [5] = 2147483647, [6] = 65535, [7] = 65535, [8] = 49152,
    [9] = 65536, [10] = 32, [11] = 2147483647, [12] = 65536, [13] = 1000000, [14] = 512, [15] = 1,
    [16] = SIM_MULTIPROCESSORS, [17] = 0, [18] = 0, [19] = 1, [20] = 0,
    [21] = 131072, [22] = 131072, [23] = 65536, [24] = 16384, [25] = 16384, [26] = 16384, [27] = 32768,
    [28] = 32768, [29] = 2048, [30] = 512, [31] = 1, [32] = 0, [34] = 0, [35] = 0, [36] = 1000000, [37] = 64,
    [38] = 1 << 20, [39] = 2048, [40] = 3, [41] = 1, [42] = 32768, [43] = 2048, [44] = 0,
    [45] = 32768, [46] = 32768, [47] = 8192, [48] = 8192, [49] = 16384, [50] = 0, [51] = 32, [52] = 32768,
    [53] = 32768, [54] = 2046, [55] = 32768, [56] = 32768, [57] = 32768, [58] = 16384, [59] = 16384,
    [60] = 16384, [61] = 32768, [62] = 2048, [63] = 32768, [64] = 32768, [65] = 2048, [66] = 32768, [67] = 32768,
    [68] = 2046, [69] = 268435456, [70] = 131072, [71] = 65536, [72] = 2097120, [73] = 32768, [74] = 32768,
    [75] = 9, [76] = 0, [77] = 32768, [78] = 1, [79] = 1, [80] = 1, [81] = 233472, [82] = 65536, [83] = 1,
    [84] = 0, [85] = 0, [86] = 0, [87] = 2, [88] = 0, [89] = 0, [90] = 1, [91] = 1, [92] = 1, [93] = 1,
    [94] = 1, [95] = 1, [96] = 1, [97] = 232448, [98] = 0, [99] = 1, [100] = 0, [101] = 0, [102] = 1,
    [103] = 1, [104] = 0, [105] = 0, [106] = 32, [107] = 0, [108] = 0, [109] = 0, [110] = 0, [111] = 1024,
    [112] = 0, [113] = 0, [114] = 0, [115] = 1, [116] = 0, [117] = 0, [118] = 0, [119] = 1, [120] = 1,
    [121] = 0, [122] = 0, [123] = 0, [124] = 0, [125] = 1, [126] = 0, [127] = 0, [128] = 0, [129] = 0, [130] = 0,
    [131] = 0, [132] = 0, [133] = 0, [134] = 0,
};

SIM_API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice dev)
{
    CUresult r = check(value, dev);

    if (r)
        return r;
    if ((int)attribute < 1 || (int)attribute > 150)
        return CUDA_ERROR_INVALID_VALUE;
    *value = (int)attribute == 33 ? dev + 1 : attributes[attribute]; /* 33: PCI bus */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice dev, CUdevice peer)
{
    CUresult r = check(can, dev);

    if (r)
        return r;
    if (!sim_device(peer))
        return CUDA_ERROR_INVALID_DEVICE;
    *can = dev != peer; /* all memory is the host's */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice dev, CUdevice peer)
{
    CUresult r = check(value, dev);

    if (r)
        return r;
    if (!sim_device(peer) || dev == peer)
        return CUDA_ERROR_INVALID_DEVICE;
    *value = (int)attribute == 2 || (int)attribute == 3; /* access and native atomics, both the host's */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetTexture1DLinearMaxWidth(size_t *max, CUarray_format format, unsigned channels, CUdevice dev)
{
    (void)format;
    (void)channels;
    CUresult r = check(max, dev);

    if (!r)
        *max = (size_t)attributes[69];
    return r;
}

SIM_API CUresult cuDeviceGetExecAffinitySupport(int *value, CUexecAffinityType type, CUdevice dev)
{
    (void)type;
    CUresult r = check(value, dev);

    if (!r)
        *value = 0;
    return r;
}

/* The host's memory is this device's too: every operation of its words works there. Bits as CUatomicOperationCapability. */
SIM_API CUresult cuDeviceGetHostAtomicCapabilities(unsigned *capabilities, const CUatomicOperation *operations,
                                                   unsigned count, CUdevice dev)
{
    enum { INTEGER_MAX = 2, FLOAT_ADD = 10, LAST = 12 };

    if (!sim_device(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!capabilities || !operations || !count)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++)
        if (operations[i] > LAST)
            return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) /* signed, unsigned, reductions, 32 and 64 bits */
        capabilities[i] = operations[i] <= INTEGER_MAX ? 0x1f : operations[i] < FLOAT_ADD ? 0x1e : 0xf;
    return CUDA_SUCCESS;
}
