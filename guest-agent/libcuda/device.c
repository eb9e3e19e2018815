/* SPDX-License-Identifier: Apache-2.0 */
/* Devices: every question is answered from the host's snapshot, so that looking takes no allocation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "gen/send.h"

/* Newest attribute of the surface; one that the host's driver does not know is 0: the feature is absent. */
#define OG_ATTR_LAST 161

enum {
    OG_ATTR_PCI_BUS = 33,
    OG_ATTR_PCI_DEVICE = 34,
    OG_ATTR_PCI_DOMAIN = 50,
    OG_ATTR_CAPABILITY_MAJOR = 75,
    OG_ATTR_CAPABILITY_MINOR = 76,
    OG_ATTR_BY_DESCRIPTOR = 103,
    OG_ATTR_POOL_HANDLE_TYPES = 119,
    OG_ATTR_IPC_EVENTS = 125,
};

static bool og_device_valid(int device)
{
    return device >= 0 && device < og_nr_devices();
}

/* Initialised and a device of ours. */
static CUresult og_device_check(int device)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    return og_device_valid(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* Attributes that are the card's on the host and not a vGPU's in a guest. */
static bool og_attribute_is_absent(unsigned attribute)
{
    switch (attribute) {
    case OG_ATTR_BY_DESCRIPTOR: /* over TCP nothing can be shared between processes */
    case OG_ATTR_IPC_EVENTS:
        return !og_shared_region.base;
    case 88:  /* pageable memory access: guest and host do not share page tables */
    case 89:  /* concurrent managed access: a fault cannot cross the machines */
    case 100: /* pageable memory by the host's page tables */
    case 101: /* direct managed access from the host */
    case 110: /* GPUDirect RDMA for VMM: needs the card's BAR */
    case 116: /* GPUDirect RDMA */
    case 117: /* its flush options */
    case 118: /* its write ordering */
    case 124: /* dma-buf: a descriptor of the host's kernel */
    case 128: /* fabric handles */
    case 129: /* function pointers that host and device share */
    case 132: /* multicast */
    case 141: /* physical memory, */
    case 142: /* and pools, of the host's processors: the guest cannot reach them */
    case 143:
    case 144:
    case 145:
    case 146: /* dma-buf of host memory */
    case 152: /* mmap of dma-buf */
        return true;
    }
    return false;
}

/* What the host's driver answers for the card; a newer one knows more attributes. */
static bool og_attribute_known(int device, unsigned attribute)
{
    return attribute < OC_SNAP_ATTRS && og_device_gpu(device)->attr_valid[attribute / 8] >> attribute % 8 & 1;
}

static int og_attribute(int device, unsigned attribute)
{
    const struct oc_snap_gpu *gpu = og_device_gpu(device);

    if (attribute == OG_ATTR_PCI_BUS)
        return og_device_bus(device);
    if (attribute == OG_ATTR_PCI_DEVICE || attribute == OG_ATTR_PCI_DOMAIN)
        return 0;
    if (attribute == OG_ATTR_POOL_HANDLE_TYPES) /* by descriptor and nothing else */
        return og_shared_region.base ? gpu->attr[attribute] & 1 : 0;
    return og_attribute_is_absent(attribute) ? 0 : gpu->attr[attribute];
}

OG_EXPORT CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!pi || attrib < 1 || !og_attribute_known(dev, (unsigned)attrib))
        return CUDA_ERROR_INVALID_VALUE;
    *pi = og_attribute(dev, (unsigned)attrib);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetCount(int *count)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = og_nr_devices();
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult r = og_device_check(ordinal);

    if (r != CUDA_SUCCESS)
        return r;
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!name || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)len, "%s", og_device_gpu(dev)->name);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    uint8_t bytes[16];
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    og_device_uuid(dev, bytes);
    memcpy(uuid, bytes, sizeof(bytes));
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    return cuDeviceGetUuid(uuid, dev);
}

OG_EXPORT CUresult cuDeviceGetLuid(char *luid, unsigned int *deviceNodeMask, CUdevice dev)
{
    (void)luid;
    (void)deviceNodeMask;
    (void)dev;
    return og_unsupported("cuDeviceGetLuid"); /* a Windows notion, natively not supported on Linux either */
}

OG_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = og_device_bytes(dev);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!major || !minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = og_attribute(dev, OG_ATTR_CAPABILITY_MAJOR);
    *minor = og_attribute(dev, OG_ATTR_CAPABILITY_MINOR);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!prop)
        return CUDA_ERROR_INVALID_VALUE;
    memset(prop, 0, sizeof(*prop));
    prop->maxThreadsPerBlock = og_attribute(dev, 1);
    for (unsigned i = 0; i < 3; i++) {
        prop->maxThreadsDim[i] = og_attribute(dev, 2 + i);
        prop->maxGridSize[i] = og_attribute(dev, 5 + i);
    }
    prop->sharedMemPerBlock = og_attribute(dev, 8);
    prop->totalConstantMemory = og_attribute(dev, 9);
    prop->SIMDWidth = og_attribute(dev, 10);
    prop->memPitch = og_attribute(dev, 11);
    prop->regsPerBlock = og_attribute(dev, 12);
    prop->clockRate = og_attribute(dev, 13);
    prop->textureAlign = og_attribute(dev, 14);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!pciBusId || len < 13)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(pciBusId, (size_t)len, "0000:%02X:00.0", og_device_bus(dev) & 0xff);
    return CUDA_SUCCESS;
}

/* "[domain]:bus:device.function", the domain and the function may be missing. */
static bool og_parse_bus_id(const char *text, unsigned *domain, unsigned *bus, unsigned *device)
{
    unsigned function = 0;
    int n = sscanf(text, "%x:%x:%x.%x", domain, bus, device, &function);

    if (n >= 3)
        return function == 0;
    *domain = 0;
    return sscanf(text, "%x:%x.%x", bus, device, &function) >= 2 && function == 0;
}

OG_EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *pciBusId)
{
    unsigned domain, bus, device;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!dev || !pciBusId || !og_parse_bus_id(pciBusId, &domain, &bus, &device))
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < og_nr_devices(); i++) {
        if (domain != 0 || device != 0 || (int)bus != og_device_bus(i))
            continue;
        *dev = i;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_DEVICE;
}

OG_EXPORT CUresult cuDeviceGetExecAffinitySupport(int *pi, CUexecAffinityType type, CUdevice dev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS)
        return r;
    (void)type; /* natively no type is wrong */
    if (!pi)
        return CUDA_ERROR_INVALID_VALUE;
    *pi = 0; /* contexts of a part of a card are not offered */
    return CUDA_SUCCESS;
}

/* Which cards the vGPUs are on is known once they are granted. */
static CUresult og_peer_question(int *value, unsigned attribute, int src, int dst)
{
    CUresult r = og_device_check(src);

    if (r == CUDA_SUCCESS)
        r = og_device_check(dst);
    if (r != CUDA_SUCCESS)
        return r;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_connect();
    return r == CUDA_SUCCESS ? og_send_orion_peer_attribute(src, dst, attribute, value) : r;
}

OG_EXPORT CUresult cuDeviceCanAccessPeer(int *canAccessPeer, CUdevice dev, CUdevice peerDev)
{
    CUresult r = og_device_check(dev);

    if (r != CUDA_SUCCESS || dev != peerDev)
        return r != CUDA_SUCCESS ? r : og_peer_question(canAccessPeer, 0, dev, peerDev);
    if (!canAccessPeer)
        return CUDA_ERROR_INVALID_VALUE;
    *canAccessPeer = 0; /* as natively: a device is no peer of itself */
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attrib, CUdevice srcDevice,
                                           CUdevice dstDevice)
{
    if (srcDevice == dstDevice)
        return CUDA_ERROR_INVALID_DEVICE;
    if (attrib < 1 || attrib > 6)
        return CUDA_ERROR_INVALID_VALUE;
    return og_peer_question(value, attrib, srcDevice, dstDevice);
}
