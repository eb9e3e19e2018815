/* SPDX-License-Identifier: Apache-2.0 */
/* Texture fetches and surface accesses: coordinates to texels, address modes, filters, conversion. */
#include <math.h>

#include "ptx_internal.h"

#define WEIGHT_STEPS 256.0f /* filters have 8 bits of fraction */

/* Coordinates of one fetch, of whichever type the instruction says. */
struct point {
    float at[3];
    int whole[3];
    bool integers;
    unsigned dims, layer;
};
static const struct { uint8_t dims, layered, cube; } geometries[] = {
    [G_1D] = { 1, 0, 0 }, [G_2D] = { 2, 0, 0 }, [G_3D] = { 3, 0, 0 }, [G_A1D] = { 1, 1, 0 }, [G_A2D] = { 2, 1, 0 },
    [G_CUBE] = { 3, 0, 1 }, [G_ACUBE] = { 3, 1, 1 },
};

unsigned ptx_coordinates(enum ptx_geometry g)
{
    return geometries[g].dims + geometries[g].layered;
}

/* ---- texels ---- */

static void read_texel(const struct ptx_texture *t, const uint8_t *p, union ptx_value out[4])
{
    for (unsigned c = 0; c < t->channels; c++, p += t->component_bytes) {
        uint32_t v = 0;

        memcpy(&v, p, t->component_bytes);
        if (t->component == PTX_SIGNED && t->component_bytes < 4)
            v = t->component_bytes == 1 ? (uint32_t)(int8_t)v : (uint32_t)(int16_t)v;
        if (t->component == PTX_FLOAT && t->component_bytes == 2)
            out[c].f = ptx_from_half((uint16_t)v);
        else
            out[c].u = v;
    }
}

/* To float as the texture unit reads small integers: 0..1, or -1..1. */
static float normal(const struct ptx_texture *t, uint32_t v)
{
    float most = t->component == PTX_UNSIGNED ? (t->component_bytes == 1 ? 255.0f : 65535.0f)
                                              : (t->component_bytes == 1 ? 127.0f : 32767.0f);
    float f = t->component == PTX_UNSIGNED ? (float)v / most : (float)(int32_t)v / most;

    return f < -1.0f ? -1.0f : f;
}

static bool converts(const struct ptx_texture *t)
{
    return t->component != PTX_FLOAT && t->component_bytes < 4 && !t->as_integer;
}

/* Where index `i` of `n` falls; false: the border. */
static bool wrap(enum ptx_address_mode mode, bool normalized, long i, long n, long *to)
{
    long period = 2 * n;

    if (!normalized && mode != PTX_BORDER)
        mode = PTX_CLAMP;
    switch (mode) {
    case PTX_WRAP:
        *to = (i % n + n) % n;
        return true;
    case PTX_MIRROR:
        i = (i % period + period) % period;
        *to = i < n ? i : period - 1 - i;
        return true;
    case PTX_CLAMP:
        *to = i < 0 ? 0 : i >= n ? n - 1 : i;
        return true;
    default:
        *to = i;
        return i >= 0 && i < n;
    }
}

/* One texel, as floats if `as_float`, else as it is. */
static void texel(const struct ptx_texture *t, const struct ptx_level *l, const long i[3], unsigned dims, bool as_float,
                  union ptx_value out[4])
{
    size_t bytes = (size_t)t->channels * t->component_bytes;
    long at[3] = { 0, 0, i[2] };
    bool inside = true;

    for (unsigned d = 0; d < dims && inside; d++)
        inside = wrap(t->mode[d], t->normalized_coordinates, i[d], l->size[d], &at[d]);
    if (t->linear_memory)
        inside = i[0] >= 0 && i[0] < (long)l->size[0];
    memset(out, 0, 4 * sizeof(*out));
    if (inside) {
        read_texel(t, l->base + (size_t)at[2] * l->slice + (size_t)at[1] * l->pitch + (size_t)at[0] * bytes, out);
        for (unsigned c = 0; as_float && converts(t) && c < t->channels; c++)
            out[c].f = normal(t, out[c].u);
        return;
    }
    for (unsigned c = 0; !t->linear_memory && c < t->channels; c++)
        if (as_float || t->component == PTX_FLOAT)
            out[c].f = t->border[c];
        else
            out[c].u = (uint32_t)(int32_t)t->border[c];
}

/* ---- filters ---- */

static void nearest(const struct ptx_texture *t, const struct ptx_level *l, const struct point *p, bool as_float,
                    union ptx_value out[4])
{
    long i[3] = { 0, 0, p->layer };

    for (unsigned d = 0; d < p->dims; d++)
        i[d] = p->integers ? p->whole[d]
                           : (long)floorf(t->normalized_coordinates ? p->at[d] * (float)l->size[d] : p->at[d]);
    texel(t, l, i, p->dims, as_float, out);
}

static void blended(const struct ptx_texture *t, const struct ptx_level *l, const struct point *p,
                    union ptx_value out[4])
{
    float fraction[3] = { 0 }, sum[4] = { 0 };
    long low[3] = { 0, 0, p->layer }, i[3];
    union ptx_value one[4];

    for (unsigned d = 0; d < p->dims; d++) {
        float x = (t->normalized_coordinates ? p->at[d] * (float)l->size[d] : p->at[d]) - 0.5f;
        low[d] = (long)floorf(x);
        fraction[d] = rintf((x - floorf(x)) * WEIGHT_STEPS) / WEIGHT_STEPS;
    }
    for (unsigned corner = 0; corner < 1u << p->dims; corner++) {
        float weight = 1;
        memcpy(i, low, sizeof(i));
        for (unsigned d = 0; d < p->dims; d++) {
            i[d] += corner >> d & 1;
            weight *= corner >> d & 1 ? fraction[d] : 1 - fraction[d];
        }
        if (weight == 0)
            continue;
        texel(t, l, i, p->dims, true, one);
        for (unsigned c = 0; c < 4; c++)
            sum[c] += weight * one[c].f;
    }
    for (unsigned c = 0; c < 4; c++)
        out[c].f = sum[c];
}

static void from_level(const struct ptx_texture *t, unsigned level, const struct point *p, bool as_float,
                       union ptx_value out[4])
{
    if (t->linear && as_float && !p->integers)
        blended(t, &t->level[level], p, out);
    else
        nearest(t, &t->level[level], p, as_float, out);
}

static void sample(const struct ptx_texture *t, const struct point *p, float lod, bool as_float, union ptx_value out[4])
{
    union ptx_value next[4];
    unsigned level;
    float last = (float)(t->levels - 1), share;

    lod += t->bias;
    lod = lod < t->min_lod ? t->min_lod : lod > t->max_lod ? t->max_lod : lod;
    lod = lod < 0 ? 0 : lod > last ? last : lod;
    if (!t->mip_linear || !as_float)
        return from_level(t, (unsigned)floorf(lod + 0.5f), p, as_float, out);
    level = (unsigned)lod;
    share = rintf((lod - floorf(lod)) * WEIGHT_STEPS) / WEIGHT_STEPS;
    from_level(t, level, p, true, out);
    if (share == 0)
        return;
    from_level(t, level + 1, p, true, next);
    for (unsigned c = 0; c < 4; c++)
        out[c].f = (1 - share) * out[c].f + share * next[c].f;
}

/* A direction becomes a face, which is a layer, and a place on it. */
static void onto_face(struct point *p)
{
    float x = p->at[0], y = p->at[1], z = p->at[2], ax = fabsf(x), ay = fabsf(y), az = fabsf(z), m, s, v;
    unsigned face;

    if (ax >= ay && ax >= az) {
        face = x >= 0 ? 0 : 1;
        m = ax, s = x >= 0 ? -z : z, v = -y;
    } else if (ay >= az) {
        face = y >= 0 ? 2 : 3;
        m = ay, s = x, v = y >= 0 ? z : -z;
    } else {
        face = z >= 0 ? 4 : 5;
        m = az, s = z >= 0 ? x : -x, v = -y;
    }
    p->at[0] = (s / m + 1) * 0.5f;
    p->at[1] = (v / m + 1) * 0.5f;
    p->dims = 2;
    p->layer = p->layer * 6 + face;
}

/* ---- instructions ---- */

static int32_t listed(const struct ptx_warp *w, const struct ptx_insn *i, unsigned k)
{
    return w->kernel->module->lists[i->list + (int32_t)k];
}

/* Coordinates begin at entry `first` of the instruction's list. */
static void read_point(struct ptx_warp *w, const struct ptx_insn *i, unsigned first, unsigned lane, struct point *p)
{
    unsigned k = first;

    memset(p, 0, sizeof(*p));
    p->dims = geometries[i->geometry].dims;
    p->integers = i->type2 != T_F32;
    if (geometries[i->geometry].layered)
        p->layer = (uint32_t)REG(listed(w, i, k++))[lane];
    for (unsigned d = 0; d < p->dims; d++, k++) {
        p->at[d] = ptx_f32(REG(listed(w, i, k))[lane]);
        p->whole[d] = (int)(uint32_t)REG(listed(w, i, k))[lane];
    }
}

/* The objects of a warp's lanes are nearly always one: *last is what `t` shows. */
static bool show(struct ptx_warp *w, unsigned lane, uint64_t object, bool surface, uint64_t *last, struct ptx_texture *t)
{
    const struct ptx_memory *memory = w->block->memory;

    if (*last == object && object)
        return true;
    *last = object;
    if (memory->texture && memory->texture(memory->arg, object, surface, t))
        return true;
    ptx_fault(w, lane, PTX_ILLEGAL_ADDRESS, "0x%llx is no %s object", (unsigned long long)object,
              surface ? "surface" : "texture");
    return false;
}

void ptx_tex(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *object = REG(i->a), last = 0;
    bool as_float = i->type == T_F32;
    struct ptx_texture t;
    union ptx_value out[4];
    struct point p;

    EACH {
        uint64_t name = i->flags & F_REFERENCE ? *(const uint64_t *)(uintptr_t)object[l] : object[l];

        if (!show(w, l, name, false, &last, &t))
            return;
        read_point(w, i, 4, l, &p);
        if (geometries[i->geometry].cube)
            onto_face(&p);
        if (p.layer >= t.level[0].size[2] && p.dims < 3)
            p.layer = t.level[0].size[2] - 1;
        sample(&t, &p, i->b < 0 ? 0 : ptx_f32(REG(i->b)[l]), as_float, out);
        for (unsigned c = 0; c < 4; c++)
            REG(listed(w, i, c))[l] = out[c].u;
    }
}

/* The bytes that a surface access names; NULL: outside, and not clamped. x is in bytes. */
static uint8_t *surface_at(const struct ptx_texture *t, const struct point *p, unsigned bytes, bool clamp)
{
    const struct ptx_level *l = &t->level[0];
    long at[3] = { p->whole[0], p->dims > 1 ? p->whole[1] : 0, p->dims > 2 ? p->whole[2] : (long)p->layer };
    long size[3] = { (long)l->size[0] * t->channels * t->component_bytes, l->size[1], l->size[2] };

    for (unsigned d = 0; d < 3; d++) {
        long most = d ? size[d] - 1 : size[d] - (long)bytes;
        if (at[d] >= 0 && at[d] <= most)
            continue;
        if (!clamp || most < 0)
            return NULL;
        at[d] = at[d] < 0 ? 0 : most;
    }
    return l->base + (size_t)at[2] * l->slice + (size_t)at[1] * l->pitch + (size_t)at[0];
}

/* Loads into, or stores from, the registers at entry `data` of the list. */
static void surface(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, unsigned data, unsigned first)
{
    unsigned each = ptx_bytes(i->type), bytes = each * i->mode;
    uint64_t *object = REG(i->a), last = 0;
    struct ptx_texture t;
    struct point p;

    EACH {
        if (!show(w, l, object[l], true, &last, &t))
            return;
        read_point(w, i, first, l, &p);
        uint8_t *at = surface_at(&t, &p, bytes, i->flags & F_CLAMP);
        if (p.whole[0] % (int)bytes)
            return ptx_fault(w, l, PTX_MISALIGNED, "surface coordinate %d is no multiple of %u", p.whole[0], bytes);
        if (!at && !(i->flags & F_ZERO))
            return ptx_fault(w, l, PTX_ILLEGAL_ADDRESS, "surface access outside the array");
        for (unsigned k = 0; k < i->mode; k++) {
            uint64_t *r = &REG(listed(w, i, data + k))[l];
            if (i->exec == ptx_sust && at)
                memcpy(at + k * each, r, each);
            if (i->exec != ptx_suld)
                continue;
            *r = 0;
            if (at)
                memcpy(r, at + k * each, each);
        }
    }
}

void ptx_suld(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    surface(w, i, m, 0, i->mode);
}

void ptx_sust(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    surface(w, i, m, i->nr - i->mode, 0);
}
