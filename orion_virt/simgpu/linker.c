/* SPDX-License-Identifier: Apache-2.0 */
/* The device linker: PTX inputs become one text, which is what this GPU loads. Machine code cannot be linked here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define OPTIONS_MAX 48u
enum { INPUT_PTX = 1, INPUT_KINDS = 6 };

struct CUlinkState_st {
    char *text;
    size_t bytes;            /* without the NUL */
    unsigned nr, runtime;
    CUjit_option options[OPTIONS_MAX];
    void **values;           /* the application's */
};

SIM_API CUresult cuLinkCreate_v2(unsigned nr, CUjit_option *options, void **values, CUlinkState *out)
{
    struct CUctx_st *ctx;
    struct CUlinkState_st *l;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!out || nr > OPTIONS_MAX || (nr && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    l = calloc(1, sizeof(*l));
    if (!l || !(l->text = calloc(1, 1)) || !sim_register(l, SIM_LINK)) {
        if (l)
            free(l->text);
        free(l);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    l->nr = nr;
    l->values = values;
    memcpy(l->options, options, nr * sizeof(*options));
    *out = l;
    return CUDA_SUCCESS;
}

/* Device functions that are compiled into NVIDIA's archive of the device runtime, as PTX. */
__asm__(".section .rodata\n.global sim_devrt\n.hidden sim_devrt\nsim_devrt:\n.incbin \"devrt.ptx\"\n.byte 0\n.previous\n");
extern const char sim_devrt[] __attribute__((visibility("hidden")));

/* An archive holds machine code and what the linker optimises, neither of which runs here: of its functions we have our own. */
static bool is_archive(const void *data, size_t size)
{
    return size >= 8 && !memcmp(data, "!<arch>\n", 8);
}

/* A text behind the others, if it alone is one: `error` says why not. */
static CUresult append(struct CUlinkState_st *l, const struct sim_image *image)
{
    char *text;

    if (!image->ptx)
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    text = realloc(l->text, l->bytes + image->ptx_bytes + 2);
    if (!text)
        return CUDA_ERROR_OUT_OF_MEMORY;
    l->text = text;
    l->bytes += (size_t)sprintf(text + l->bytes, "%.*s\n", (int)image->ptx_bytes, image->ptx);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLinkAddData_v2(CUlinkState l, CUjitInputType type, void *data, size_t size, const char *name,
                                  unsigned nr, CUjit_option *options, void **values)
{
    struct sim_image image;
    char error[512] = "", *text = NULL;
    bool again;
    CUresult r;

    (void)name, (void)options, (void)values;
    if (!sim_valid(l, SIM_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!data || !size || type >= INPUT_KINDS || nr > OPTIONS_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (type == INPUT_PTX && memcmp(data, "\177ELF", size < 4 ? size : 4) == 0)
        return CUDA_ERROR_INVALID_PTX;
    if (type == INPUT_PTX && !(text = strndup(data, size))) /* `size` need not count the NUL */
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (is_archive(data, size))
        data = (void *)(uintptr_t)sim_devrt;
    again = data == sim_devrt && l->runtime++; /* one is enough, however many archives */
    r = sim_image_open(text ? text : data, &image, error, sizeof(error));
    free(text);
    if (!r) {
        r = again ? CUDA_SUCCESS : append(l, &image);
        sim_image_close(&image);
    }
    if (r)
        sim_report(error, l->nr, l->options, l->values);
    return r;
}

SIM_API CUresult cuLinkComplete(CUlinkState l, void **cubin, size_t *size)
{
    struct CUctx_st *ctx;
    struct CUmod_st *module;
    char error[512] = "";
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(l, SIM_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!cubin)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_module_load(ctx, l->text, error, sizeof(error), &module); /* what is wrong with it, is wrong now */
    sim_report(error, l->nr, l->options, l->values);
    if (r)
        return r == CUDA_ERROR_OUT_OF_MEMORY ? r : CUDA_ERROR_INVALID_PTX;
    sim_module_free(module);
    *cubin = l->text;
    if (size)
        *size = l->bytes + 1;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLinkDestroy(CUlinkState l)
{
    if (!sim_valid(l, SIM_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    sim_unregister(l);
    free(l->text);
    free(l);
    return CUDA_SUCCESS;
}
