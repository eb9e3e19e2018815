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
#define MAX_PTX (256u << 20)

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
    free(out->ptx);
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
    snprintf(error, error_bytes, "the PTX in this fat binary is compressed with Zstandard: install libzstd, or compile "
             "with nvcc -Xfatbin --compress-mode=speed");
    return 0;
}

static CUresult take_ptx_entry(const struct fat_entry *e, const uint8_t *data, struct sim_image *out, char *error,
                               size_t error_bytes)
{
    CUresult r;
    uint8_t *plain;
    size_t got;

    if (!(e->flags & (FLAG_LZ4 | FLAG_ZSTD)))
        return take_text(data, e->bytes, out);
    if (e->plain_bytes > MAX_PTX || e->compressed_bytes > e->bytes || !(plain = malloc(e->plain_bytes + 1)))
        return CUDA_ERROR_INVALID_IMAGE;
    snprintf(error, error_bytes, "the compressed PTX in this fat binary is damaged");
    got = e->flags & FLAG_ZSTD ? zstd_block(data, e->compressed_bytes, plain, e->plain_bytes, error, error_bytes)
                               : lz4_block(data, e->compressed_bytes, plain, e->plain_bytes);
    r = got == e->plain_bytes ? take_text(plain, e->plain_bytes, out) : CUDA_ERROR_INVALID_PTX;
    if (!r)
        *error = 0;
    free(plain);
    return r;
}

static uint64_t word(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    memcpy(&v, p, bytes);
    return v;
}

static CUresult take_cubin(const uint8_t *elf, struct sim_image *out)
{
    /* Section headers end the file; program headers may come after them. */
    size_t sections = word(elf + 40, 8) + word(elf + 58, 2) * word(elf + 60, 2);
    size_t programs = word(elf + 32, 8) + word(elf + 54, 2) * word(elf + 56, 2);
    size_t bytes = sections > programs ? sections : programs;

    out->sass = true;
    if (out->cubin)
        return CUDA_SUCCESS;
    out->cubin = malloc(bytes);
    if (!out->cubin)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(out->cubin, elf, bytes);
    out->cubin_bytes = bytes;
    return CUDA_SUCCESS;
}

static CUresult open_fat(const struct fat_header *h, struct sim_image *out, char *error, size_t error_bytes)
{
    const uint8_t *at = (const uint8_t *)h + h->header_bytes, *end = at + h->bytes;
    CUresult r, ptx_error = CUDA_SUCCESS;
    uint32_t best = 0;

    while (at + sizeof(struct fat_entry) <= end) {
        const struct fat_entry *e = (const void *)at;
        if (e->header_bytes < sizeof(*e) - 8 || e->bytes > (uint64_t)(end - at) - e->header_bytes)
            return CUDA_ERROR_INVALID_IMAGE;
        const uint8_t *data = at + e->header_bytes;
        if (e->kind == KIND_PTX && e->arch <= 90 && e->arch >= best) {
            ptx_error = take_ptx_entry(e, data, out, error, error_bytes);
            best = e->arch;
        } else if (e->kind == KIND_ELF) {
            out->sass = true;
            if (!(e->flags & (FLAG_LZ4 | FLAG_ZSTD)) && !memcmp(data, "\177ELF", 4) && (r = take_cubin(data, out)))
                return r;
        }
        at = data + e->bytes;
    }
    if (out->ptx || out->cubin)
        return CUDA_SUCCESS;
    if (ptx_error)
        return ptx_error;
    snprintf(error, error_bytes, "this fat binary holds no PTX for compute_90 or older; the simulated GPU runs PTX only");
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
        return take_cubin(image, out);
    return take_text(image, strlen(image), out);
}

void sim_image_close(struct sim_image *image)
{
    free(image->ptx);
    free(image->cubin);
    memset(image, 0, sizeof(*image));
}
