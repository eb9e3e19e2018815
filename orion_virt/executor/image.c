/* SPDX-License-Identifier: Apache-2.0 */
/* Images on their way in: pieces of one, put together in the worker's own memory. */
#include <stdlib.h>
#include <sys/mman.h>

#include "modules.h"

#define HUGE_PAGE (2ull << 20)
#define OH_PIECE_MAX (1ull << 30)        /* one piece */
#define OH_IMAGES_MAX_BYTES (4ull << 30) /* all of a client */
#define OH_IMAGES_MAX 16384u
#define OH_PIECES_MAX 4096u
#define OH_LOG_MAX (64u << 10)
#define OH_REPLY_ROOM 900u

enum { OH_RAW = 0, OH_WRAPPER_V1 = 1, OH_WRAPPER_V2 = 2 }; /* kinds, as the client numbers them */

struct oh_piece {
    uint8_t *data;
    uint64_t bytes, filled;
};
struct oh_wrapper {
    uint32_t magic, version;
    const void *data;
    const void **fatbins;
};

struct oh_image {
    uint64_t id;             /* 0: dropped by the guest, held by a library */
    uint32_t kind, nr, given;
    struct oh_piece *pieces; /* nr of them */
    CUresult failed;         /* told by the load */
    unsigned users;          /* the guest's number counts as one; [lock] */
    struct oh_wrapper wrapper;
    const void **fatbins;
    char *log[2];
    uint32_t log_room[2], log_bytes[2], wall, threads;
    struct oh_image *next;
};

static struct oh_image *images;
static uint32_t nr_images;
static uint64_t images_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list; an image itself is one guest thread's */

/* With a reference. */
static struct oh_image *find(uint64_t id)
{
    struct oh_image *image;

    pthread_mutex_lock(&lock);
    for (image = id ? images : NULL; image && image->id != id; image = image->next)
        ;
    if (image)
        image->users++;
    pthread_mutex_unlock(&lock);
    return image;
}

static void destroy(struct oh_image *image)
{
    for (uint32_t i = 0; i < image->given; i++)
        free(image->pieces[i].data);
    free(image->pieces);
    free(image->fatbins);
    free(image->log[0]);
    free(image->log[1]);
    free(image);
}

void oh_image_put(struct oh_image *image)
{
    struct oh_image **p;
    bool last;

    if (!image)
        return;
    pthread_mutex_lock(&lock);
    last = --image->users == 0;
    for (p = &images; last && *p && *p != image; p = &(*p)->next)
        ;
    if (last && *p) {
        *p = image->next;
        nr_images--;
        for (uint32_t i = 0; i < image->given; i++)
            images_bytes -= image->pieces[i].data ? image->pieces[i].bytes : 0;
    }
    pthread_mutex_unlock(&lock);
    if (last)
        destroy(image);
}

static bool known(uint64_t id)
{
    struct oh_image *image = find(id);

    oh_image_put(image);
    return image != NULL;
}

CUresult oh_orion_image_begin(struct oh_twin *t, const struct ow_orion_image_begin_in *in, uint32_t bytes,
                              struct ow_orion_image_begin_out *out, uint32_t *out_bytes)
{
    struct oh_image *image;

    (void)bytes, (void)out, (void)out_bytes;
    if (!in->image || in->kind > OH_WRAPPER_V2 || !in->pieces || in->pieces > OH_PIECES_MAX ||
        (in->pieces > 1 && in->kind != OH_WRAPPER_V2) || known(in->image))
        return oh_fault(t, "image of kind %u with %u pieces", in->kind, in->pieces);
    image = nr_images < OH_IMAGES_MAX ? calloc(1, sizeof(*image)) : NULL;
    if (image)
        image->pieces = calloc(in->pieces, sizeof(*image->pieces));
    if (!image || !image->pieces) {
        free(image);
        return CUDA_SUCCESS; /* the load of an image that is not there says out of memory */
    }
    image->id = in->image;
    image->kind = in->kind;
    image->nr = in->pieces;
    image->users = 1;
    pthread_mutex_lock(&lock);
    image->next = images;
    images = image;
    nr_images++;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

/* Large ones in huge pages, where there are any: thousands of page faults would cost more than the copy. */
static void *memory_for(uint64_t bytes)
{
    uint64_t whole = (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    void *p;

    if (bytes < HUGE_PAGE)
        return malloc(bytes);
    p = aligned_alloc(HUGE_PAGE, whole);
    if (p)
        madvise(p, whole, MADV_HUGEPAGE);
    return p;
}

/* Room for one more piece, within the client's share. A zero follows it: what is no ELF and no fat binary the driver reads as text. */
static uint8_t *room_for(uint64_t bytes)
{
    uint8_t *data = NULL;

    pthread_mutex_lock(&lock);
    if (bytes <= OH_PIECE_MAX && bytes <= OH_IMAGES_MAX_BYTES - images_bytes && (data = memory_for(bytes + 1))) {
        images_bytes += bytes;
        data[bytes] = 0;
    }
    pthread_mutex_unlock(&lock);
    return data;
}

static CUresult add_piece(struct oh_twin *t, const struct ow_orion_image_piece_in *in, struct oh_image *image)
{
    struct oh_piece *piece;

    if (image->given == image->nr || !in->bytes)
        return oh_fault(t, "piece %u of an image of %u", image->given + 1, image->nr);
    piece = &image->pieces[image->given++];
    piece->bytes = in->bytes;
    piece->data = room_for(in->bytes);
    if (!piece->data)
        image->failed = CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

CUresult oh_orion_image_piece(struct oh_twin *t, const struct ow_orion_image_piece_in *in, uint32_t bytes,
                              struct ow_orion_image_piece_out *out, uint32_t *out_bytes)
{
    struct oh_image *image = find(in->image);
    CUresult r = image ? add_piece(t, in, image) : CUDA_SUCCESS;

    (void)bytes, (void)out, (void)out_bytes;
    oh_image_put(image);
    return r;
}

static CUresult add_data(struct oh_twin *t, struct oh_image *image, uint64_t offset, const void *data, uint64_t bytes)
{
    struct oh_piece *piece;

    if (image->failed != CUDA_SUCCESS)
        return CUDA_SUCCESS;
    piece = image->given ? &image->pieces[image->given - 1] : NULL;
    if (!piece || offset != piece->filled || bytes > piece->bytes - piece->filled)
        return oh_fault(t, "bytes of an image at %llu, out of order", (unsigned long long)offset);
    memcpy(piece->data + piece->filled, data, bytes);
    piece->filled += bytes;
    return CUDA_SUCCESS;
}

CUresult oh_orion_image_data(struct oh_twin *t, const struct ow_orion_image_data_in *in, uint32_t bytes,
                             struct ow_orion_image_data_out *out, uint32_t *out_bytes)
{
    struct oh_image *image;
    CUresult r;

    (void)out, (void)out_bytes;
    if (in->data_bytes > bytes - sizeof(*in))
        return oh_fault(t, "%u bytes of an image in a command of %u", in->data_bytes, bytes);
    image = find(in->image);
    r = image ? add_data(t, image, in->offset, in + 1, in->data_bytes) : CUDA_SUCCESS;
    oh_image_put(image);
    return r;
}

/* The baton is kept: one thread at a time fills an image, whatever the guest does. */
CUresult oh_orion_image_bulk(struct oh_twin *t, const struct ow_orion_image_bulk_in *in, uint32_t bytes,
                             struct ow_orion_image_bulk_out *out, uint32_t *out_bytes)
{
    const void *data = oh_region(in->region, in->bytes);
    struct oh_image *image;
    CUresult r;

    (void)bytes, (void)out, (void)out_bytes;
    if (!data)
        return CUDA_ERROR_INVALID_VALUE;
    image = find(in->image);
    r = image ? add_data(t, image, in->offset, data, in->bytes) : CUDA_SUCCESS;
    oh_image_put(image);
    return r;
}

CUresult oh_orion_image_drop(struct oh_twin *t, const struct ow_orion_image_drop_in *in, uint32_t bytes,
                             struct ow_orion_image_drop_out *out, uint32_t *out_bytes)
{
    struct oh_image *image = find(in->image);

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (!image)
        return CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    image->users -= image->id ? 1 : 0; /* the number's; ours is still there */
    image->id = 0;
    pthread_mutex_unlock(&lock);
    oh_image_put(image);
    return CUDA_SUCCESS;
}

/* The wrapper as the driver knows it, at our addresses. */
static bool put_together(struct oh_image *image)
{
    if (image->kind == OH_RAW || image->wrapper.data)
        return true;
    image->wrapper.magic = 0x466243b1u;
    image->wrapper.version = image->kind == OH_WRAPPER_V1 ? 1 : 2;
    image->wrapper.data = image->pieces[0].data;
    if (image->nr == 1)
        return true;
    image->fatbins = calloc(image->nr, sizeof(*image->fatbins)); /* the last stays NULL and ends the list */
    if (!image->fatbins)
        return false;
    for (uint32_t i = 1; i < image->nr; i++)
        image->fatbins[i - 1] = image->pieces[i].data;
    image->wrapper.fatbins = image->fatbins;
    return true;
}

static CUresult check(struct oh_image *image)
{
    bool (*ok)(const uint8_t *, uint64_t) = image->kind == OH_RAW ? oh_image_piece_ok : oh_image_wrapped_ok;

    if (image->failed != CUDA_SUCCESS)
        return image->failed;
    if (image->given != image->nr)
        return CUDA_ERROR_INVALID_IMAGE;
    for (uint32_t i = 0; i < image->nr; i++)
        if (image->pieces[i].filled != image->pieces[i].bytes || !ok(image->pieces[i].data, image->pieces[i].bytes))
            return CUDA_ERROR_INVALID_IMAGE;
    return put_together(image) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

struct oh_image *oh_image_get(uint64_t id, CUresult *r)
{
    struct oh_image *image = find(id);

    *r = image ? check(image) : CUDA_ERROR_OUT_OF_MEMORY;
    if (*r == CUDA_SUCCESS)
        return image;
    oh_image_put(image);
    return NULL;
}

struct oh_image *oh_image_logs(uint64_t id)
{
    return find(id);
}

const void *oh_image_code(const struct oh_image *image)
{
    return image->kind == OH_RAW ? (const void *)image->pieces[0].data : &image->wrapper;
}

uint64_t oh_image_takes(const struct oh_image *image)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < image->given; i++)
        sum += oh_image_variables(image->pieces[i].data, image->pieces[i].bytes);
    return sum;
}

bool oh_image_mallocs(const struct oh_image *image)
{
    bool does = false;

    for (uint32_t i = 0; i < image->given; i++)
        does = does || oh_image_names_malloc(image->pieces[i].data, image->pieces[i].bytes);
    return does;
}

uint64_t oh_image_bytes(const struct oh_image *image)
{
    return image->kind == OH_RAW ? image->pieces[0].bytes : 0;
}

/* ---- options and what they bring back ---- */
enum { JIT_THREADS = 1, JIT_WALL = 2, JIT_INFO = 3, JIT_INFO_BYTES = 4, JIT_ERROR = 5, JIT_ERROR_BYTES = 6 };
#define JIT_LAST 36u /* of those whose values are known to be numbers */
/* 17 to 19 and 25 to 28: lists of names and addresses with their lengths */
#define JIT_POINTERS (1ull << JIT_INFO | 1ull << JIT_ERROR | 7ull << 17 | 15ull << 25)

static void jit_add(struct oh_jit *jit, CUjit_option option, void *value)
{
    jit->option[jit->nr] = option;
    jit->value[jit->nr++] = value;
}

CUresult oh_jit_get(struct oh_jit *jit, struct oh_image *image, const uint64_t *packed, uint32_t nr)
{
    jit->nr = 0;
    if (nr > OH_JIT_MAX - 4)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < nr; i++) {
        unsigned option = (unsigned)(packed[i] >> 32), which = option == JIT_ERROR_BYTES;
        uint32_t value = (uint32_t)packed[i];

        if (option > JIT_LAST || (JIT_POINTERS >> option & 1))
            return CUDA_ERROR_INVALID_VALUE;
        if (option == JIT_INFO_BYTES || option == JIT_ERROR_BYTES) {
            value = value < OH_LOG_MAX ? value : OH_LOG_MAX;
            if (!value || image->log[which]) /* one log of each kind, and never a length without its buffer */
                continue;
            image->log[which] = calloc(1, value);
            if (!image->log[which])
                continue;
            image->log_room[which] = value;
            jit_add(jit, which ? JIT_ERROR : JIT_INFO, image->log[which]);
        }
        jit_add(jit, option, (void *)(uintptr_t)value);
    }
    return CUDA_SUCCESS;
}

void oh_jit_keep(struct oh_jit *jit, struct oh_image *image)
{
    for (unsigned i = 0; i < jit->nr; i++) {
        uint32_t value = (uint32_t)(uintptr_t)jit->value[i];

        if (jit->option[i] == JIT_INFO_BYTES)
            image->log_bytes[0] = value < image->log_room[0] ? value : image->log_room[0];
        else if (jit->option[i] == JIT_ERROR_BYTES)
            image->log_bytes[1] = value < image->log_room[1] ? value : image->log_room[1];
        else if (jit->option[i] == JIT_WALL)
            image->wall = value;
        else if (jit->option[i] == JIT_THREADS)
            image->threads = value;
    }
}

CUresult oh_orion_image_log(struct oh_twin *t, const struct ow_orion_image_log_in *in, uint32_t bytes,
                            struct ow_orion_image_log_out *out, uint32_t *out_bytes)
{
    struct oh_image *image = find(in->image);
    uint32_t n = 0, which = in->which & 1;

    (void)t, (void)bytes;
    if (!image)
        return CUDA_ERROR_OUT_OF_MEMORY;
    out->total = out->value = 0;
    if (in->which < 2 && image->log[which]) {
        out->total = (uint32_t)strnlen(image->log[which], image->log_bytes[which]);
        n = in->offset < out->total ? out->total - in->offset : 0;
        n = n < in->room ? n : in->room;
        n = n < OH_REPLY_ROOM ? n : OH_REPLY_ROOM;
        memcpy(out + 1, image->log[which] + (n ? in->offset : 0), n);
    } else {
        out->value = in->which == 2 ? image->wall : image->threads;
    }
    oh_image_put(image);
    out->data_bytes = n;
    *out_bytes = (uint32_t)sizeof(*out) + n;
    return CUDA_SUCCESS;
}
