/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs on the driver API share: they run natively and through a vGPU and must print the same. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_abi.h"

static CUmodule module;
static CUcontext context;
static const char *image_path;

static inline const char *name_of(CUresult r)
{
    const char *name = NULL;

    return cuGetErrorName(r, &name) == CUDA_SUCCESS ? name : "?";
}

#define MUST(call)                                                                         \
    do {                                                                                   \
        CUresult r_ = (call);                                                              \
        if (r_ != CUDA_SUCCESS) {                                                          \
            printf("%s:%d %s: %s\n", __func__, __LINE__, #call, name_of(r_));              \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

/* What a call answers is part of what must be the same. */
#define SAY(call) printf("%s: %s\n", #call, name_of(call))

static inline void say(const char *what, CUresult r)
{
    printf("%s: %s\n", what, name_of(r));
}

static inline char *read_image(void)
{
    FILE *f = fopen(image_path, "rb");
    char *text = calloc(1, 1 << 20);

    if (!f || !text || fread(text, 1, (1 << 20) - 1, f) == 0) {
        printf("no PTX at %s\n", image_path);
        exit(2);
    }
    fclose(f);
    return text;
}

static inline void start(void)
{
    char *image = read_image();

    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    MUST(cuModuleLoadData(&module, image));
    free(image);
}

static inline CUfunction function(const char *name)
{
    CUfunction f = NULL;

    MUST(cuModuleGetFunction(&f, module, name));
    return f;
}

/* Launches `name` with one row of threads. */
static inline CUresult launch(const char *name, unsigned blocks, unsigned threads, CUstream stream, void **parameters)
{
    return cuLaunchKernel(function(name), blocks, 1, 1, threads, 1, 1, 0, stream, parameters, NULL);
}

static inline CUdeviceptr device_memory(size_t bytes)
{
    CUdeviceptr p = 0;

    MUST(cuMemAlloc_v2(&p, bytes));
    return p;
}

static inline void *pinned(size_t bytes)
{
    void *p = NULL;

    MUST(cuMemHostAlloc(&p, bytes, 2));
    memset(p, 0, bytes);
    return p;
}

static inline CUstream new_stream(void)
{
    CUstream s = NULL;

    MUST(cuStreamCreate(&s, 1)); /* does not wait for the legacy stream */
    return s;
}

struct body {
    const char *name;
    void (*run)(void);
};

/* `program NAME PTX` runs a body; without a name all names are printed. */
static inline int run_body(const struct body *bodies, size_t nr, int argc, char **argv)
{
    for (size_t i = 0; i < nr; i++) {
        if (argc < 3) {
            puts(bodies[i].name);
        } else if (!strcmp(bodies[i].name, argv[1])) {
            image_path = argv[2];
            bodies[i].run();
            return 0;
        }
    }
    return argc < 3 ? 0 : 2;
}

#endif
