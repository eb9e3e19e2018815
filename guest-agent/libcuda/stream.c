/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: what the client knows of each. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "graph.h"
#include "gen/send.h"

struct stream {
    uint64_t context, id;
    int device;
    bool green;             /* `context` stands for a green one */
    _Atomic bool capturing; /* a capture began here and has not ended */
};

_Atomic int og_captures;
static _Atomic uint64_t next_id = 1;
static _Thread_local bool own_capturing; /* the same for this thread's stream 2 */

static uint64_t number(CUstream stream)
{
    return (uint64_t)(uintptr_t)stream;
}

static bool is_builtin(CUstream stream)
{
    return number(stream) <= 2;
}

static struct stream *data_of(CUstream stream)
{
    return is_builtin(stream) ? NULL : og_data(number(stream));
}

bool og_stream_valid(uint64_t stream)
{
    return stream <= 2 || og_valid(OW_KIND_STREAM, stream);
}

uint64_t og_stream_id(uint64_t context, uint64_t stream)
{
    struct stream *s;

    if (stream <= 1)
        return og_context_number(context) << 2 | 1;
    if (stream == 2)
        return (og_context_number(context) << 16 | og_self()->slot) << 2 | 2;
    s = og_data(stream);
    return s ? s->id << 2 : stream;
}

static CUresult adopt(CUresult r, uint64_t context, CUstream *made)
{
    struct stream *s;

    if (r != CUDA_SUCCESS)
        return r;
    s = calloc(1, sizeof(*s));
    if (!s) {
        (void)cuStreamDestroy_v2(*made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    s->context = context;
    s->device = og_context(context) ? og_context(context)->device : -1;
    s->green = s->device >= 0 && og_context(context)->green;
    s->id = atomic_fetch_add(&next_id, 1);
    og_set_data(number(*made), s);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    return adopt(og_send_cuStreamCreate(phStream, Flags), og_current(), phStream);
}

OG_EXPORT CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
    return adopt(og_send_cuStreamCreateWithPriority(phStream, flags, priority), og_current(), phStream);
}

OG_EXPORT CUresult cuGreenCtxStreamCreate(CUstream *phStream, CUgreenCtx greenCtx, unsigned int flags, int priority)
{
    CUresult r = og_send_cuGreenCtxStreamCreate(phStream, greenCtx, flags, priority);

    return r == CUDA_SUCCESS ? adopt(r, og_green_context((uintptr_t)greenCtx), phStream) : r;
}

OG_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream)
{
    struct stream *s;
    CUresult r;

    if (is_builtin(hStream))
        return CUDA_ERROR_INVALID_HANDLE;
    s = og_valid(OW_KIND_STREAM, number(hStream)) ? og_data(number(hStream)) : NULL;
    if (s && s->green && !og_context(s->context))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED; /* a green context ended before its stream */
    r = og_send_cuStreamDestroy_v2(hStream);
    if (r != CUDA_SUCCESS)
        return r;
    if (s && atomic_load(&s->capturing))
        atomic_fetch_sub(&og_captures, 1);
    og_set_data(number(hStream), NULL);
    og_unmint(OW_KIND_STREAM, number(hStream));
    free(s);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamDestroy(CUstream hStream)
{
    return cuStreamDestroy_v2(hStream);
}

/* For answers from the client: a context is current and the handle is one. */
static CUresult check(CUstream stream)
{
    OG_ON(number(stream));
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    return og_stream_valid(number(stream)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

OG_EXPORT CUresult cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
    CUresult r = check(hStream);

    if (r == CUDA_SUCCESS && !streamId)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *streamId = og_stream_id(og_current(), number(hStream));
    return r;
}

OG_EXPORT CUresult cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
    CUresult r = check(hStream);
    struct stream *s;

    if (r == CUDA_SUCCESS && !pctx)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    s = data_of(hStream);
    *pctx = (CUcontext)(uintptr_t)(s ? s->context : og_current());
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
    CUresult r = check(hStream);
    struct stream *s;

    if (r == CUDA_SUCCESS && !device)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    s = data_of(hStream);
    *device = s ? s->device : og_self()->device;
    return CUDA_SUCCESS;
}

void og_stream_capturing(CUstream stream, bool on)
{
    struct stream *s = data_of(stream);
    bool was;

    if (s) {
        was = atomic_exchange(&s->capturing, on);
    } else {
        was = own_capturing;
        own_capturing = on;
    }
    if (was != on)
        atomic_fetch_add(&og_captures, on ? 1 : -1);
}
