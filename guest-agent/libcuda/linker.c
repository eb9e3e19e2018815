/* SPDX-License-Identifier: Apache-2.0 */
/* The device linker: files are read here, inputs travel as images do, logs and the finished image come back. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "gen/send.h"
#include "modules.h"

#define OG_INPUTS 6u          /* kinds of input */
#define OG_INPUT_PTX 1u
#define OG_INPUT_NVVM 5u
#define OG_OUTPUTS 0x7eu      /* options 1 to 6 are the whole link's; an input's are numbers only */
#define OG_PIECE 900u

struct og_linker {
    uint64_t handle, logs;    /* `logs` names on the host what the options bring back */
    struct og_jit jit;        /* points into the application's options, which live as long as the link */
    void *cubin;              /* the finished image, the application's until the link is destroyed */
};

static struct og_linker *og_linker(CUlinkState state, CUresult *r)
{
    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    if (og_valid(OW_KIND_LINK, (uintptr_t)state))
        return og_data((uintptr_t)state);
    *r = CUDA_ERROR_INVALID_HANDLE;
    return NULL;
}

static void og_linker_free(struct og_linker *l)
{
    if (l->logs)
        og_image_drop(l->logs);
    if (l->handle)
        og_unmint(OW_KIND_LINK, l->handle);
    free(l->cubin);
    free(l);
}

static CUresult og_linker_make(struct og_linker *l)
{
    static const struct og_image empty = { .kind = OG_IMAGE_RAW, .nr = 1 };
    CUresult r = og_image_begin(&empty, &l->logs);

    if (r != CUDA_SUCCESS)
        return r;
    l->handle = og_mint(OW_KIND_LINK);
    if (!l->handle)
        return CUDA_ERROR_OUT_OF_MEMORY;
    og_set_data(l->handle, l);
    return og_send_orion_link_create(l->handle, l->logs, l->jit.nr, l->jit.packed);
}

OG_EXPORT CUresult cuLinkCreate_v2(unsigned int numOptions, CUjit_option *options, void **optionValues,
                                   CUlinkState *stateOut)
{
    struct og_linker *l;
    CUresult r;

    if (!og_context_live(&r))
        return r;
    if (!stateOut)
        return CUDA_ERROR_INVALID_VALUE;
    l = calloc(1, sizeof(*l));
    if (!l)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_jit_parse(&l->jit, numOptions, options, optionValues);
    if (r == CUDA_SUCCESS)
        r = og_linker_make(l);
    if (r == CUDA_SUCCESS)
        *stateOut = (CUlinkState)(uintptr_t)l->handle;
    else
        og_linker_free(l);
    return r;
}

OG_EXPORT CUresult cuLinkCreate(unsigned int numOptions, CUjit_option *options, void **optionValues,
                                CUlinkState *stateOut)
{
    return cuLinkCreate_v2(numOptions, options, optionValues, stateOut);
}

/* Options that bring something back are no input's own. */
static uint32_t og_numbers(struct og_jit *jit)
{
    uint32_t nr = 0;

    for (uint32_t i = 0; i < jit->nr; i++)
        if (jit->packed[i] >> 32 > 6 || !(OG_OUTPUTS >> (jit->packed[i] >> 32) & 1))
            jit->packed[nr++] = jit->packed[i];
    return nr;
}

static CUresult og_link_send(struct og_linker *l, unsigned type, const void *data, uint64_t bytes, const char *name,
                             struct og_jit *jit)
{
    const struct og_piece piece = { data, bytes };
    struct og_image image = { .kind = OG_IMAGE_RAW, .nr = 1, .pieces = (struct og_piece *)(uintptr_t)&piece };
    uint64_t id;
    CUresult r = og_image_send(&image, &id);

    if (r != CUDA_SUCCESS)
        return r;
    r = og_send_orion_link_add(l->handle, id, type, og_numbers(jit), jit->packed, name ? name : "");
    og_image_drop(id);
    if (r != CUDA_SUCCESS)
        og_jit_results(&l->jit, l->logs);
    return r;
}

/* PTX crosses with its NUL, which `size` need not count. */
static CUresult og_link_text(struct og_linker *l, const char *text, size_t size, const char *name, struct og_jit *jit)
{
    size_t length = strnlen(text, size);
    char *copy = malloc(length + 1);
    CUresult r;

    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(copy, text, length);
    copy[length] = 0;
    r = og_link_send(l, OG_INPUT_PTX, copy, length + 1, name, jit);
    free(copy);
    return r;
}

OG_EXPORT CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
                                    unsigned int numOptions, CUjit_option *options, void **optionValues)
{
    CUresult r;
    struct og_linker *l = og_linker(state, &r);
    struct og_jit jit;

    if (!l)
        return r;
    if (!data || !size || type >= OG_INPUTS)
        return CUDA_ERROR_INVALID_VALUE;
    if (type == OG_INPUT_NVVM)
        return og_unsupported("linking NVVM bitcode, deprecated since CUDA 12.0");
    r = og_jit_parse(&jit, numOptions, options, optionValues);
    if (r != CUDA_SUCCESS)
        return r;
    if (type == OG_INPUT_PTX)
        return og_link_text(l, data, size, name, &jit);
    return og_link_send(l, type, data, size, name, &jit);
}

OG_EXPORT CUresult cuLinkAddData(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
                                 unsigned int numOptions, CUjit_option *options, void **optionValues)
{
    return cuLinkAddData_v2(state, type, data, size, name, numOptions, options, optionValues);
}

OG_EXPORT CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions,
                                    CUjit_option *options, void **optionValues)
{
    void *data = NULL;
    uint64_t bytes = 0;
    CUresult r;

    if (!og_linker(state, &r))
        return r;
    if (!path)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_read_file(path, &data, &bytes);
    if (r == CUDA_SUCCESS) /* less the NUL that the reader put behind it */
        r = cuLinkAddData_v2(state, type, data, bytes - 1, path, numOptions, options, optionValues);
    free(data);
    return r;
}

OG_EXPORT CUresult cuLinkAddFile(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions,
                                 CUjit_option *options, void **optionValues)
{
    return cuLinkAddFile_v2(state, type, path, numOptions, options, optionValues);
}

/* The finished image, piece by piece. */
static CUresult og_link_fetch(struct og_linker *l, uint64_t bytes)
{
    uint8_t *to = malloc(bytes);

    free(l->cubin);
    l->cubin = to;
    if (!to)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint64_t at = 0; at < bytes; at += OG_PIECE) {
        uint32_t n = bytes - at < OG_PIECE ? (uint32_t)(bytes - at) : OG_PIECE;
        CUresult r = og_send_orion_link_data(l->handle, at, n, to + at);

        if (r != CUDA_SUCCESS)
            return r;
    }
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
    CUresult r;
    struct og_linker *l = og_linker(state, &r);
    uint64_t bytes = 0;

    if (!l)
        return r;
    if (!cubinOut)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_orion_link_complete(l->handle, &bytes);
    og_jit_results(&l->jit, l->logs);
    if (r == CUDA_SUCCESS)
        r = og_link_fetch(l, bytes);
    if (r != CUDA_SUCCESS)
        return r;
    *cubinOut = l->cubin;
    if (sizeOut)
        *sizeOut = bytes;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuLinkDestroy(CUlinkState state)
{
    CUresult r;
    struct og_linker *l = og_linker(state, &r);

    if (!l)
        return r;
    r = og_send_orion_link_destroy(l->handle);
    og_linker_free(l);
    return r;
}
