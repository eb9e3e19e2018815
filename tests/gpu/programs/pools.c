/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools where no context is current: they belong to a device. */
#include "program.h"

static void attributes(CUmemoryPool pool)
{
    static const int asked[] = { 1, 2, 3, 4, 5, 6, 7, 8 };

    for (unsigned k = 0; k < sizeof(asked) / sizeof(asked[0]); k++) {
        unsigned long long v = 0;
        CUresult r = cuMemPoolGetAttribute(pool, (CUmemPool_attribute)asked[k], &v);
        printf(" %llu %s", v, name_of(r));
    }
    puts("");
}

static void without_context(void)
{
    CUmemPoolProps props = { .allocType = 1, .location = { .type = 1, .id = 0 } };
    CUmemLocation here = { .type = 1, .id = 0 };
    CUmemAccessDesc map = { .location = here, .flags = 3 };
    unsigned long long threshold = 42 << 20;
    CUmemAccess_flags flags = 0;
    CUmemoryPool pool = NULL, standard = NULL;
    CUcontext current = NULL;

    MUST(cuInit(0));
    SAY(cuDeviceGetDefaultMemPool(&standard, 0));
    attributes(standard);
    SAY(cuMemPoolCreate(&pool, &props));
    SAY(cuMemPoolSetAttribute(pool, 4, &threshold));
    attributes(pool);
    SAY(cuMemPoolSetAccess(pool, &map, 1));
    SAY(cuMemPoolGetAccess(&flags, pool, &here));
    printf("%d\n", (int)flags);
    SAY(cuMemPoolTrimTo(pool, 0));
    SAY(cuDeviceSetMemPool(0, pool));
    SAY(cuMemPoolDestroy(pool));
    SAY(cuCtxGetCurrent(&current));
    printf("%d\n", current != NULL);
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = { { "without_context", without_context } };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
