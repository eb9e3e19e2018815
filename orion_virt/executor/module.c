/* SPDX-License-Identifier: Apache-2.0 */
/* Modules: load, functions, globals, unload; and what dies with a module or a context. */
#include <stdlib.h>

#include "array.h"
#include "loop.h"
#include "contexts.h"
#include "extra.h"
#include "modules.h"

#define OH_MAX_ENUMERATED (1u << 20)
#define RETIRED_NS 10000000000u

/* What another guest thread's command may be looking at in this moment is freed much later. */
void oh_retire(void *p)
{
    static struct retired {
        void *p;
        uint64_t at_ns;
        struct retired *next;
    } *first, **last = &first;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct retired *new = p ? calloc(1, sizeof(*new)) : NULL, *old;
    uint64_t now = oh_now_ns();

    if (!new)
        return;
    new->p = p;
    new->at_ns = now;
    pthread_mutex_lock(&lock);
    *last = new;
    last = &new->next;
    while (first != new && now - first->at_ns > RETIRED_NS) {
        old = first;
        first = old->next;
        free(old->p);
        free(old);
    }
    pthread_mutex_unlock(&lock);
}

const char *oh_string(const void *in, uint32_t fixed, uint32_t bytes, uint32_t string_bytes)
{
    const char *text = (const char *)in + fixed;

    if (!string_bytes || string_bytes > bytes - fixed || text[string_bytes - 1] != 0)
        return NULL;
    return text;
}

uint64_t oh_current_context(void)
{
    CUcontext context = NULL;

    const struct oh_context *c;
    uint64_t id;

    if (oh_drv.cuCtxGetCurrent(&context) != CUDA_SUCCESS || !context)
        return 0;
    id = oh_find(OW_KIND_CONTEXT, context);
    c = id ? oh_data(OW_KIND_CONTEXT, id) : NULL;
    return c && c->green ? oh_find(OW_KIND_CONTEXT, oh_devices[c->device].context) : id;
}

int oh_context_device(CUcontext real)
{
    uint64_t id = real ? oh_find(OW_KIND_CONTEXT, real) : 0;
    const struct oh_context *c = id ? oh_data(OW_KIND_CONTEXT, id) : NULL;

    return c ? c->device : -1;
}

CUresult oh_code_put(enum ow_kind kind, uint64_t id, void *real, uint64_t library, struct oh_image *image)
{
    struct oh_code *code = calloc(1, sizeof(*code));
    CUresult r;

    if (!code)
        return CUDA_ERROR_OUT_OF_MEMORY;
    code->context = kind == OW_KIND_MODULE ? oh_current_context() : 0;
    code->library = library;
    code->image = image;
    r = oh_put(kind, id, real);
    if (r == CUDA_SUCCESS)
        oh_set_data(kind, id, code);
    else
        free(code);
    return r;
}

void oh_code_takes(enum ow_kind kind, uint64_t id, int device, const struct oh_image *image)
{
    struct oh_code *code = oh_data(kind, id);

    if (!code)
        return;
    code->takes = oh_image_takes(image);
    code->mallocs = oh_image_mallocs(image);
    if (device >= 0)
        atomic_fetch_or(&code->loaded, 1u << device);
}

void oh_code_free(struct oh_code *code)
{
    if (!code)
        return;
    for (uint32_t i = 0; i < code->nr_globals; i++)
        oh_ledger_del(code->globals[i]);
    for (uint32_t loaded = atomic_load(&code->loaded); loaded; loaded &= loaded - 1)
        oh_extra_less(__builtin_ctz(loaded), code->takes);
    oh_image_put(code->image);
    oh_retire(code);
}

void oh_code_global(struct oh_code *code, int device, uint64_t ptr, uint64_t bytes)
{
    uint64_t start, had;
    int on;

    if (!bytes || oh_ledger_find(ptr, &start, &had, &on))
        return;
    oh_ledger_add(ptr, bytes, device, 0);
    if (code->nr_globals < sizeof(code->globals) / sizeof(code->globals[0]))
        code->globals[code->nr_globals++] = ptr;
}

/* ---- what goes with an owner or a context ---- */
struct drop {
    uint64_t owner, context;
    enum ow_kind kind;
};

static void drop_function(uint64_t id, void *real, void *data, void *arg)
{
    struct oh_function *f = data;
    const struct drop *d = arg;

    if (!f || (d->owner && f->owner != d->owner) || (d->context && f->context != d->context))
        return;
    if (oh_take(d->kind, id, &real, &data))
        oh_retire(data);
}

static void drop_kernel(uint64_t id, void *real, void *data, void *arg)
{
    struct oh_function *f = data;
    const struct drop *d = arg;
    struct drop functions = { id, 0, OW_KIND_FUNCTION };

    if (!f || f->owner != d->owner)
        return;
    oh_each(OW_KIND_FUNCTION, drop_function, &functions);
    drop_function(id, real, data, arg);
}

static void drop_module(uint64_t id, void *real, void *data, void *arg)
{
    struct oh_code *code = data;
    const struct drop *d = arg;
    struct drop functions = { id, 0, OW_KIND_FUNCTION };

    if (!code || (d->owner && code->library != d->owner) || (d->context && code->context != d->context))
        return;
    oh_each(OW_KIND_FUNCTION, drop_function, &functions);
    oh_drop_references(id);
    if (oh_take(OW_KIND_MODULE, id, &real, &data))
        oh_code_free(data);
}

void oh_drop_owned(uint64_t owner)
{
    struct drop functions = { owner, 0, OW_KIND_FUNCTION }, kernels = { owner, 0, OW_KIND_KERNEL };

    oh_each(OW_KIND_FUNCTION, drop_function, &functions);
    oh_each(OW_KIND_KERNEL, drop_kernel, &kernels);
    oh_each(OW_KIND_MODULE, drop_module, &kernels);
}

void oh_drop_context(uint64_t context)
{
    struct drop d = { 0, context, OW_KIND_FUNCTION };

    oh_each(OW_KIND_FUNCTION, drop_function, &d);
    oh_each(OW_KIND_MODULE, drop_module, &d);
}

/* ---- operations ---- */
/* What turns out to be beyond the limit, as a compressed image may, does not stay. */
static CUresult load(struct oh_twin *t, const struct ow_orion_module_load_in *in, struct oh_image *image, uint64_t takes,
                     CUmodule *module)
{
    bool mallocs = oh_image_mallocs(image);
    struct oh_jit jit;
    CUresult r = oh_jit_get(&jit, image, (const uint64_t *)(in + 1), in->count);

    if (r == CUDA_SUCCESS)
        r = oh_load_begin(t->stack_slot, t->device, takes, mallocs);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_drv.cuModuleLoadDataEx(module, oh_image_code(image), jit.nr, jit.option, jit.value);
    oh_jit_keep(&jit, image);
    if (r == CUDA_SUCCESS) {
        r = oh_load_end(t->stack_slot, t->device, takes, mallocs);
        if (r != CUDA_SUCCESS)
            oh_drv.cuModuleUnload(*module);
    }
    if (r != CUDA_SUCCESS)
        oh_extra_less(t->device, takes);
    return r;
}

CUresult oh_orion_module_load(struct oh_twin *t, const struct ow_orion_module_load_in *in, uint32_t bytes,
                              struct ow_orion_module_load_out *out, uint32_t *out_bytes)
{
    struct oh_image *image;
    CUmodule module = NULL;
    uint64_t takes;
    CUresult r;

    (void)out, (void)out_bytes;
    if (in->options_bytes > bytes - sizeof(*in) || in->options_bytes != in->count * 8ull)
        return oh_fault(t, "%u options in %u bytes", in->count, in->options_bytes);
    image = oh_image_get(in->image, &r);
    if (!image)
        return r;
    takes = oh_image_takes(image);
    r = load(t, in, image, takes, &module);
    if (r == CUDA_SUCCESS) {
        r = oh_code_put(OW_KIND_MODULE, in->module, module, 0, NULL);
        if (r == CUDA_SUCCESS) {
            oh_code_takes(OW_KIND_MODULE, in->module, t->device, image);
        } else {
            oh_drv.cuModuleUnload(module);
            oh_extra_less(t->device, takes);
        }
    }
    oh_image_put(image);
    return r;
}

CUresult oh_orion_module_unload(struct oh_twin *t, const struct ow_orion_module_unload_in *in, uint32_t bytes,
                                struct ow_orion_module_unload_out *out, uint32_t *out_bytes)
{
    struct oh_code *code;
    void *module;
    CUresult r;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (!oh_take(OW_KIND_MODULE, in->module, &module, (void **)&code))
        return CUDA_ERROR_INVALID_HANDLE;
    oh_drop_owned(in->module);
    oh_drop_references(in->module);
    r = code && code->library ? CUDA_SUCCESS : oh_drv.cuModuleUnload(module);
    oh_code_free(code);
    return r;
}

CUresult oh_orion_module_function(struct oh_twin *t, const struct ow_orion_module_function_in *in, uint32_t bytes,
                                  struct ow_orion_module_function_out *out, uint32_t *out_bytes)
{
    const char *name = oh_string(in, sizeof(*in), bytes, in->name_bytes);
    CUfunction function = NULL;
    struct oh_function *f;
    void *module, *real;
    CUresult r = oh_get(OW_KIND_MODULE, in->module, &module);

    if (!name)
        return oh_fault(t, "a function's name without end");
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuModuleGetFunction(&function, module, name);
    if (r == CUDA_SUCCESS)
        r = oh_function_put(OW_KIND_FUNCTION, in->function, function, in->module, oh_current_context());
    if (r == CUDA_SUCCESS)
        r = oh_function_get(in->function, &real, &f);
    if (r != CUDA_SUCCESS)
        return r;
    out->total = f->nr_params;
    out->bytes = f->params_bytes;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_module_global(struct oh_twin *t, const struct ow_orion_module_global_in *in, uint32_t bytes,
                                struct ow_orion_module_global_out *out, uint32_t *out_bytes)
{
    const char *name = oh_string(in, sizeof(*in), bytes, in->name_bytes);
    CUdeviceptr ptr = 0;
    size_t size = 0;
    void *module;
    struct oh_code *code;
    CUresult r = oh_get(OW_KIND_MODULE, in->module, &module);

    if (!name)
        return oh_fault(t, "a variable's name without end");
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuModuleGetGlobal_v2(&ptr, &size, module, name);
    if (r != CUDA_SUCCESS)
        return r;
    code = oh_data(OW_KIND_MODULE, in->module);
    if (code)
        oh_code_global(code, t->device, ptr, size);
    out->ptr = ptr;
    out->bytes = size;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_module_count(struct oh_twin *t, const struct ow_orion_module_count_in *in, uint32_t bytes,
                               struct ow_orion_module_count_out *out, uint32_t *out_bytes)
{
    void *module;
    unsigned count = 0;
    CUresult r = oh_get(OW_KIND_MODULE, in->module, &module);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuModuleGetFunctionCount ? oh_drv.cuModuleGetFunctionCount(&count, module) : CUDA_ERROR_NOT_SUPPORTED;
    out->count = count;
    *out_bytes = sizeof(*out);
    return r;
}

/* Puts functions first.. under the given handles; the driver has no way to ask for a part. */
static CUresult put_some(const struct ow_orion_module_enumerate_in *in, CUmodule module, uint32_t *got)
{
    const uint64_t *ids = (const uint64_t *)(in + 1);
    unsigned total = 0;
    CUfunction *all;
    CUresult r = oh_drv.cuModuleGetFunctionCount(&total, module);

    if (r != CUDA_SUCCESS || in->first >= total || total > OH_MAX_ENUMERATED)
        return r;
    all = calloc(total, sizeof(*all));
    r = all ? oh_drv.cuModuleEnumerateFunctions(all, total, module) : CUDA_ERROR_OUT_OF_MEMORY;
    for (*got = 0; r == CUDA_SUCCESS && *got < in->count && *got < total - in->first; ++*got)
        r = oh_function_put(OW_KIND_FUNCTION, ids[*got], all[in->first + *got], in->module, oh_current_context());
    free(all);
    return r;
}

CUresult oh_orion_module_enumerate(struct oh_twin *t, const struct ow_orion_module_enumerate_in *in, uint32_t bytes,
                                   struct ow_orion_module_enumerate_out *out, uint32_t *out_bytes)
{
    void *module;
    uint32_t got = 0;
    CUresult r = oh_get(OW_KIND_MODULE, in->module, &module);

    if (in->functions_bytes > bytes - sizeof(*in) || in->functions_bytes != in->count * 8ull)
        return oh_fault(t, "%u handles in %u bytes", in->count, in->functions_bytes);
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuModuleEnumerateFunctions ? put_some(in, module, &got) : CUDA_ERROR_NOT_SUPPORTED;
    out->got = got;
    *out_bytes = sizeof(*out);
    return r;
}
