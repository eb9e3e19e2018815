/* SPDX-License-Identifier: Apache-2.0 */
/* What copy commands carry after their fixed part: both sides agree on it here. */
#ifndef ORION_BULK_H
#define ORION_BULK_H

#include <stdint.h>

/* Where one side of a copy lies. The guest never names a host address: host memory
 * is an offset in the region, or travels in the command. */
enum oc_side {
    OC_SIDE_DEVICE = 0, /* a device address, checked against the ledger */
    OC_SIDE_REGION = 1, /* a region offset, checked against the channel's extents */
    OC_SIDE_INLINE = 2, /* source only: the bytes that follow the command */
    OC_SIDE_ARRAY = 3,  /* of struct oc_copy_nd only: a CUDA array, see there */
};

/* CUmemorytype, as CUDA_MEMCPY2D and 3D name the kind of memory. */
enum oc_memory_type { OC_MEMORY_HOST = 1, OC_MEMORY_DEVICE = 2, OC_MEMORY_ARRAY = 3, OC_MEMORY_UNIFIED = 4 };

/* Bytes of one element of an array of this CUarray_format; of block formats one block, and a bound for
 * video formats, of which only the driver knows more. */
static inline uint64_t oc_texel_bytes(uint32_t format, uint32_t channels)
{
    uint32_t n = channels ? channels : 1;

    switch (format) {
    case 0x01: case 0x08: /* UNSIGNED_INT8, SIGNED_INT8 */
        return n;
    case 0x02: case 0x09: case 0x10: /* UNSIGNED_INT16, SIGNED_INT16, HALF */
        return 2ull * n;
    case 0x03: case 0x0a: case 0x20: /* UNSIGNED_INT32, SIGNED_INT32, FLOAT */
        return 4ull * n;
    case 0xc0: case 0xc6: /* UNORM_INT8X1, SNORM_INT8X1 */
        return 1;
    case 0xc1: case 0xc3: case 0xc7: case 0xc9: /* 8X2, 16X1 */
        return 2;
    case 0x50: case 0xc2: case 0xc4: case 0xc8: case 0xca: /* UNORM_INT_101010_2, 8X4, 16X2 */
        return 4;
    case 0x91: case 0x92: case 0x97: case 0x98: /* BC1, BC4 */
        return 8;
    default:
        return format >= 0x93 && format <= 0x9e ? 16 : 8;
    }
}

#define OC_INLINE_MAX (32u << 10) /* longest copy whose bytes travel in the command */
#define OC_READ_MAX 900u          /* longest copy answered in a completion slot */

/* A copy of `depth` slices of `height` rows of `width` bytes. Addresses are those of the
 * first byte copied; a slice is `*_rows` rows of `*_pitch` bytes apart from the next.
 * A side that is an array: the address is its handle, `*_pitch` the first byte in its rows, and
 * `*_rows` OC_ARRAY_AT of its first row and slice. */
#define OC_ARRAY_AT(y, z) ((uint64_t)(z) << 32 | (uint32_t)(y))
#define OC_ARRAY_Y(at) ((uint32_t)(at))
#define OC_ARRAY_Z(at) ((at) >> 32)
struct oc_copy_nd {
    uint64_t dst, src;
    uint64_t dst_pitch, src_pitch;
    uint64_t dst_rows, src_rows;
    uint64_t width, height, depth;
    uint32_t dst_side, src_side; /* enum oc_side, INLINE is refused */
    uint32_t unaligned;          /* 1: cuMemcpy2DUnaligned */
    uint32_t reserved;
};

/* One launch of orion_launch_multi; then its packed parameters, up to the next multiple of 8. */
struct oc_launch_one {
    uint64_t function, stream;
    uint32_t grid[3], block[3];
    uint32_t shared_bytes, params_bytes;
};

_Static_assert(sizeof(struct oc_launch_one) == 48, "no padding");
_Static_assert(sizeof(struct oc_copy_nd) == 88, "no padding");

#endif
