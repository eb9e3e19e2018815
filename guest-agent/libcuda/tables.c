/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetExportTable: the CUDA runtime's private handshake, answered in the client. We forward to the genuine driver
 * on the host, whose own tables hold host pointers and are of no use here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "storage.h"
#include "tables.h"

#define OG_TABLE_WORDS 99

/* ---- slots nobody was seen to call: callable, since callers never test for NULL ---- */
static CUresult og_slot_unknown(unsigned slot)
{
    static _Atomic uint64_t seen[2];

    if (!(atomic_fetch_or(&seen[slot / 64 % 2], 1ull << slot % 64) >> slot % 64 & 1))
        og_log("slot %u of a private runtime table was called; it is not known, answered not supported", slot);
    return atomic_load(&og_life) == OG_EXITED ? CUDA_ERROR_DEINITIALIZED : CUDA_ERROR_NOT_SUPPORTED;
}

#define OG_SLOT(n)                                                                                                     \
    static CUresult og_slot_##n(void)                                                                                  \
    {                                                                                                                  \
        return og_slot_unknown(n);                                                                                     \
    }
#define OG_DECADE(M, d) M(d##0) M(d##1) M(d##2) M(d##3) M(d##4) M(d##5) M(d##6) M(d##7) M(d##8) M(d##9)
#define OG_SLOTS(M)                                                                                                    \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9)                                                                  \
    OG_DECADE(M, 1) OG_DECADE(M, 2) OG_DECADE(M, 3) OG_DECADE(M, 4) OG_DECADE(M, 5) OG_DECADE(M, 6) OG_DECADE(M, 7)    \
    OG_DECADE(M, 8) M(90) M(91) M(92) M(93) M(94) M(95) M(96) M(97) M(98)
OG_SLOTS(OG_SLOT)
#define OG_SLOT_NAME(n) (void *)og_slot_##n,
static void *const og_unknown_slots[OG_TABLE_WORDS] = { OG_SLOTS(OG_SLOT_NAME) };

/* After our destructor ran, the runtime still calls: the real driver answers this. */
static CUresult og_table_check(void)
{
    return atomic_load_explicit(&og_life, memory_order_relaxed) == OG_EXITED ? CUDA_ERROR_DEINITIALIZED : CUDA_SUCCESS;
}

/* ---- CUDART ---- */
static CUresult og_cudart_load(CUmodule *module, void *wrapper)
{
    return cuModuleLoadData(module, wrapper);
}

/* Handle of the primary context; it is neither retained nor activated. */
static CUresult og_cudart_primary(CUcontext *context, int device)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    if (device < 0 || device >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    *context = (CUcontext)(uintptr_t)og_primary_handle(device);
    return *context ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult og_cudart_load_with(CUmodule *module, void *wrapper, void *a3, void *a4, uint32_t n)
{
    if (a3 || a4 || n)
        return og_unsupported("module load with host variables (runtime older than 12.0)");
    return cuModuleLoadData(module, wrapper);
}

static void og_cudart_unregister(size_t unused)
{
    (void)unused;
}

static CUresult og_cudart_load_raw(void *fatbin, CUmodule *module, void *a3, void *a4, uint32_t n)
{
    return og_cudart_load_with(module, fatbin, a3, a4, n);
}

static CUresult og_success(void)
{
    return og_table_check();
}

/* ---- HOOKS: the runtime reads these flags at every call; zero: no tool wants to hear ---- */
static uint32_t og_hook_flags[4096], og_hook_domains[64];

static void og_hooks_flags(void **flags, size_t *n)
{
    *flags = og_hook_flags;
    *n = sizeof(og_hook_flags) / sizeof(og_hook_flags[0]);
}

static void og_hooks_domains(void **flags, size_t *n)
{
    *flags = og_hook_domains;
    *n = 14;
}

static CUresult og_hooks_context(void *context, uint64_t *out)
{
    (void)context;
    if (out)
        *out = 0;
    return CUDA_SUCCESS;
}

/* ---- TLS ---- */
static CUresult og_tls_context(CUcontext *context)
{
    CUresult r = og_table_check();

    if (context)
        *context = r == CUDA_SUCCESS ? (CUcontext)(uintptr_t)og_current() : NULL;
    return r;
}

/* ---- CLS ---- */
static CUresult og_cls_put(uint64_t context, void *key, void *value, og_storage_dtor *dtor)
{
    CUresult r = og_table_check();

    context = r == CUDA_SUCCESS ? og_context_resolve(context) : 0;
    if (r != CUDA_SUCCESS)
        return r;
    return context ? og_storage_put(context, key, value, dtor) : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult og_cls_delete(uint64_t context, void *key)
{
    CUresult r = og_table_check();

    if (r != CUDA_SUCCESS)
        return r;
    context = og_context_resolve(context);
    return context ? og_storage_delete(context, key) : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult og_cls_get(void **value, uint64_t context, void *key)
{
    CUresult r = og_table_check();

    if (r != CUDA_SUCCESS)
        return r;
    context = og_context_resolve(context);
    return context ? og_storage_get(context, key, value) : CUDA_ERROR_INVALID_CONTEXT;
}

/* ---- CTXCHK: no context of ours wraps another, so the third argument stays untouched ---- */
static CUresult og_ctxchk_wrapped(CUcontext context, uint32_t *flag, void **other)
{
    (void)context;
    (void)other;
    if (flag)
        *flag = 0;
    return og_table_check();
}

/* ---- CTXTOOLS ---- */
static CUresult og_ctxtools_device(uint64_t context, int *device)
{
    struct og_context *c = og_context(og_context_resolve(context));

    if (!c || !device)
        return CUDA_ERROR_INVALID_CONTEXT;
    *device = c->device;
    return og_table_check();
}

static CUresult og_ctxtools_number(uint64_t context, uint64_t *number)
{
    if (!number)
        return CUDA_ERROR_INVALID_VALUE;
    *number = context ? og_context_number(context) : 0;
    return og_table_check();
}

/* A stream's token is its handle; those of the default streams carry the context, handles leave bits 0..3 free. */
static CUresult og_ctxtools_stream(uint64_t context, uint64_t stream, void **token)
{
    context = og_context_resolve(context);
    if (!token)
        return CUDA_ERROR_INVALID_VALUE;
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!og_stream_valid(stream))
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream <= 2)
        stream = context | (stream ? stream : 1);
    *token = (void *)(uintptr_t)stream;
    return og_table_check();
}

static CUresult og_ctxtools_stream_id(uint64_t context, uint64_t token, uint64_t *id)
{
    context = og_context_resolve(context);
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (token & 15)
        *id = og_stream_id(token & ~15ull, token & 15);
    else
        *id = og_stream_id(context, token);
    return og_table_check();
}

/* ---- MODTOOLS: returns a count, not a result ---- */
static int og_modtools_functions(CUcontext context, CUmodule module, void (*visit)(void *, CUfunction, uint64_t),
                                 void *user, CUmodule same, uint64_t unused)
{
    unsigned n = 0;
    CUfunction *functions;

    (void)context;
    (void)same;
    (void)unused;
    if (!visit || cuModuleGetFunctionCount(&n, module) != CUDA_SUCCESS || n == 0)
        return 0;
    functions = calloc(n, sizeof(*functions));
    if (!functions || cuModuleEnumerateFunctions(functions, n, module) != CUDA_SUCCESS)
        n = 0;
    for (unsigned i = n; i-- > 0;) /* the real driver visits the newest first */
        visit(user, functions[i], (uintptr_t)module);
    free(functions);
    return (int)n;
}

/* ---- INTEG and the tables themselves; word 0 is the size in bytes but for CLS ---- */
static CUresult og_integrity_entry(uint32_t version, uint64_t unix_seconds, uint8_t result[16]);

static void *og_table_cudart[16], *og_table_hooks[7], *og_table_tls[4], *og_table_integrity[3], *og_table_ctxchk[17],
    *og_table_ctxtools[96], *og_table_modtools[OG_TABLE_WORDS], *og_table_hopper[17], *og_table_tools[3];
static void *og_table_cls[4] = { (void *)og_cls_put, (void *)og_cls_delete, (void *)og_cls_get, NULL };

static CUresult og_integrity_entry(uint32_t version, uint64_t unix_seconds, uint8_t result[16])
{
    struct og_integrity_addresses a = { og_table_cudart, og_table_integrity, og_table_integrity[1] };
    CUresult r = og_table_check();

    return r == CUDA_SUCCESS ? og_integrity_answer(&a, version, unix_seconds, result) : r;
}

static void og_table_fill(void **table, size_t bytes)
{
    memcpy(table, og_unknown_slots, bytes);
    table[0] = (void *)bytes;
}

static void og_tables_fill_runtime(void)
{
    og_table_cudart[1] = (void *)og_cudart_load;
    og_table_cudart[2] = (void *)og_cudart_primary;
    og_table_cudart[6] = (void *)og_cudart_load_with;
    og_table_cudart[7] = (void *)og_cudart_unregister;
    og_table_cudart[8] = (void *)og_cudart_load_raw;
    og_table_cudart[12] = (void *)og_success;
    og_table_hooks[1] = og_table_hooks[3] = og_table_hooks[5] = (void *)og_success;
    og_table_hooks[2] = (void *)og_hooks_flags;
    og_table_hooks[4] = (void *)og_hooks_context;
    og_table_hooks[6] = (void *)og_hooks_domains;
    og_table_tls[1] = og_table_tls[3] = (void *)og_success;
    og_table_tls[2] = (void *)og_tls_context;
    og_table_integrity[1] = (void *)og_integrity_entry;
    og_table_integrity[2] = (void *)og_success;
    og_table_ctxchk[2] = (void *)og_ctxchk_wrapped;
    og_table_ctxchk[3] = (void *)og_success;
}

static void og_tables_fill(void)
{
    og_table_fill(og_table_cudart, sizeof(og_table_cudart));
    og_table_fill(og_table_hooks, sizeof(og_table_hooks));
    og_table_fill(og_table_tls, sizeof(og_table_tls));
    og_table_fill(og_table_integrity, sizeof(og_table_integrity));
    og_table_fill(og_table_ctxchk, sizeof(og_table_ctxchk));
    og_table_fill(og_table_ctxtools, sizeof(og_table_ctxtools));
    og_table_fill(og_table_modtools, sizeof(og_table_modtools));
    og_table_fill(og_table_hopper, sizeof(og_table_hopper)); /* slot 4 may answer not supported: it was tried */
    og_table_fill(og_table_tools, sizeof(og_table_tools));   /* CUPTI 13.2 and newer tells no version without it */
    og_tables_fill_runtime();
    og_table_ctxtools[3] = (void *)og_ctxtools_device;
    og_table_ctxtools[4] = (void *)og_ctxtools_number;
    og_table_ctxtools[39] = (void *)og_ctxtools_stream_id;
    og_table_ctxtools[51] = (void *)og_ctxtools_stream;
    og_table_modtools[7] = (void *)og_modtools_functions;
}

struct og_table {
    uint8_t id[16];
    void **words;
};

static const struct og_table og_tables[] = {
    { { 0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9 },
      og_table_cudart },
    { { 0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66 },
      og_table_hooks },
    { { 0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec, 0xdc },
      og_table_tls },
    { { 0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93 },
      og_table_cls },
    { { 0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1, 0xf2 },
      og_table_integrity },
    { { 0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa, 0x7e },
      og_table_ctxchk },
    { { 0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48, 0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8, 0xf2 },
      og_table_ctxtools },
    { { 0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d, 0x83, 0x5c, 0xe1, 0x82, 0xaf, 0xf1, 0x99, 0x1e },
      og_table_modtools },
    { { 0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca },
      og_table_hopper },
    { { 0x7c, 0xb6, 0x3f, 0x9b, 0x9c, 0xa4, 0x8e, 0x42, 0xa4, 0x84, 0xbe, 0xb6, 0x6e, 0x6a, 0xed, 0x7f },
      og_table_tools },
};

/* Once for each table that we do not have: a new release of a library may want one more. */
static void og_table_log(const uint8_t id[16], void *caller)
{
    static uint8_t seen[32][16];
    static unsigned nr_seen;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char text[33];
    Dl_info info;
    bool known = false;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < nr_seen && !known; i++)
        known = !memcmp(seen[i], id, 16);
    if (!known && nr_seen < 32)
        memcpy(seen[nr_seen++], id, 16);
    pthread_mutex_unlock(&lock);
    if (known)
        return;
    for (int i = 0; i < 16; i++) {
        text[2 * i] = "0123456789abcdef"[id[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[id[i] & 15];
    }
    text[32] = 0;
    og_log("private table %s was asked for by %s; not provided", text,
           dladdr(caller, &info) && info.dli_fname ? info.dli_fname : "an unknown library");
}

OG_EXPORT CUresult cuGetExportTable(const void **ppExportTable, const CUuuid *pExportTableId)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    if (!ppExportTable || !pExportTableId)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_once(&once, og_tables_fill);
    for (size_t i = 0; i < sizeof(og_tables) / sizeof(og_tables[0]); i++) {
        if (memcmp(og_tables[i].id, pExportTableId, 16) != 0)
            continue;
        *ppExportTable = og_tables[i].words;
        return CUDA_SUCCESS;
    }
    *ppExportTable = NULL;
    og_table_log((const uint8_t *)pExportTableId, __builtin_return_address(0));
    return CUDA_ERROR_INVALID_VALUE;
}
