/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what reads a guest's images: the executor's checks, and behind them the simulated GPU's loader, PTX parser and linker. The first
 * byte of an input says how it comes: bit 0 in a wrapper, bit 1 to the linker. */
#include <stdlib.h>

#include "modules.h"

#define WRAPPER_MAGIC 0x466243b1u
enum { WRAPPED = 1, LINKED = 2 };
enum { CUBIN, PTX, FATBIN }; /* CUjitInputType */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

CUresult cuInit(unsigned flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    CUcontext context;

    (void)argc, (void)argv;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context))
        abort();
    return 0;
}

static void load(const void *image)
{
    CUfunction functions[8];
    CUmodule module;
    unsigned nr = 0;

    if (cuModuleLoadData(&module, image) != CUDA_SUCCESS)
        return;
    cuModuleGetFunctionCount(&nr, module);
    cuModuleEnumerateFunctions(functions, nr < 8 ? nr : 8, module);
    for (unsigned i = 0; i < nr && i < 8; i++) {
        const char *name;
        size_t offset, bytes, at = 0;
        int local;

        cuFuncGetName(&name, functions[i]);
        cuFuncGetAttribute(&local, 3, functions[i]);
        while (cuFuncGetParamInfo(functions[i], at++, &offset, &bytes) == CUDA_SUCCESS)
            ;
    }
    cuModuleUnload(module);
}

static void join(const uint8_t *data, size_t bytes)
{
    unsigned type = !memcmp(data, "\177ELF", 4) ? CUBIN : !memcmp(data, "\x50\xed\x55\xba", 4) ? FATBIN : PTX;
    CUlinkState state;
    size_t made;
    void *cubin;

    if (cuLinkCreate_v2(0, NULL, NULL, &state) != CUDA_SUCCESS)
        return;
    if (cuLinkAddData_v2(state, (CUjitInputType)type, (void *)(uintptr_t)data, bytes, "input", 0, NULL, NULL) == CUDA_SUCCESS)
        cuLinkComplete(state, &cubin, &made);
    cuLinkDestroy(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned how = size ? data[0] : 0;
    uint8_t *image = size > 4 ? malloc(size) : NULL; /* of its own, so that a byte behind it is noticed; it ends with a zero, as in image.c */
    struct {
        uint32_t magic, version;
        const void *data, *none;
    } wrapper = { WRAPPER_MAGIC, 1, image, NULL };

    if (!image)
        return 0;
    memcpy(image, data + 1, size - 1);
    image[size - 1] = 0;
    if (how & WRAPPED ? oh_image_wrapped_ok(image, size - 1) : oh_image_piece_ok(image, size - 1)) {
        oh_image_variables(image, size - 1);
        oh_image_names_malloc(image, size - 1);
        if (how & LINKED)
            join(image, size - 1);
        else
            load(how & WRAPPED ? (const void *)&wrapper : image);
    }
    free(image);
    return 0;
}
