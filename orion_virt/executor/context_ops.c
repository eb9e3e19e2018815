/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts of the client: made, ended, set current; peers. */
#include "array.h"
#include "contexts.h"
#include "extra.h"
#include "limit.h"
#include "modules.h"
#include "share.h"
#include "turn.h"

enum { OH_PRIMARY = 0, OH_CREATED = 1 };                  /* kind of orion_ctx_activate */
enum { OH_RELEASE_PRIMARY = 0, OH_RESET = 1, OH_DESTROY = 2 }; /* how of orion_ctx_end */
#define OH_CTX_FLAGS 0xffu
#define OH_MAX_CONTEXTS 16u /* of one vGPU */

static struct oh_context context_of[OC_MAX_DEVICES][2];

static bool peers[OC_MAX_DEVICES][OC_MAX_DEVICES]; /* enabled between vGPUs of one card */

/* ---- what a context takes with it ---- */
static unsigned alive[OC_MAX_DEVICES]; /* contexts of each device; under ending_lock */
static pthread_mutex_t ending_lock = PTHREAD_MUTEX_INITIALIZER;

/* Before a context is made. The first one of a device is paid for by placement, others out of its memory; of a group's
 * later processes each has booked its first when it came, and has to find it free. */
static CUresult count_new(int device, bool *first)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&ending_lock);
    *first = !alive[device];
    if (alive[device] >= OH_MAX_CONTEXTS)
        r = CUDA_ERROR_OUT_OF_MEMORY;
    else if (!*first)
        r = oh_extra_more(device, oh_extra_base_bytes(device));
    else if (oh_others_bytes(device) && oh_extra_over_now(device))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    alive[device] += r == CUDA_SUCCESS;
    pthread_mutex_unlock(&ending_lock);
    return r;
}

static void count_ended(int device, bool *last_of_device, bool *last)
{
    unsigned all = 0;

    pthread_mutex_lock(&ending_lock);
    alive[device]--;
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        all += alive[i];
    *last_of_device = !alive[device];
    *last = !all;
    pthread_mutex_unlock(&ending_lock);
    if (*last_of_device)
        return;
    oh_extra_less(device, oh_extra_base_bytes(device));
    oh_extra_hidden(device, -1);
}

static void drop_stream(uint64_t id, void *real, void *data, void *context)
{
    CUcontext of = NULL;

    (void)data;
    if (oh_drv.cuStreamGetCtx(real, &of) != CUDA_SUCCESS || of == context)
        oh_del(OW_KIND_STREAM, id);
}

static void drop_event(uint64_t id, void *real, void *data, void *unused)
{
    (void)unused;
    if (oh_take(OW_KIND_EVENT, id, &real, &data) && data)
        oh_share_put(data, false);
}

/* Handles must not name what the driver frees. Events do not tell their context: they go with the last one. */
static void drop_all_of(uint64_t id, CUcontext real, bool last)
{
    oh_drop_context(id);
    oh_drop_textures(id);
    oh_drop_arrays(id);
    oh_ipc_drop_context(real);
    oh_each(OW_KIND_STREAM, drop_stream, real);
    if (last)
        oh_each(OW_KIND_EVENT, drop_event, NULL);
}

static CUcontext ahead; /* the first vGPU's primary context, retained before the client activated it; under ending_lock */

CUcontext oh_context_ahead(void)
{
    uint64_t before;
    CUcontext real;
    CUdevice dev;

    pthread_mutex_lock(&ending_lock);
    if (!ahead && oh_drv.cuDeviceGet(&dev, oh_devices[0].ordinal) == CUDA_SUCCESS) {
        before = oh_extra_base_begin(0);
        if (oh_drv.cuDevicePrimaryCtxRetain(&ahead, dev) != CUDA_SUCCESS)
            ahead = NULL;
        else
            oh_extra_base_end(0, before);
    }
    real = ahead;
    pthread_mutex_unlock(&ending_lock);
    return real;
}

/* The client has the primary context now: it lives as long as the client wants. */
static void drop_ahead(CUcontext real, CUdevice dev)
{
    pthread_mutex_lock(&ending_lock);
    if (ahead == real) {
        (void)oh_drv.cuDevicePrimaryCtxRelease_v2(dev);
        ahead = NULL;
    }
    pthread_mutex_unlock(&ending_lock);
}

static CUresult make(struct oh_device *d, bool primary, unsigned flags, CUcontext *real)
{
    CUcontext unused;
    CUdevice dev;
    CUresult r = oh_drv.cuDeviceGet(&dev, d->ordinal);

    if (r != CUDA_SUCCESS)
        return r;
    if (primary) {
        (void)oh_drv.cuDevicePrimaryCtxSetFlags_v2(dev, flags); /* refused where it is active already */
        r = oh_drv.cuDevicePrimaryCtxRetain(real, dev);
        if (r == CUDA_SUCCESS)
            drop_ahead(*real, dev);
        return r;
    }
    r = oh_drv.cuCtxCreate_v2(real, flags, dev);
    if (r == CUDA_SUCCESS)
        (void)oh_drv.cuCtxPopCurrent_v2(&unused); /* creation made it current, which the client did not ask for */
    return r;
}

static void unmake(struct oh_device *d, bool primary, CUcontext real)
{
    CUdevice dev;

    if (!primary)
        (void)oh_drv.cuCtxDestroy_v2(real);
    else if (oh_drv.cuDeviceGet(&dev, d->ordinal) == CUDA_SUCCESS)
        (void)oh_drv.cuDevicePrimaryCtxRelease_v2(dev);
}

/* Region memory must be known to the new context before the guest uses it there. */
static CUresult equip(CUcontext real)
{
    CUcontext before = NULL;
    CUresult r;

    (void)oh_drv.cuCtxGetCurrent(&before);
    r = oh_drv.cuCtxSetCurrent(real);
    if (r == CUDA_SUCCESS)
        r = oh_extents_register();
    (void)oh_drv.cuCtxSetCurrent(before);
    return r;
}

/* Made, known to the client and with region memory in it; nothing of it is left on error. */
static CUresult make_equipped(const struct ow_orion_ctx_activate_in *in, bool primary, CUcontext *real)
{
    struct oh_device *d = &oh_devices[in->device];
    CUresult r = make(d, primary, in->flags & OH_CTX_FLAGS, real);

    if (r != CUDA_SUCCESS)
        return r;
    r = equip(*real);
    if (r == CUDA_SUCCESS)
        r = oh_put(OW_KIND_CONTEXT, in->context, *real);
    if (r != CUDA_SUCCESS)
        unmake(d, primary, *real);
    return r;
}

CUresult oh_orion_ctx_activate(struct oh_twin *t, const struct ow_orion_ctx_activate_in *in, uint32_t bytes,
                               struct ow_orion_ctx_activate_out *out, uint32_t *out_bytes)
{
    struct oh_device *d;
    struct oh_context *c;
    CUcontext real = NULL;
    bool first, unused;
    uint64_t before;
    CUresult r;

    (void)bytes, (void)out, (void)out_bytes;
    if (in->device < 0 || (uint32_t)in->device >= oh_nr_devices || in->kind > OH_CREATED)
        return oh_fault(t, "context of kind %u on device %d", in->kind, in->device);
    d = &oh_devices[in->device];
    if (in->kind == OH_PRIMARY && d->context)
        return oh_fault(t, "the primary context of device %d is active", in->device);
    r = count_new(in->device, &first);
    if (r != CUDA_SUCCESS)
        return r;
    before = first ? oh_extra_base_begin(in->device) : 0;
    r = make_equipped(in, in->kind == OH_PRIMARY && d->primary, &real);
    if (first && r == CUDA_SUCCESS)
        oh_extra_base_end(in->device, before);
    if (!first)
        oh_extra_hidden(in->device, 1);
    if (r != CUDA_SUCCESS) {
        count_ended(in->device, &unused, &unused);
        return r;
    }
    oh_stack_begin(real, in->device);
    c = &context_of[in->device][in->kind];
    c->device = in->device;
    c->primary = in->kind == OH_PRIMARY;
    oh_set_data(OW_KIND_CONTEXT, in->context, c);
    if (c->primary)
        d->context = real;
    return CUDA_SUCCESS;
}

static CUresult end_primary(struct oh_device *d, unsigned how, CUcontext real)
{
    CUdevice dev;
    CUresult r;

    if (!d->primary)
        return oh_drv.cuCtxDestroy_v2(real);
    r = oh_drv.cuDeviceGet(&dev, d->ordinal);
    if (r == CUDA_SUCCESS && how == OH_RESET)
        r = oh_drv.cuDevicePrimaryCtxReset_v2(dev);
    if (r == CUDA_SUCCESS)
        (void)oh_drv.cuDevicePrimaryCtxRelease_v2(dev); /* ours; after a reset it only counts */
    return r;
}

static void forget_peers(int device)
{
    for (unsigned i = 0; i < OC_MAX_DEVICES; i++)
        peers[device][i] = peers[i][device] = false;
}

CUresult oh_orion_ctx_end(struct oh_twin *t, const struct ow_orion_ctx_end_in *in, uint32_t bytes,
                          struct ow_orion_ctx_end_out *out, uint32_t *out_bytes)
{
    struct oh_context *c;
    CUcontext before = NULL;
    bool last_of_device, last;
    void *real;
    CUresult r = oh_get(OW_KIND_CONTEXT, in->context, &real);

    (void)bytes, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    c = oh_data(OW_KIND_CONTEXT, in->context);
    if (!c || c->green || in->how > OH_DESTROY || c->primary != (in->how != OH_DESTROY))
        return oh_fault(t, "end %u of a context", in->how);
    oh_fence_drain();
    if (!oh_take(OW_KIND_CONTEXT, in->context, &real, (void **)&c)) /* another thread ends it */
        return CUDA_ERROR_INVALID_CONTEXT;
    oh_turn_context_ends(real);
    oh_limit_context_ends(real);
    count_ended(c->device, &last_of_device, &last);
    if (c->primary)
        oh_green_end_all(t, c->device);
    drop_all_of(in->context, real, last);
    (void)oh_drv.cuCtxGetCurrent(&before);
    r = c->primary ? end_primary(&oh_devices[c->device], in->how, real) : oh_drv.cuCtxDestroy_v2(real);
    oh_limit_context_ended(real);
    if (before == real) {
        (void)oh_drv.cuCtxSetCurrent(NULL);
        t->device = t->stack_slot = -1;
    }
    oh_stack_end(real);
    if (last_of_device) {
        oh_ledger_drop(c->device);
        oh_extra_base_gone(c->device);
    }
    if (c->primary) {
        oh_devices[c->device].context = NULL;
        forget_peers(c->device);
        oh_clear_sticky(c->device);
    }
    return r;
}

CUresult oh_orion_set_current(struct oh_twin *t, const struct ow_orion_set_current_in *in, uint32_t bytes,
                              struct ow_orion_set_current_out *out, uint32_t *out_bytes)
{
    struct oh_context *c;
    void *real = NULL;
    CUresult r = in->context ? oh_get(OW_KIND_CONTEXT, in->context, &real) : CUDA_SUCCESS;

    (void)bytes, (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuCtxSetCurrent(real);
    c = r == CUDA_SUCCESS && real ? oh_data(OW_KIND_CONTEXT, in->context) : NULL;
    t->device = c ? c->device : -1;
    t->stack_slot = c ? oh_stack_slot(c->green ? oh_devices[c->device].context : real) : -1;
    return r;
}

/* ---- peers. Two vGPUs of one card reach each other's memory anyway, and the driver refuses to enable it. ---- */
static CUresult same_card(int mine, int other, bool enable)
{
    if (peers[mine][other] == enable)
        return enable ? CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    peers[mine][other] = enable;
    return CUDA_SUCCESS;
}

CUresult oh_orion_peer_access(struct oh_twin *t, const struct ow_orion_peer_access_in *in, uint32_t bytes,
                              struct ow_orion_peer_access_out *out, uint32_t *out_bytes)
{
    struct oh_context *c;
    void *real;
    CUresult r = oh_get(OW_KIND_CONTEXT, in->context, &real);

    (void)bytes, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    c = oh_data(OW_KIND_CONTEXT, in->context);
    if (!c || t->device < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (oh_devices[c->device].ordinal == oh_devices[t->device].ordinal)
        return same_card(t->device, c->device, in->enable != 0);
    return in->enable ? oh_drv.cuCtxEnablePeerAccess(real, 0) : oh_drv.cuCtxDisablePeerAccess(real);
}

CUresult oh_orion_peer_attribute(struct oh_twin *t, const struct ow_orion_peer_attribute_in *in, uint32_t bytes,
                                 struct ow_orion_peer_attribute_out *out, uint32_t *out_bytes)
{
    CUdevice src, dst;
    int value = 0;
    CUresult r;

    (void)t, (void)bytes;
    if (in->src < 0 || in->dst < 0 || (uint32_t)in->src >= oh_nr_devices || (uint32_t)in->dst >= oh_nr_devices)
        return CUDA_ERROR_INVALID_DEVICE;
    r = oh_drv.cuDeviceGet(&src, oh_devices[in->src].ordinal);
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuDeviceGet(&dst, oh_devices[in->dst].ordinal);
    if (r != CUDA_SUCCESS)
        return r;
    if (src == dst)
        value = in->attribute != 1; /* 1 is the link's rank: the best; the others say that all is possible */
    else if (in->attribute == 0)
        r = oh_drv.cuDeviceCanAccessPeer(&value, src, dst);
    else
        r = oh_drv.cuDeviceGetP2PAttribute(&value, in->attribute, src, dst);
    out->value = value;
    *out_bytes = sizeof(*out);
    return r;
}
