/* SPDX-License-Identifier: Apache-2.0 */
/* MD2 (RFC 1319) and HMAC-MD2 (RFC 2104): the runtime's handshake asks for them, nothing is secured by them. */
#include "md2.h"

#include <string.h>

/* RFC 1319, 3.2: a permutation made from the digits of pi. */
static const uint8_t og_md2_pi[256] = {
    41,  46,  67,  201, 162, 216, 124, 1,   61,  54,  84,  161, 236, 240, 6,   19,  98,  167, 5,   243, 192, 199,
    115, 140, 152, 147, 43,  217, 188, 76,  130, 202, 30,  155, 87,  60,  253, 212, 224, 22,  103, 66,  111, 24,
    138, 23,  229, 18,  190, 78,  196, 214, 218, 158, 222, 73,  160, 251, 245, 142, 187, 47,  238, 122, 169, 104,
    121, 145, 21,  178, 7,   63,  148, 194, 16,  137, 11,  34,  95,  33,  128, 127, 93,  154, 90,  144, 50,  39,
    53,  62,  204, 231, 191, 247, 151, 3,   255, 25,  48,  179, 72,  165, 181, 209, 215, 94,  146, 42,  172, 86,
    170, 198, 79,  184, 56,  210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4,   241, 69,  157, 112, 89,
    100, 113, 135, 32,  134, 91,  207, 101, 230, 45,  168, 2,   27,  96,  37,  173, 174, 176, 185, 246, 28,  70,
    97,  105, 52,  64,  126, 15,  85,  71,  163, 35,  221, 81,  175, 58,  195, 92,  249, 206, 186, 197, 234, 38,
    44,  83,  13,  110, 133, 40,  132, 9,   211, 223, 205, 244, 65,  129, 77,  82,  106, 220, 55,  200, 108, 193,
    171, 250, 36,  225, 123, 8,   12,  189, 177, 74,  120, 136, 149, 139, 227, 99,  232, 109, 233, 203, 213, 254,
    59,  0,   29,  57,  242, 239, 183, 14,  102, 88,  208, 228, 166, 119, 114, 248, 235, 117, 75,  10,  49,  68,
    80,  180, 143, 237, 31,  26,  219, 153, 141, 51,  159, 17,  131, 20,
};

static void og_md2_block(uint8_t state[48], uint8_t checksum[16], const uint8_t block[16])
{
    uint8_t last = checksum[15];
    unsigned t = 0;

    for (int i = 0; i < 16; i++) {
        state[16 + i] = block[i];
        state[32 + i] = state[i] ^ block[i];
        last = checksum[i] ^= og_md2_pi[block[i] ^ last]; /* the erratum: xor, not assignment */
    }
    for (unsigned round = 0; round < 18; round++) {
        for (int i = 0; i < 48; i++)
            t = state[i] ^= og_md2_pi[t];
        t = (t + round) & 0xff;
    }
}

void og_md2(const void *data, size_t bytes, uint8_t digest[OG_MD2_BYTES])
{
    uint8_t state[48] = { 0 }, checksum[16] = { 0 }, block[16];
    const uint8_t *at = data;
    size_t left = bytes;

    for (; left >= 16; left -= 16, at += 16)
        og_md2_block(state, checksum, at);
    memset(block, (int)(16 - left), sizeof(block));
    if (left)
        memcpy(block, at, left);
    og_md2_block(state, checksum, block);
    memcpy(block, checksum, sizeof(block));
    og_md2_block(state, checksum, block);
    memcpy(digest, state, OG_MD2_BYTES);
}

void og_hmac_md2(const uint8_t *key, size_t key_bytes, const void *data, size_t bytes, uint8_t digest[OG_MD2_BYTES])
{
    uint8_t text[16 + OG_HMAC_MAX], outer[16 + OG_MD2_BYTES];

    memset(digest, 0, OG_MD2_BYTES);
    if (key_bytes > 16 || bytes > OG_HMAC_MAX)
        return;
    memset(text, 0x36, 16);
    memset(outer, 0x5c, 16);
    for (size_t i = 0; i < key_bytes; i++) {
        text[i] ^= key[i];
        outer[i] ^= key[i];
    }
    memcpy(text + 16, data, bytes);
    og_md2(text, 16 + bytes, outer + 16);
    og_md2(outer, sizeof(outer), digest);
}
