/* SPDX-License-Identifier: Apache-2.0 */
/* Images of device code: the interface passes no sizes, so they are found from the headers; then they are sent. */
#include "modules.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gen/send.h"

#define OG_WRAPPER_MAGIC 0x466243b1u
#define OG_FATBIN_MAGIC 0xba55ed50u
#define OG_CHUNK (60u << 10)        /* bytes of an image in one command */
#define OG_IMAGE_MAX (2ull << 30)   /* no image is longer: a header that says so is not one */

struct og_wrapper {
    uint32_t magic, version;
    const void *data;
    const void *const *fatbins; /* version 2: a list that ends with NULL; version 1: a file name */
};
struct og_fatbin {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t files_bytes;
};

static uint64_t og_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* off + n * size, UINT64_MAX where that overflows. */
static uint64_t og_end_of(uint64_t off, uint64_t n, uint64_t size)
{
    uint64_t bytes, end;

    if (__builtin_mul_overflow(n, size, &bytes) || __builtin_add_overflow(off, bytes, &end))
        return UINT64_MAX;
    return end;
}

/* The farthest byte that headers name; 0: not an image. */
static uint64_t og_elf_bytes(const uint8_t *p, uint64_t limit)
{
    Elf64_Ehdr h;
    uint64_t end = sizeof(h), tables;

    if (limit < sizeof(h))
        return 0;
    memcpy(&h, p, sizeof(h));
    tables = og_max(og_end_of(h.e_phoff, h.e_phnum, sizeof(Elf64_Phdr)),
                    og_end_of(h.e_shoff, h.e_shnum, sizeof(Elf64_Shdr)));
    if (h.e_ident[EI_CLASS] != ELFCLASS64 || tables > limit || (h.e_phnum && h.e_phentsize != sizeof(Elf64_Phdr)) ||
        (h.e_shnum && h.e_shentsize != sizeof(Elf64_Shdr)))
        return 0;
    end = og_max(end, tables);
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr ph;

        memcpy(&ph, p + h.e_phoff + i * sizeof(ph), sizeof(ph));
        end = og_max(end, og_end_of(ph.p_offset, 1, ph.p_filesz));
    }
    for (unsigned i = 0; i < h.e_shnum; i++) {
        Elf64_Shdr sh;

        memcpy(&sh, p + h.e_shoff + i * sizeof(sh), sizeof(sh));
        if (sh.sh_type != SHT_NOBITS && sh.sh_type != SHT_NULL)
            end = og_max(end, og_end_of(sh.sh_offset, 1, sh.sh_size));
    }
    return end <= limit ? end : 0;
}

static uint64_t og_fatbin_bytes(const uint8_t *p, uint64_t limit)
{
    struct og_fatbin h;
    uint64_t end;

    if (limit < sizeof(h))
        return 0;
    memcpy(&h, p, sizeof(h));
    if (h.magic != OG_FATBIN_MAGIC || h.header_bytes < sizeof(h))
        return 0;
    end = og_end_of(h.header_bytes, 1, h.files_bytes);
    return end <= limit ? end : 0;
}

/* ar: members of 60-byte headers, each at an even offset, until one is not a header. */
static uint64_t og_archive_bytes(const uint8_t *p, uint64_t limit)
{
    uint64_t at = 8;

    while (limit - at >= 60 && p[at + 58] == '`' && p[at + 59] == '\n') {
        char digits[11] = { 0 };
        uint64_t bytes, end;

        memcpy(digits, p + at + 48, 10);
        bytes = strtoull(digits, NULL, 10);
        end = og_end_of(at + 60, 1, bytes + (bytes & 1));
        if (end > limit)
            return 0;
        at = end;
    }
    return at > 8 ? at : 0;
}

static uint64_t og_piece_bytes(const void *p, uint64_t limit, bool *text)
{
    uint64_t room = limit < OG_IMAGE_MAX ? limit : OG_IMAGE_MAX;
    uint32_t magic = 0;

    *text = false;
    if (limit >= sizeof(magic) && (limit != UINT64_MAX || !memchr(p, 0, sizeof(magic)))) /* a text may be shorter */
        memcpy(&magic, p, sizeof(magic));
    if (magic == OG_FATBIN_MAGIC)
        return og_fatbin_bytes(p, room);
    if (magic == 0x464c457fu) /* "\177ELF" */
        return og_elf_bytes(p, room);
    if (limit >= 8 && magic == 0x72613c21u && !memcmp(p, "!<arch>\n", 8))
        return og_archive_bytes(p, room);
    *text = true;
    room = strnlen(p, room);
    return room < limit ? room + 1 : 0; /* must end with its NUL */
}

static CUresult og_wrapper_scan(const struct og_wrapper *w, struct og_image *image)
{
    unsigned nr = 1;

    if ((w->version != 1 && w->version != 2) || !w->data)
        return CUDA_ERROR_INVALID_IMAGE;
    image->kind = w->version == 1 ? OG_IMAGE_WRAPPER_V1 : OG_IMAGE_WRAPPER_V2;
    if (w->version == 2 && w->fatbins)
        while (w->fatbins[nr - 1] && nr < OG_IMAGE_MAX_PIECES)
            nr++;
    image->pieces = calloc(nr, sizeof(*image->pieces));
    if (!image->pieces)
        return CUDA_ERROR_OUT_OF_MEMORY;
    image->nr = nr;
    for (unsigned i = 0; i < nr; i++) {
        struct og_piece *piece = &image->pieces[i];
        bool text;

        piece->data = i ? w->fatbins[i - 1] : w->data;
        piece->bytes = og_piece_bytes(piece->data, UINT64_MAX, &text);
        if (!piece->bytes)
            return CUDA_ERROR_INVALID_IMAGE;
    }
    return CUDA_SUCCESS;
}

CUresult og_image_scan(const void *code, uint64_t limit, struct og_image *image)
{
    struct og_wrapper w;
    CUresult r = CUDA_SUCCESS;

    memset(image, 0, sizeof(*image));
    /* a wrapper holds pointers, so a file is never one; short texts may end before 4 bytes */
    if (limit == UINT64_MAX && *(const uint8_t *)code == (OG_WRAPPER_MAGIC & 0xff) &&
        !memcmp(code, &(uint32_t){ OG_WRAPPER_MAGIC }, 4)) {
        memcpy(&w, code, sizeof(w));
        r = og_wrapper_scan(&w, image);
    } else {
        image->pieces = calloc(1, sizeof(*image->pieces));
        if (!image->pieces)
            return CUDA_ERROR_OUT_OF_MEMORY;
        image->nr = 1;
        image->pieces[0].data = code;
        image->pieces[0].bytes = og_piece_bytes(code, limit, &image->text);
        if (!image->pieces[0].bytes)
            r = CUDA_ERROR_INVALID_IMAGE;
    }
    if (r != CUDA_SUCCESS)
        og_image_free(image);
    return r;
}

CUresult og_image_copy(struct og_image *image)
{
    struct og_piece *pieces = calloc(image->nr, sizeof(*pieces));
    struct og_image copy = { image->kind, image->text, true, image->nr, pieces };

    if (!pieces)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (unsigned i = 0; i < image->nr; i++) {
        void *data = malloc(image->pieces[i].bytes);

        if (!data) {
            og_image_free(&copy);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        pieces[i].data = memcpy(data, image->pieces[i].data, image->pieces[i].bytes);
        pieces[i].bytes = image->pieces[i].bytes;
    }
    free(image->pieces);
    *image = copy;
    return CUDA_SUCCESS;
}

void og_image_free(struct og_image *image)
{
    for (unsigned i = 0; image->copied && i < image->nr; i++)
        free((void *)(uintptr_t)image->pieces[i].data);
    free(image->pieces);
    memset(image, 0, sizeof(*image));
}

/* Through staging memory, one round trip a piece of it: in the ring the host copies the bytes twice. */
static CUresult og_piece_bulk(uint64_t id, const struct og_piece *piece)
{
    CUresult r = CUDA_SUCCESS;
    uint64_t part, region;
    void *p;

    for (uint64_t off = 0; r == CUDA_SUCCESS && off < piece->bytes; off += part) {
        part = piece->bytes - off;
        r = og_staging_get(&part, &region, &p);
        if (r != CUDA_SUCCESS)
            break;
        memcpy(p, (const uint8_t *)piece->data + off, part);
        r = og_send_orion_image_bulk(id, off, region, part);
        og_staging_fence(region, 0);
    }
    return r;
}

static CUresult og_piece_send(uint64_t id, const struct og_piece *piece)
{
    CUresult r = og_send_orion_image_piece(id, piece->bytes);

    if (r == CUDA_SUCCESS && piece->bytes > OG_CHUNK && og_shared_memory() && og_peer_knows(OW_OP_orion_image_bulk))
        return og_piece_bulk(id, piece);
    for (uint64_t off = 0; r == CUDA_SUCCESS && off < piece->bytes; off += OG_CHUNK) {
        uint64_t left = piece->bytes - off;
        uint32_t bytes = left < OG_CHUNK ? (uint32_t)left : OG_CHUNK;

        r = og_send_orion_image_data(id, off, bytes, (const uint8_t *)piece->data + off);
    }
    return r;
}

CUresult og_image_begin(const struct og_image *image, uint64_t *id)
{
    static _Atomic uint64_t next = 1;

    *id = atomic_fetch_add(&next, 1);
    return og_send_orion_image_begin(*id, image->kind, image->nr);
}

CUresult og_image_send(const struct og_image *image, uint64_t *id)
{
    CUresult r = og_image_begin(image, id);

    for (unsigned i = 0; r == CUDA_SUCCESS && i < image->nr; i++)
        r = og_piece_send(*id, &image->pieces[i]);
    if (r != CUDA_SUCCESS)
        og_image_drop(*id);
    return r;
}

void og_image_drop(uint64_t id)
{
    CUresult r = og_send_orion_image_drop(id);

    (void)r; /* the channel is lost, and the image with it */
}

CUresult og_read_file(const char *path, void **data, uint64_t *bytes)
{
    FILE *f = fopen(path, "rbe");
    CUresult r = CUDA_ERROR_INVALID_IMAGE;
    long size;

    *data = NULL;
    if (!f)
        return CUDA_ERROR_FILE_NOT_FOUND;
    if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) > 0 && fseek(f, 0, SEEK_SET) == 0) {
        char *p = malloc((size_t)size + 1);

        r = p ? CUDA_ERROR_INVALID_IMAGE : CUDA_ERROR_OUT_OF_MEMORY;
        if (p && fread(p, 1, (size_t)size, f) == (size_t)size) {
            p[size] = 0;
            *data = p;
            *bytes = (uint64_t)size + 1; /* with the NUL, which ends a text */
            r = CUDA_SUCCESS;
        } else {
            free(p);
        }
    }
    fclose(f);
    return r;
}
