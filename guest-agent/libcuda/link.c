/* SPDX-License-Identifier: Apache-2.0 */
/* The open channel: checks the block that WELCOME named and sets the ring up. */
#include <string.h>

#include "core.h"

struct og_link og_link = { .fd = -1 };

/* A region of a single extent has its header in it, and the one channel gets the rest. */
static uint64_t block_bytes(void)
{
    uint64_t left = og_link.shm ? og_shared_region.bytes - og_link.block_off : OC_CHANNEL_BYTES;

    return left < OC_CHANNEL_BYTES ? left : OC_CHANNEL_BYTES;
}

static bool part_fits(uint32_t off, uint64_t bytes)
{
    return off % OC_LINE == 0 && off >= sizeof(struct oc_channel) && og_inside(off, bytes, block_bytes());
}

static bool block_fits(uint64_t off)
{
    return off % 4096 == 0 && og_inside(off, OC_STAGING_OFF, og_shared_region.bytes);
}

static bool layout_fits(const struct oc_channel *c)
{
    return c->magic == OC_MAGIC && part_fits(c->ring_off, OC_RING_LINES * OC_LINE) &&
           part_fits(c->slots_off, OC_NR_SLOTS * OC_SLOT_BYTES) &&
           part_fits(c->callbacks_off, OC_NR_CALLBACKS * sizeof(struct oc_callback)) &&
           part_fits(c->staging_off, c->staging_bytes);
}

static CUresult wrong(const char *what)
{
    og_say("no vGPU: the Orion server's channel is unusable: %s; host and guest versions differ?", what);
    return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
}

CUresult og_link_open(uint64_t block_off)
{
    struct og_why why;
    CUresult r;

    og_link.block_off = block_off;
    if (og_link.shm) {
        if (!block_fits(block_off))
            return wrong("the block lies outside the region");
        og_link.channel = (struct oc_channel *)(void *)(og_shared_region.base + block_off);
    } else {
        r = og_tcp_open(&why);
        if (r != CUDA_SUCCESS) {
            og_say("no vGPU: %s", why.text);
            return r;
        }
    }
    memcpy(&og_link.layout, og_link.channel, OC_LINE); /* line 0: constant, but the host's word is checked once */
    if (!layout_fits(&og_link.layout))
        return wrong("its first line is malformed");
    og_link.slots = (struct oc_slot *)(void *)((uint8_t *)og_link.channel + og_link.layout.slots_off);
    og_link.ring = (struct oc_producer){ .channel = og_link.channel,
                                         .lines = (uint8_t *)og_link.channel + og_link.layout.ring_off };
    return CUDA_SUCCESS;
}

bool og_peer_knows(uint32_t op)
{
    return op < OW_NR_OPS && og_link.ops[op / 8] >> op % 8 & 1;
}

bool og_shared_memory(void)
{
    return og_link.shm;
}

struct oc_channel *og_channel(void)
{
    return og_link.channel;
}

/* Over TCP offsets of the block are taken from here too, so that block_off + x finds x of our copy. */
void *og_region(void)
{
    return og_link.shm ? (void *)og_shared_region.base
                       : (void *)((uintptr_t)og_link.channel - (uintptr_t)og_link.block_off);
}

uint64_t og_block_off(void)
{
    return og_link.block_off;
}

void og_flush(uint64_t region_off, uint64_t bytes)
{
    if (!og_link.shm)
        og_tcp_send(region_off, bytes);
}
