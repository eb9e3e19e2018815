/* SPDX-License-Identifier: Apache-2.0 */
/* Computes for as long as the guest lives, and checks every result: steady LIBCUDA PTX STATUS [ROUNDS].
 * STATUS holds one line: "round N" while it goes on, "error E round N" (a CUresult) or "wrong round N" at its end. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N 16384u

typedef unsigned long long CUdeviceptr;

static const char *status_path;
static unsigned long number;

static void tell(const char *what, int code)
{
    char fresh[256];
    FILE *f;

    snprintf(fresh, sizeof(fresh), "%s.new", status_path);
    f = fopen(fresh, "w");
    if (!f)
        exit(9);
    if (code)
        fprintf(f, "%s %d round %lu\n", what, code, number);
    else
        fprintf(f, "%s %lu\n", what, number);
    fclose(f);
    rename(fresh, status_path);
}

static void must(int result)
{
    if (!result)
        return;
    tell("error", result);
    exit(3);
}

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    if (!found) {
        fprintf(stderr, "steady: no symbol %s\n", name);
        exit(8);
    }
    return found;
}

static char *read_text(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");

    if (!f || !text || !fread(text, 1, (1 << 20) - 1, f)) {
        fprintf(stderr, "steady: cannot read %s\n", path);
        exit(8);
    }
    fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    static float x[N], y[N], back[N];
    void *cu = argc > 3 ? dlopen(argv[1], RTLD_NOW) : NULL, *context, *module, *function;
    unsigned long rounds = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    unsigned n = N;
    float a;
    CUdeviceptr dx, dy;
    void *params[] = { &a, &dx, &dy, &n };

    if (!cu) {
        fprintf(stderr, "steady: %s\n", argc > 3 ? dlerror() : "steady LIBCUDA PTX STATUS [ROUNDS]");
        return 8;
    }
    status_path = argv[3];
#define CU(name, ...) must(((int (*)())symbol(cu, "cu" #name))(__VA_ARGS__))
    CU(Init, 0);
    CU(DevicePrimaryCtxRetain, &context, 0);
    CU(CtxSetCurrent, context);
    CU(ModuleLoadData, &module, read_text(argv[2]));
    CU(ModuleGetFunction, &function, module, "saxpy");
    CU(MemAlloc_v2, &dx, sizeof(x));
    CU(MemAlloc_v2, &dy, sizeof(y));
    srand((unsigned)getpid());
    for (number = 1; !rounds || number <= rounds; number++) {
        a = (float)rand() / (float)RAND_MAX;
        for (unsigned i = 0; i < N; i++) {
            x[i] = (float)rand() / (float)RAND_MAX;
            y[i] = (float)rand() / (float)RAND_MAX;
        }
        CU(MemcpyHtoD_v2, dx, x, sizeof(x));
        CU(MemcpyHtoD_v2, dy, y, sizeof(y));
        CU(LaunchKernel, function, N / 256, 1, 1, 256, 1, 1, 0, NULL, params, NULL);
        CU(MemcpyDtoH_v2, back, dy, sizeof(back));
        for (unsigned i = 0; i < N; i++) {
            if (fabsf(back[i] - (a * x[i] + y[i])) > 1e-5f) {
                tell("wrong round", 0);
                return 4;
            }
        }
        tell("round", 0);
        usleep(50000);
    }
    return 0;
}
