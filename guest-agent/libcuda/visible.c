/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, applied here as the driver does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core.h"

static int nr_visible;
static int visible[OC_MAX_DEVICES];

int og_nr_devices(void)
{
    return nr_visible;
}

int og_visible(int device)
{
    return visible[device];
}

/* Index of the only vGPU whose "GPU-<uuid>" starts with `word`; -1: none or several. */
static int by_uuid(const char *word, size_t bytes)
{
    int found = -1;

    for (int i = 0; i < og_settings.vgpus; i++) {
        char text[37], full[48];
        uint8_t uuid[16];

        og_visible_uuid(i, uuid);
        og_uuid_text(uuid, text);
        snprintf(full, sizeof(full), "GPU-%s", text);
        if (bytes > strlen(full) || strncasecmp(full, word, bytes))
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

/* One entry of the list; -1 ends the list, as a bad entry does natively. */
static int one(const char *word, size_t bytes)
{
    char text[64];
    char *end;
    long n;

    if (bytes > 4 && !strncasecmp(word, "GPU-", 4))
        return by_uuid(word, bytes);
    if (!bytes || bytes >= sizeof(text))
        return -1;
    memcpy(text, word, bytes);
    text[bytes] = '\0';
    n = strtol(text, &end, 10);
    return end != text && n >= 0 && n < og_settings.vgpus ? (int)n : -1;
}

/* Devices up to the first bad entry; an entry named twice makes the whole list void. */
static void apply(const char *list)
{
    nr_visible = 0;
    while (*list) {
        size_t lead = strspn(list, " \t"), bytes = strcspn(list + lead, ",");
        const char *word = list + lead;
        int index;

        list = word + bytes;
        list += *list == ',';
        while (bytes && (word[bytes - 1] == ' ' || word[bytes - 1] == '\t'))
            bytes--;
        index = one(word, bytes);
        if (index < 0)
            return;
        for (int i = 0; i < nr_visible; i++) {
            if (visible[i] == index) {
                nr_visible = 0;
                return;
            }
        }
        visible[nr_visible++] = index;
    }
}

CUresult og_visible_set(void)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES"), *order = getenv("CUDA_DEVICE_ORDER");

    /* vGPUs are numbered in placement order, and so are their bus ids: both orders are the same */
    if (order && strcmp(order, "FASTEST_FIRST") && strcmp(order, "PCI_BUS_ID"))
        og_log_at(OG_WARNING, "CUDA_DEVICE_ORDER=%s is neither FASTEST_FIRST nor PCI_BUS_ID; it is ignored", order);
    nr_visible = og_settings.vgpus;
    for (int i = 0; i < nr_visible; i++)
        visible[i] = i;
    if (list)
        apply(list);
    if (nr_visible > 0)
        return CUDA_SUCCESS;
    og_log_at(OG_WARNING, "CUDA_VISIBLE_DEVICES=%s hides all %d vGPUs of ORION_VGPU", list ? list : "",
              og_settings.vgpus);
    return CUDA_ERROR_NO_DEVICE;
}
