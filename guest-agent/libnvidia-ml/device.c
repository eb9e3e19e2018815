/* SPDX-License-Identifier: Apache-2.0 */
/* Which vGPUs there are: count, handles, names, bus ids. The same as CUDA's, before CUDA_VISIBLE_DEVICES. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "nvml.h"

#define ATTRIBUTE_MAJOR 75 /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR behind it */
#define DISPLAY_CLASS 3    /* PCI: display controller, ... */
#define CLASS_3D 2         /* ... 3D controller */

struct nvmlDevice_st {
    int unused;
};
static struct nvmlDevice_st handles[OC_MAX_DEVICES];

nvmlDevice_t og_handle_of(int index)
{
    return &handles[index];
}

nvmlReturn_t og_device_of(nvmlDevice_t device, int *index)
{
    uintptr_t at = (uintptr_t)device - (uintptr_t)handles;

    if (og_ready() != NVML_SUCCESS)
        return NVML_ERROR_UNINITIALIZED;
    if (at % sizeof(handles[0]) || at / sizeof(handles[0]) >= (unsigned)og_settings.vgpus)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (index)
        *index = (int)(at / sizeof(handles[0]));
    return NVML_SUCCESS;
}

unsigned og_card_of(int index)
{
    return (unsigned)(og_device_gpu(index) - og_snapshot()->gpu);
}

/* The vGPU at an index, or why there is none. */
static nvmlReturn_t give(int index, nvmlDevice_t *device)
{
    if (index < 0 || index >= og_settings.vgpus)
        return NVML_ERROR_NOT_FOUND;
    *device = og_handle_of(index);
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *deviceCount)
{
    if (og_ready() != NVML_SUCCESS || !deviceCount)
        return og_bad();
    *deviceCount = (unsigned)og_settings.vgpus;
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    if (og_ready() != NVML_SUCCESS || !device || index >= (unsigned)og_settings.vgpus)
        return og_bad();
    return give((int)index, device);
}

static void uuid_text(int index, char text[48])
{
    uint8_t uuid[16];
    char plain[37];

    og_visible_uuid(index, uuid);
    og_uuid_text(uuid, plain);
    snprintf(text, 48, "GPU-%s", plain);
}

/* Cards have 13 digits; ours follow from the UUID, since the card's own would name the host's hardware. */
static void serial_text(int index, char text[16])
{
    unsigned long long number = 0;
    uint8_t uuid[16];

    og_visible_uuid(index, uuid);
    for (unsigned i = 0; i < 8; i++)
        number = number << 8 | uuid[i];
    snprintf(text, 16, "%013llu", number % 10000000000000ull);
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    char text[48];
    int i;

    if (og_ready() != NVML_SUCCESS || !uuid || !device)
        return og_bad();
    for (i = 0; i < og_settings.vgpus; i++) {
        uuid_text(i, text);
        if (!strcasecmp(text, uuid))
            break;
    }
    return give(i, device);
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device)
{
    uint8_t bytes[16];
    int i;

    if (og_ready() != NVML_SUCCESS || !uuid || !device)
        return og_bad();
    if (uuid->version != NVML_VERSION_OF(nvmlUUID_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (uuid->type == 1) { /* text; 2: binary */
        char text[42];

        snprintf(text, sizeof(text), "%.41s", uuid->value.str);
        return nvmlDeviceGetHandleByUUID(text, device);
    }
    if (uuid->type != 2)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (i = 0; i < og_settings.vgpus; i++) {
        og_visible_uuid(i, bytes);
        if (!memcmp(bytes, uuid->value.bytes, sizeof(bytes)))
            break;
    }
    return give(i, device);
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
    char text[16];
    int i;

    if (og_ready() != NVML_SUCCESS || !serial || !device)
        return og_bad();
    for (i = 0; i < og_settings.vgpus; i++) {
        serial_text(i, text);
        if (!strcmp(text, serial))
            break;
    }
    return give(i, device);
}

/* "[domain:]bus:device[.function]", hexadecimal. */
OG_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    int i;

    if (og_ready() != NVML_SUCCESS || !pciBusId || !device)
        return og_bad();
    if (sscanf(pciBusId, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
        domain = function = 0;
        if (sscanf(pciBusId, "%x:%x.%x", &bus, &slot, &function) < 2)
            return NVML_ERROR_INVALID_ARGUMENT;
    }
    for (i = 0; i < og_settings.vgpus; i++)
        if (!domain && !slot && !function && (int)bus == og_device_bus(i))
            break;
    return give(i, device);
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    og_view_lock();
    r = og_put_text(name, length, og_device_gpu(index)->name);
    og_view_unlock();
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    int at;
    nvmlReturn_t r = og_device_of(device, &at);

    if (r != NVML_SUCCESS)
        return r;
    if (!index)
        return NVML_ERROR_INVALID_ARGUMENT;
    *index = (unsigned)at;
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    char text[48];
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    uuid_text(index, text);
    return og_put_text(uuid, length, text);
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    char text[16];
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    serial_text(index, text);
    return og_put_text(serial, length, text);
}

/* Bus ids are the vGPU's; the chip's and the board's numbers are the card's. */
static nvmlReturn_t pci_info(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    uint64_t ids[2] = { 0, 0 };
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    if (og_figures_of(device, FIG_PciInfo_pciDeviceId, 2, false, ids) != NVML_SUCCESS)
        ids[0] = ids[1] = 0; /* a simulated card has none */
    memset(pci, 0, sizeof(*pci));
    pci->bus = (unsigned)og_device_bus(index);
    pci->pciDeviceId = (unsigned)ids[0];
    pci->pciSubSystemId = (unsigned)ids[1];
    snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "0000:%02X:00.0", pci->bus & 0xff);
    snprintf(pci->busId, sizeof(pci->busId), "00000000:%02X:00.0", pci->bus & 0xff);
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return pci ? pci_info(device, pci) : og_bad();
}

/* The struct of this version ended before busId. */
OG_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    nvmlPciInfo_t whole;
    nvmlReturn_t r;

    if (!pci)
        return og_bad();
    r = pci_info(device, &whole);
    if (r == NVML_SUCCESS)
        memcpy(pci, &whole, offsetof(nvmlPciInfo_t, busId));
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *pci)
{
    nvmlPciInfo_t plain;
    nvmlReturn_t r;

    if (!pci)
        return og_bad();
    r = pci_info(device, &plain);
    if (r != NVML_SUCCESS)
        return r;
    if (pci->version != NVML_VERSION_OF(nvmlPciInfoExt_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    pci->domain = plain.domain;
    pci->bus = plain.bus;
    pci->device = plain.device;
    pci->pciDeviceId = plain.pciDeviceId;
    pci->pciSubSystemId = plain.pciSubSystemId;
    pci->baseClass = DISPLAY_CLASS;
    pci->subClass = CLASS_3D;
    memcpy(pci->busId, plain.busId, sizeof(pci->busId));
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    if (!major || !minor)
        return NVML_ERROR_INVALID_ARGUMENT;
    og_view_lock();
    *major = og_device_gpu(index)->attr[ATTRIBUTE_MAJOR];
    *minor = og_device_gpu(index)->attr[ATTRIBUTE_MAJOR + 1];
    og_view_unlock();
    return NVML_SUCCESS;
}
