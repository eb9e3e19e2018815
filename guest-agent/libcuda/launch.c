/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel launches: one one-way command with packed parameters. The first launch of each shape is a
 * round trip, so that launch errors are told at once; what it proved is not asked again. */
#include "launch.h"

#include <string.h>

#include "context.h"
#include "gen/send.h"

/* `extra` of a launch: a list of these and their values. */
enum { OG_EXTRA_END = 0, OG_EXTRA_BUFFER = 1, OG_EXTRA_SIZE = 2 };
enum { OG_ATTR_COOPERATIVE = 2, OG_ATTR_CLUSTER = 4, OG_ATTR_EVENT = 7, OG_ATTR_CLUSTER_PREFERRED = 11,
       OG_ATTR_COMPLETION_EVENT = 12, OG_ATTR_NODE = 13 };

#define OG_MAX_ATTRS 64u
#define OG_MAX_PARAMS_BYTES 32768u

struct og_launch {
    struct og_entry *entry;
    struct og_shape shape;
    uint64_t stream;
    void **params;              /* of the application, one pointer each; or */
    const void *packed;         /* the application's own packed buffer */
    uint32_t params_bytes;
    const CUlaunchAttribute *attrs;
    uint32_t nr_attrs;
    uint64_t shape_key;         /* what a round trip vouches for */
    bool odd;                   /* no card takes this shape: the driver has its own words for that */
};

static CUresult og_extra(struct og_launch *l, void **extra)
{
    const size_t *bytes = NULL;

    l->packed = NULL;
    for (unsigned i = 0; (uintptr_t)extra[i] != OG_EXTRA_END; i += 2) {
        if ((uintptr_t)extra[i] == OG_EXTRA_BUFFER)
            l->packed = extra[i + 1];
        else if ((uintptr_t)extra[i] == OG_EXTRA_SIZE)
            bytes = extra[i + 1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (!l->packed || !bytes || *bytes > OG_MAX_PARAMS_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    l->params_bytes = (uint32_t)*bytes;
    return CUDA_SUCCESS;
}

/* Natively the context is asked for before the function. */
CUresult og_no_function(void)
{
    return og_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
}

/* Everything that can be said without the host. */
static CUresult og_launch_check(struct og_launch *l, uint64_t function, void **extra)
{
    l->entry = og_entry(function);
    if (__builtin_expect(!l->entry, 0)) {
        CUresult r = og_check_init();

        return r == CUDA_SUCCESS ? og_no_function() : r;
    }
    l->odd = !og_grid_ok(&l->shape) || !og_block_ok(&l->shape);
    if (__builtin_expect(l->odd, 0))
        og_block_clamp(&l->shape);
    if (__builtin_expect(l->stream > 2 && !og_stream_valid(l->stream), 0))
        return CUDA_ERROR_INVALID_HANDLE;
    if (__builtin_expect(extra != NULL, 0)) {
        if (l->params)
            return CUDA_ERROR_INVALID_VALUE;
        return og_extra(l, extra);
    }
    l->params_bytes = l->entry->f.params_bytes;
    return l->entry->f.nr_params && !l->params ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static inline void og_pack(const struct og_launch *l, uint8_t *to)
{
    const struct og_function *f = &l->entry->f;

    if (__builtin_expect(l->odd, 0)) { /* refused for its shape: the parameters are not read */
        memset(to, 0, l->params_bytes);
        return;
    }
    if (l->packed) {
        memcpy(to, l->packed, l->params_bytes);
        return;
    }
    for (unsigned i = 0; i < f->nr_params; i++) {
        uint8_t *p = to + f->offset[i];

        if (f->size[i] == 8)
            memcpy(p, l->params[i], 8);
        else if (f->size[i] == 4)
            memcpy(p, l->params[i], 4);
        else
            memcpy(p, l->params[i], f->size[i]);
    }
}

static inline _Atomic uint64_t *og_shape_slot(const struct og_launch *l)
{
    return &l->entry->shapes[(l->shape_key * 0x9e3779b97f4a7c15ull) >> 61];
}
_Static_assert(OG_SHAPES == 8, "three bits choose");

static inline bool og_shape_known(const struct og_launch *l)
{
    return atomic_load_explicit(og_shape_slot(l), memory_order_relaxed) == l->shape_key && !l->odd;
}

static inline CUresult og_launch_post(const struct og_launch *l, struct og_call *c)
{
    CUresult r = og_post(c);

    if (__builtin_expect(atomic_load_explicit(&og_talkers, memory_order_relaxed) > 1, 0))
        og_launched(l->stream);
    return r;
}

/* FNV-1a */
static uint64_t og_hash(uint64_t h, const void *bytes, size_t nr)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < nr; i++)
        h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}

/* A launch that was answered is remembered; of a function with clusters of its own for that grid alone, since another may not
 * consist of whole ones. */
static __attribute__((noinline)) CUresult og_launch_asked(struct og_launch *l, struct og_call *c)
{
    uint64_t of_grid = og_hash(l->shape_key, l->shape.grid, sizeof(l->shape.grid)) | 1ull << 63;
    bool asked = atomic_load_explicit(&l->entry->clustered, memory_order_relaxed) == OG_CLUSTERED_YES;
    CUresult r;

    if (asked)
        l->shape_key = of_grid;
    if (asked && og_shape_known(l))
        return og_launch_post(l, c);
    r = og_call(c);
    if (r != CUDA_SUCCESS || l->odd)
        return r;
    if (!asked && og_entry_clustered(l->entry))
        l->shape_key = of_grid;
    atomic_store_explicit(og_shape_slot(l), l->shape_key, memory_order_relaxed);
    return r;
}

/* After a sticky error nothing of it reaches the host. */
static inline CUresult og_launch_send(struct og_launch *l, struct og_call *c)
{
    return __builtin_expect(og_shape_known(l), 1) ? og_launch_post(l, c) : og_launch_asked(l, c);
}

static inline CUresult og_launch_begin(struct og_call *c, uint32_t op, uint32_t bytes)
{
    const struct og_thread *t = og_self();
    uint32_t sticky;

    if (__builtin_expect(atomic_load_explicit(&og_life, memory_order_relaxed) == OG_CONNECTED && t->device >= 0, 1)) {
        sticky = atomic_load_explicit(&og_channel()->device_error[t->device], memory_order_relaxed);
        if (__builtin_expect(sticky != 0, 0))
            return (CUresult)sticky;
    }
    if (__builtin_expect(!t->depth, 0))
        return CUDA_ERROR_INVALID_CONTEXT;
    return og_begin(c, op, bytes);
}

static CUresult og_launch_plain(struct og_launch *l)
{
    struct ow_orion_launch_in *in;
    struct og_call c;
    CUresult r = og_launch_begin(&c, OW_OP_orion_launch, (uint32_t)sizeof(*in) + l->params_bytes);

    if (__builtin_expect(r != CUDA_SUCCESS, 0))
        return r;
    in = c.in;
    in->function = l->entry->f.handle;
    in->stream = l->stream;
    in->grid_x = l->shape.grid[0];
    in->grid_y = l->shape.grid[1];
    in->grid_z = l->shape.grid[2];
    in->block = og_block_packed(&l->shape);
    in->shared = l->shape.shared;
    in->bytes = in->params_bytes = l->params_bytes;
    og_pack(l, (uint8_t *)(in + 1));
    l->shape_key = (uint64_t)l->shape.shared << 30 | in->block | 1ull << 63;
    return og_launch_send(l, &c);
}

/* Whether the driver takes the launch depends on the grid: it must fit the card, or consist of whole clusters. */
static bool og_grid_matters(const struct og_launch *l)
{
    for (uint32_t i = 0; i < l->nr_attrs; i++)
        if (l->attrs[i].id == OG_ATTR_COOPERATIVE || l->attrs[i].id == OG_ATTR_CLUSTER ||
            l->attrs[i].id == OG_ATTR_CLUSTER_PREFERRED)
            return true;
    return false;
}

/* Bit 62 keeps it apart from plain launches. */
static uint64_t og_attrs_hash(const struct og_launch *l)
{
    uint64_t h = 0xcbf29ce484222325ull ^ ((uint64_t)l->shape.shared << 32 | og_block_packed(&l->shape));

    h = og_hash(h, l->attrs, l->nr_attrs * sizeof(*l->attrs));
    if (og_grid_matters(l))
        h = og_hash(h, l->shape.grid, sizeof(l->shape.grid));
    return h | 3ull << 62;
}

/* The attribute that asks for a node which device code may change, NULL: none does. */
static CUlaunchAttribute *og_updatable(const struct og_launch *l)
{
    for (uint32_t i = 0; i < l->nr_attrs; i++)
        if (l->attrs[i].id == OG_ATTR_NODE && l->attrs[i].value.deviceUpdatableKernelNode.deviceUpdatable)
            return (CUlaunchAttribute *)(uintptr_t)&l->attrs[i];
    return NULL;
}

/* The driver's name for the node comes back in the attribute: device code uses it. */
static CUresult og_launch_updatable(struct og_call *c, CUlaunchAttribute *node)
{
    const struct ow_orion_launch_updatable_out *out;
    CUresult r = og_call(c);

    if (r != CUDA_SUCCESS)
        return r;
    out = c->out;
    if (c->out_bytes < sizeof(*out))
        return CUDA_ERROR_UNKNOWN;
    node->value.deviceUpdatableKernelNode.devNode = (void *)(uintptr_t)out->node;
    return CUDA_SUCCESS;
}

static CUresult og_launch_ex(struct og_launch *l)
{
    uint32_t attrs_bytes = l->nr_attrs * (uint32_t)sizeof(*l->attrs);
    struct ow_orion_launch_ex_in *in;
    CUlaunchAttribute *node = og_updatable(l);
    struct og_call c;
    CUresult r;

    for (uint32_t i = 0; i < l->nr_attrs; i++)
        if (l->attrs[i].id == OG_ATTR_EVENT || l->attrs[i].id == OG_ATTR_COMPLETION_EVENT)
            og_event_shared((uintptr_t)l->attrs[i].value.programmaticEvent.event); /* first member of both */
    r = og_launch_begin(&c, node ? OW_OP_orion_launch_updatable : OW_OP_orion_launch_ex,
                        (uint32_t)sizeof(*in) + attrs_bytes + l->params_bytes);
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->function = l->entry->f.handle;
    in->stream = l->stream;
    in->grid_x = l->shape.grid[0];
    in->grid_y = l->shape.grid[1];
    in->grid_z = l->shape.grid[2];
    in->block = og_block_packed(&l->shape);
    in->shared = l->shape.shared;
    in->attrs_bytes = in->attributes_bytes = attrs_bytes;
    in->bytes = in->params_bytes = l->params_bytes;
    memcpy(in + 1, l->attrs, attrs_bytes);
    og_pack(l, (uint8_t *)(in + 1) + attrs_bytes);
    l->shape_key = og_attrs_hash(l);
    return node ? og_launch_updatable(&c, node) : og_launch_send(l, &c);
}
_Static_assert(sizeof(CUlaunchAttribute) % 8 == 0, "parameters stay aligned");

OG_EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                                  unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                                  unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
    struct og_launch l;
    CUresult r;

    l.shape = (struct og_shape){ { gridDimX, gridDimY, gridDimZ }, { blockDimX, blockDimY, blockDimZ },
                                 sharedMemBytes };
    l.stream = (uintptr_t)hStream;
    l.params = kernelParams;
    l.packed = NULL;
    r = og_launch_check(&l, (uintptr_t)f, extra);
    return __builtin_expect(r == CUDA_SUCCESS, 1) ? og_launch_plain(&l) : r;
}

OG_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
    struct og_launch l;
    CUresult r;

    if (!config || (config->numAttrs && !config->attrs) || config->numAttrs > OG_MAX_ATTRS)
        return CUDA_ERROR_INVALID_VALUE;
    l.shape = (struct og_shape){ { config->gridDimX, config->gridDimY, config->gridDimZ },
                                 { config->blockDimX, config->blockDimY, config->blockDimZ },
                                 config->sharedMemBytes };
    l.stream = (uintptr_t)config->hStream;
    l.params = kernelParams;
    l.packed = NULL;
    l.attrs = config->attrs;
    l.nr_attrs = config->numAttrs;
    r = og_launch_check(&l, (uintptr_t)f, extra);
    if (r != CUDA_SUCCESS)
        return r;
    return l.nr_attrs ? og_launch_ex(&l) : og_launch_plain(&l);
}

OG_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
                                             unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
                                             unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
                                             void **kernelParams)
{
    CUlaunchAttribute cooperative;
    CUlaunchConfig config = { .gridDimX = gridDimX, .gridDimY = gridDimY, .gridDimZ = gridDimZ,
                              .blockDimX = blockDimX, .blockDimY = blockDimY, .blockDimZ = blockDimZ,
                              .sharedMemBytes = sharedMemBytes, .hStream = hStream,
                              .attrs = &cooperative, .numAttrs = 1 };

    memset(&cooperative, 0, sizeof(cooperative));
    cooperative.id = OG_ATTR_COOPERATIVE;
    cooperative.value.cooperative = 1;
    return cuLaunchKernelEx(&config, f, kernelParams, NULL);
}
