/* SPDX-License-Identifier: Apache-2.0 */
/* The client's devices, and the sticky errors of their contexts. */
#include <errno.h>

#include "loop.h"

struct oh_device oh_devices[OC_MAX_DEVICES];
uint32_t oh_nr_devices;

int oh_devices_start(void)
{
    if (!oh_config.nr_devices || oh_config.nr_devices > OC_MAX_DEVICES) {
        oh_set_error("%u devices in the start message, 1 to %u are possible", oh_config.nr_devices, OC_MAX_DEVICES);
        return -EINVAL;
    }
    oh_nr_devices = oh_config.nr_devices;
    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        struct oh_device *d = &oh_devices[i];

        d->ordinal = oh_config.ordinals[i];
        d->limit_bytes = oh_config.limits[i];
        d->base_bytes = oh_config.context_bytes[i];
        d->primary = true; /* the first vGPU of a card */
        for (uint32_t j = 0; j < i; j++)
            d->primary = d->primary && oh_devices[j].ordinal != d->ordinal;
    }
    return oh_group_start();
}

/* Errors after which CUDA answers every call of the context with the same error. */
static bool is_sticky(CUresult r)
{
    switch ((int)r) {
    case 214: /* ECC_UNCORRECTABLE */
    case 220: /* NVLINK_UNCORRECTABLE */
    case 226: /* CONTAINED */
    case 700: /* ILLEGAL_ADDRESS */
    case 702: /* LAUNCH_TIMEOUT */
    case 710: /* ASSERT */
    case 714: /* HARDWARE_STACK_ERROR */
    case 715: /* ILLEGAL_INSTRUCTION */
    case 716: /* MISALIGNED_ADDRESS */
    case 717: /* INVALID_ADDRESS_SPACE */
    case 718: /* INVALID_PC */
    case 719: /* LAUNCH_FAILED */
        return true;
    default:
        return false;
    }
}

/* The fault of one context reaches the others of its card at their next call (measured): publish it for all. */
void oh_note_sticky(struct oh_twin *t, CUresult r)
{
    int ordinal;

    if (!is_sticky(r) || t->device < 0 || (uint32_t)t->device >= oh_nr_devices)
        return;
    ordinal = oh_devices[t->device].ordinal;
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        if (oh_devices[i].ordinal == ordinal)
            atomic_store(&oh_channel->device_error[i], (uint32_t)r);
    oh_log("device %d has failed: error %d", t->device, (int)r);
}

void oh_clear_sticky(int device)
{
    atomic_store(&oh_channel->device_error[device], 0);
}
