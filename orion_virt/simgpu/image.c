/* SPDX-License-Identifier: Apache-2.0 */
/* Module images: PTX text, machine code, and fat binaries that hold either, compressed or not. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define WRAPPER_MAGIC 0x466243b1u
#define FATBIN_MAGIC 0xba55ed50u
#define KIND_PTX 1
#define KIND_ELF 2
#define FLAG_LZ4 0x2000ull
#define FLAG_ZSTD 0x8000ull
#define MAX_PLAIN (256u << 20)
#define ELF_HEADER_BYTES 64
#define SIM_ARCH 90

struct wrapper {
    uint32_t magic, version;
    const void *data;
    void *unused;
};
struct fat_header {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes;
};
struct fat_entry {
    uint16_t kind, attributes;
    uint32_t header_bytes;
    uint64_t bytes;
    uint32_t compressed_bytes, options;
    uint16_t minor, major;
    uint32_t arch, name_off, name_bytes;
    uint64_t flags, zero, plain_bytes;
};

/* One LZ4 block; the length of what came out, 0 when it is damaged. */
static size_t lz4_block(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t room)
{
    const uint8_t *end = in + in_bytes;
    size_t at = 0;

    while (in < end) {
        unsigned token = *in++;
        size_t literals = token >> 4, match = (token & 15) + 4, distance;
        if (literals == 15)
            do {
                if (in >= end)
                    return 0;
                literals += *in;
            } while (*in++ == 255);
        if (literals > (size_t)(end - in) || literals > room - at)
            return 0;
        memcpy(out + at, in, literals);
        in += literals;
        at += literals;
        if (in == end)
            break; /* the last sequence has no match */
        if (end - in < 2)
            return 0;
        distance = in[0] | (size_t)in[1] << 8;
        in += 2;
        if (match == 19)
            do {
                if (in >= end)
                    return 0;
                match += *in;
            } while (*in++ == 255);
        if (!distance || distance > at || match > room - at)
            return 0;
        for (; match; match--, at++)
            out[at] = out[at - distance];
    }
    return at;
}

static CUresult take_text(const void *text, size_t bytes, struct sim_image *out)
{
    out->ptx = malloc(bytes + 1);
    if (!out->ptx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(out->ptx, text, bytes);
    out->ptx[bytes] = 0;
    out->ptx_bytes = strlen(out->ptx);
    return CUDA_SUCCESS;
}

/* The system's libzstd, where there is one; 0: damaged, or no library (*error says so). */
static size_t zstd_block(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t room, char *error, size_t error_bytes)
{
    void *library = dlopen("libzstd.so.1", RTLD_LAZY | RTLD_LOCAL);
    size_t (*decompress)(void *, size_t, const void *, size_t) = NULL;

    if (library)
        *(void **)&decompress = dlsym(library, "ZSTD_decompress");
    if (decompress)
        return decompress(out, room, in, in_bytes);
    snprintf(error, error_bytes, "what this fat binary holds is compressed with Zstandard: install libzstd, or compile "
             "with nvcc -Xfatbin --compress-mode=speed");
    return 0;
}

/* What an entry holds, to be freed, with its length. */
static CUresult unpack(const struct fat_entry *e, uint8_t **plain, size_t *bytes, char *error, size_t error_bytes)
{
    const uint8_t *data = (const uint8_t *)e + e->header_bytes;
    bool packed = e->flags & (FLAG_LZ4 | FLAG_ZSTD);
    size_t got = *bytes = packed ? e->plain_bytes : e->bytes;

    *plain = *bytes <= MAX_PLAIN && (!packed || e->compressed_bytes <= e->bytes) ? malloc(*bytes + 1) : NULL;
    if (!*plain)
        return CUDA_ERROR_INVALID_IMAGE;
    snprintf(error, error_bytes, "the compressed code in this fat binary is damaged");
    if (!packed)
        memcpy(*plain, data, *bytes);
    else if (e->flags & FLAG_ZSTD)
        got = zstd_block(data, e->compressed_bytes, *plain, *bytes, error, error_bytes);
    else
        got = lz4_block(data, e->compressed_bytes, *plain, *bytes);
    if (got == *bytes) {
        *error = 0;
        return CUDA_SUCCESS;
    }
    free(*plain);
    return e->kind == KIND_PTX ? CUDA_ERROR_INVALID_PTX : CUDA_ERROR_INVALID_IMAGE;
}

static uint64_t word(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    memcpy(&v, p, bytes);
    return v;
}

static CUresult take_cubin(const uint8_t *elf, size_t limit, struct sim_image *out)
{
    /* Section headers end the file; program headers may come after them. */
    size_t sections, programs, bytes;

    if (limit < ELF_HEADER_BYTES || memcmp(elf, "\177ELF", 4))
        return CUDA_ERROR_INVALID_IMAGE;
    sections = word(elf + 40, 8) + word(elf + 58, 2) * word(elf + 60, 2);
    programs = word(elf + 32, 8) + word(elf + 54, 2) * word(elf + 56, 2);
    bytes = sections > programs ? sections : programs;
    if (bytes < ELF_HEADER_BYTES || bytes > limit)
        return CUDA_ERROR_INVALID_IMAGE;
    out->cubin = malloc(bytes);
    if (!out->cubin)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(out->cubin, elf, bytes);
    out->cubin_bytes = bytes;
    return CUDA_SUCCESS;
}

static CUresult take_entry(const struct fat_entry *e, struct sim_image *out, char *error, size_t error_bytes)
{
    uint8_t *plain;
    size_t bytes;
    CUresult r = unpack(e, &plain, &bytes, error, error_bytes);

    if (r)
        return r;
    r = e->kind == KIND_PTX ? take_text(plain, bytes, out) : take_cubin(plain, bytes, out);
    free(plain);
    return r;
}

/* The newest PTX that this card can run, else its machine code, which can be asked about. */
static CUresult open_fat(const struct fat_header *h, struct sim_image *out, char *error, size_t error_bytes)
{
    const uint8_t *at = (const uint8_t *)h + h->header_bytes, *end = at + h->bytes;
    const struct fat_entry *e, *ptx = NULL, *code = NULL;

    for (; at + sizeof(*e) <= end; at += e->header_bytes + e->bytes) {
        e = (const void *)at;
        if (e->header_bytes < sizeof(*e) - 8 || e->bytes > (uint64_t)(end - at) - e->header_bytes)
            return CUDA_ERROR_INVALID_IMAGE;
        if (e->kind == KIND_PTX && e->arch <= SIM_ARCH && (!ptx || e->arch >= ptx->arch))
            ptx = e;
        else if (e->kind == KIND_ELF && e->arch == SIM_ARCH && !code)
            code = e;
    }
    if (ptx || code)
        return take_entry(ptx ? ptx : code, out, error, error_bytes);
    snprintf(error, error_bytes, "this fat binary holds neither PTX for compute_90 or older nor code for sm_90");
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

CUresult sim_image_open(const void *image, struct sim_image *out, char *error, size_t error_bytes)
{
    uint32_t magic;
    const uint8_t *p = image;

    memset(out, 0, sizeof(*out));
    if (!image)
        return CUDA_ERROR_INVALID_VALUE;
    if (!p[0] || !p[1] || !p[2])
        return CUDA_ERROR_INVALID_IMAGE;
    memcpy(&magic, image, sizeof(magic));
    if (magic == WRAPPER_MAGIC) {
        image = ((const struct wrapper *)image)->data;
        memcpy(&magic, image, sizeof(magic));
    }
    if (magic == FATBIN_MAGIC)
        return open_fat(image, out, error, error_bytes);
    if (!memcmp(image, "\177ELF", 4))
        return take_cubin(image, SIZE_MAX, out);
    return take_text(image, strlen(image), out);
}

void sim_image_close(struct sim_image *image)
{
    free(image->ptx);
    free(image->cubin);
    memset(image, 0, sizeof(*image));
}
