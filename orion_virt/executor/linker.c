/* SPDX-License-Identifier: Apache-2.0 */
/* The device linker: inputs come as images do, the finished one goes back in pieces. */
#include <stdlib.h>
#include <string.h>

#include "modules.h"

#define LINKS_MAX 256u /* of one client */
#define REPLY_ROOM 900u
#define PTX 1u         /* kind of input */
#define OUTPUTS 0x7eu  /* options 1 to 6 bring something back: they belong to the whole link */

struct link {
    CUlinkState state;
    struct oh_image *logs;
    struct oh_jit jit;     /* the driver writes into it for as long as the link lives */
    const void *cubin;     /* the driver's; NULL: not complete */
    uint64_t bytes;
};
static unsigned nr_links;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* one call at a time, so that none outlives its link */

/* Under the lock; NULL: no such link. */
static struct link *find(uint64_t id)
{
    void *real;

    return oh_get(OW_KIND_LINK, id, &real) == CUDA_SUCCESS ? oh_data(OW_KIND_LINK, id) : NULL;
}

static CUresult create(const struct ow_orion_link_create_in *in, struct link *l)
{
    CUresult r = oh_jit_get(&l->jit, l->logs, (const uint64_t *)(in + 1), in->count);

    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuLinkCreate_v2, l->jit.nr, l->jit.option, l->jit.value, &l->state);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_put(OW_KIND_LINK, in->link, l->state);
    if (r != CUDA_SUCCESS)
        (void)oh_drv.cuLinkDestroy(l->state);
    else
        oh_set_data(OW_KIND_LINK, in->link, l);
    return r;
}

CUresult oh_orion_link_create(struct oh_twin *t, const struct ow_orion_link_create_in *in, uint32_t bytes,
                              struct ow_orion_link_create_out *out, uint32_t *out_bytes)
{
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;
    struct link *l;

    (void)out, (void)out_bytes;
    if (in->options_bytes > bytes - sizeof(*in) || in->options_bytes != in->count * 8ull)
        return oh_fault(t, "%u options in %u bytes", in->count, in->options_bytes);
    pthread_mutex_lock(&lock);
    l = nr_links < LINKS_MAX ? calloc(1, sizeof(*l)) : NULL;
    if (l && (l->logs = oh_image_logs(in->logs)))
        r = create(in, l);
    nr_links += r == CUDA_SUCCESS;
    if (l && r != CUDA_SUCCESS) {
        oh_image_put(l->logs);
        free(l);
    }
    pthread_mutex_unlock(&lock);
    return r;
}

/* Options of one input: numbers only. */
static CUresult input_options(const uint64_t *packed, uint32_t count, struct oh_image *image, struct oh_jit *jit)
{
    for (uint32_t i = 0; i < count; i++)
        if (packed[i] >> 32 < 32 && (OUTPUTS >> (packed[i] >> 32) & 1))
            return CUDA_ERROR_INVALID_VALUE;
    return oh_jit_get(jit, image, packed, count);
}

/* The driver's parser for `type` gets what begins as that type does, whose bounds have been checked. */
static bool begins_as(uint32_t type, const struct oh_image *image)
{
    static const char *const magic[] = { "\177ELF", NULL, "\x50\xed\x55\xba", "\177ELF", "!<ar" };
    const void *p = oh_image_code(image);

    if (type >= sizeof(magic) / sizeof(magic[0]) || !oh_image_bytes(image))
        return false;
    if (oh_image_bytes(image) < 4)
        return !magic[type];
    for (unsigned i = 0; !magic[type] && i < sizeof(magic) / sizeof(magic[0]); i++) /* PTX: none of the others */
        if (magic[i] && !memcmp(p, magic[i], 4))
            return false;
    return !magic[type] || !memcmp(p, magic[type], 4);
}

static CUresult add(const struct ow_orion_link_add_in *in, const char *name, struct oh_image *image)
{
    struct link *l = find(in->link);
    struct oh_jit jit;
    CUresult r = l ? input_options((const uint64_t *)(in + 1), in->count, image, &jit) : CUDA_ERROR_INVALID_HANDLE;

    if (r != CUDA_SUCCESS)
        return r;
    if (!begins_as(in->type, image))
        return in->type == PTX ? CUDA_ERROR_INVALID_PTX : CUDA_ERROR_INVALID_IMAGE;
    r = oh_drv.cuLinkAddData_v2(l->state, in->type, (void *)(uintptr_t)oh_image_code(image), oh_image_bytes(image),
                                name, jit.nr, jit.option, jit.value);
    oh_jit_keep(&l->jit, l->logs);
    return r;
}

CUresult oh_orion_link_add(struct oh_twin *t, const struct ow_orion_link_add_in *in, uint32_t bytes,
                           struct ow_orion_link_add_out *out, uint32_t *out_bytes)
{
    struct oh_image *image;
    const char *name;
    CUresult r;

    (void)out, (void)out_bytes;
    if (in->options_bytes > bytes - sizeof(*in) || in->options_bytes != in->count * 8ull)
        return oh_fault(t, "%u options in %u bytes", in->count, in->options_bytes);
    name = oh_string(in, (uint32_t)sizeof(*in) + in->options_bytes, bytes, in->name_bytes);
    if (!name)
        return oh_fault(t, "name of an input of %u bytes", in->name_bytes);
    image = oh_image_get(in->image, &r);
    if (!image)
        return r;
    pthread_mutex_lock(&lock);
    r = add(in, name, image);
    pthread_mutex_unlock(&lock);
    oh_image_put(image);
    return r;
}

static CUresult complete(struct link *l)
{
    void *cubin = NULL;
    size_t bytes = 0;
    CUresult r = oh_drv.cuLinkComplete(l->state, &cubin, &bytes);

    oh_jit_keep(&l->jit, l->logs);
    if (r == CUDA_SUCCESS) {
        l->cubin = cubin;
        l->bytes = bytes;
    }
    return r;
}

CUresult oh_orion_link_complete(struct oh_twin *t, const struct ow_orion_link_complete_in *in, uint32_t bytes,
                                struct ow_orion_link_complete_out *out, uint32_t *out_bytes)
{
    struct link *l;
    CUresult r;

    (void)t, (void)bytes;
    pthread_mutex_lock(&lock);
    l = find(in->link);
    r = l ? complete(l) : CUDA_ERROR_INVALID_HANDLE;
    out->bytes = r == CUDA_SUCCESS ? l->bytes : 0;
    pthread_mutex_unlock(&lock);
    *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_orion_link_data(struct oh_twin *t, const struct ow_orion_link_data_in *in, uint32_t bytes,
                            struct ow_orion_link_data_out *out, uint32_t *out_bytes)
{
    const struct link *l;
    uint64_t n = 0;

    (void)t, (void)bytes;
    pthread_mutex_lock(&lock);
    l = find(in->link);
    if (l && l->cubin && in->offset < l->bytes) {
        n = l->bytes - in->offset;
        n = n < in->room ? n : in->room;
        n = n < REPLY_ROOM ? n : REPLY_ROOM;
        memcpy(out + 1, (const uint8_t *)l->cubin + in->offset, n);
    }
    pthread_mutex_unlock(&lock);
    out->data_bytes = (uint32_t)n;
    *out_bytes = (uint32_t)(sizeof(*out) + n);
    return n ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult oh_orion_link_destroy(struct oh_twin *t, const struct ow_orion_link_destroy_in *in, uint32_t bytes,
                               struct ow_orion_link_destroy_out *out, uint32_t *out_bytes)
{
    CUresult r = CUDA_ERROR_INVALID_HANDLE;
    struct link *l;
    void *state;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    pthread_mutex_lock(&lock);
    if (oh_take(OW_KIND_LINK, in->link, &state, (void **)&l)) {
        r = oh_drv.cuLinkDestroy(state);
        oh_image_put(l->logs);
        free(l);
        nr_links--;
    }
    pthread_mutex_unlock(&lock);
    return r;
}
