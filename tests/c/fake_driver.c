/* SPDX-License-Identifier: Apache-2.0 */
/* A driver library with just what the executor's core calls. */
#include <stddef.h>

int cuInit(unsigned flags);
int cuCtxSetCurrent(void *context);
int cuCtxGetCurrent(void **context);
int cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags);
int cuMemHostUnregister(void *p);

int cuInit(unsigned flags)
{
    return flags ? 1 : 0;
}

int cuCtxSetCurrent(void *context)
{
    (void)context;
    return 0;
}

int cuCtxGetCurrent(void **context)
{
    *context = NULL;
    return 0;
}

int cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags)
{
    return p && bytes && flags ? 0 : 1;
}

int cuMemHostUnregister(void *p)
{
    return p ? 0 : 1;
}
