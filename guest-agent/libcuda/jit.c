/* SPDX-License-Identifier: Apache-2.0 */
/* Options of a module or library load: numbers cross packed, logs and times come back afterwards. */
#include <string.h>

#include "gen/send.h"
#include "modules.h"

enum {
    OG_JIT_THREADS_PER_BLOCK = 1,
    OG_JIT_WALL_TIME = 2,
    OG_JIT_INFO_LOG = 3,
    OG_JIT_INFO_LOG_BYTES = 4,
    OG_JIT_ERROR_LOG = 5,
    OG_JIT_ERROR_LOG_BYTES = 6,
    OG_JIT_GLOBAL_NAMES = 17,
    OG_JIT_GLOBAL_ADDRESSES = 18,
    OG_JIT_KERNEL_NAMES = 25,
    OG_JIT_VARIABLE_NAMES = 27,
    OG_JIT_LAST = 40,
};
/* `which` of orion_image_log: 0, 1 a log; then numbers. */
enum { OG_LOG_WALL = 2, OG_LOG_THREADS = 3 };

static CUresult og_jit_one(struct og_jit *jit, unsigned option, void **value)
{
    switch (option) {
    case OG_JIT_INFO_LOG:
        jit->log[0] = *value;
        return CUDA_SUCCESS;
    case OG_JIT_ERROR_LOG:
        jit->log[1] = *value;
        return CUDA_SUCCESS;
    case OG_JIT_GLOBAL_NAMES:
    case OG_JIT_GLOBAL_ADDRESSES:
    case OG_JIT_KERNEL_NAMES:
    case OG_JIT_VARIABLE_NAMES:
        return og_unsupported("a module load option that is a list of names or addresses (17, 18, 25, 27)");
    case OG_JIT_INFO_LOG_BYTES:
    case OG_JIT_ERROR_LOG_BYTES:
        jit->log_bytes[option == OG_JIT_ERROR_LOG_BYTES] = (uint32_t)(uintptr_t)*value;
        jit->log_bytes_out[option == OG_JIT_ERROR_LOG_BYTES] = value;
        break;
    case OG_JIT_WALL_TIME:
        jit->wall_out = value;
        break;
    case OG_JIT_THREADS_PER_BLOCK:
        jit->threads_out = value;
        break;
    }
    jit->packed[jit->nr++] = (uint64_t)option << 32 | (uint32_t)(uintptr_t)*value;
    return CUDA_SUCCESS;
}

CUresult og_jit_parse(struct og_jit *jit, unsigned nr, CUjit_option *options, void **values)
{
    CUresult r = CUDA_SUCCESS;

    memset(jit, 0, sizeof(*jit));
    if (nr > OG_JIT_MAX || (nr && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; r == CUDA_SUCCESS && i < nr; i++)
        r = options[i] > OG_JIT_LAST ? CUDA_ERROR_INVALID_VALUE : og_jit_one(jit, options[i], &values[i]);
    return r;
}

/* One log into the application's buffer; returns how much of it was used. */
static uint32_t og_jit_log(const struct og_jit *jit, unsigned which, uint64_t image)
{
    uint32_t total = 0, value, at = 0;
    uint8_t piece[512];

    do {
        uint32_t n;

        if (og_send_orion_image_log(image, which, at, &total, &value, sizeof(piece), piece) != CUDA_SUCCESS)
            break;
        if (total > jit->log_bytes[which])
            total = jit->log_bytes[which];
        n = total - at < sizeof(piece) ? total - at : (uint32_t)sizeof(piece);
        memcpy(jit->log[which] + at, piece, n);
        at += n;
    } while (at < total);
    if (jit->log_bytes[which] && at < jit->log_bytes[which])
        jit->log[which][at] = 0;
    return at;
}

static uint32_t og_jit_value(uint64_t image, unsigned which)
{
    uint32_t total, value = 0;
    uint8_t none[1];
    CUresult r = og_send_orion_image_log(image, which, 0, &total, &value, 0, none);

    return r == CUDA_SUCCESS ? value : 0;
}

void og_jit_results(const struct og_jit *jit, uint64_t image)
{
    for (unsigned which = 0; which < 2; which++) {
        if (!jit->log[which] || !jit->log_bytes[which])
            continue;
        *jit->log_bytes_out[which] = (void *)(uintptr_t)og_jit_log(jit, which, image);
    }
    if (jit->wall_out) /* a float in the low bytes of the value */
        *jit->wall_out = (void *)(uintptr_t)og_jit_value(image, OG_LOG_WALL);
    if (jit->threads_out)
        *jit->threads_out = (void *)(uintptr_t)og_jit_value(image, OG_LOG_THREADS);
}
