/* SPDX-License-Identifier: Apache-2.0 */
/* Copies past the cache: of bytes that this CPU does not read again, written without reading what they replace. */
#include <emmintrin.h>
#include <string.h>

#include "memory.h"

void og_copy_past_cache(void *to, const void *from, size_t bytes)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    size_t head = -(uintptr_t)to & 63;

    head = head < bytes ? head : bytes;
    memcpy(d, s, head);
    for (d += head, s += head, bytes -= head; bytes >= 64; d += 64, s += 64, bytes -= 64)
        for (int i = 0; i < 64; i += 16)
            _mm_stream_si128((__m128i *)(void *)(d + i), _mm_loadu_si128((const __m128i *)(const void *)(s + i)));
    _mm_sfence(); /* such stores are ordered by nothing else */
    memcpy(d, s, bytes);
}
