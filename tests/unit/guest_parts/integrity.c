/* SPDX-License-Identifier: Apache-2.0 */
/* MD2 by the vectors of RFC 1319, HMAC by its definition, the integrity answers by their rules. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "md2.h"
#include "tables.h"

/* what the answer asks for elsewhere in the library */
int og_nr_devices(void)
{
    return 2;
}
int og_device_bus(int device)
{
    return 0xa0 + device;
}
void og_device_uuid(int device, uint8_t uuid[16])
{
    memset(uuid, 0x11 * (device + 1), 16);
}
CUresult cuDriverGetVersion(int *driverVersion)
{
    *driverVersion = 13000;
    return CUDA_SUCCESS;
}

static void vector(const char *text, const char *hex)
{
    uint8_t digest[16];
    char got[33];

    og_md2(text, strlen(text), digest);
    for (int i = 0; i < 16; i++)
        snprintf(got + 2 * i, 3, "%02x", digest[i]);
    CHECK(!strcmp(got, hex));
}

static void hmac_by_definition(void)
{
    uint8_t key[16], inner[16 + 5], outer[32], want[16], got[16];

    for (int i = 0; i < 16; i++) {
        key[i] = (uint8_t)(i * 7);
        inner[i] = key[i] ^ 0x36;
        outer[i] = key[i] ^ 0x5c;
    }
    memcpy(inner + 16, "hello", 5);
    og_md2(inner, sizeof(inner), outer + 16);
    og_md2(outer, sizeof(outer), want);
    og_hmac_md2(key, 16, "hello", 5, got);
    CHECK(!memcmp(want, got, 16));
}

/* The message of 48 + 28 bytes a device, built here once more and by offsets. */
static void answer_of_hash(void)
{
    static const uint8_t key[16] = { 0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52,
                                     0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f };
    struct og_integrity_addresses a = { (void *)0x1000, (void *)0x2000, (void *)0x3000 };
    uint8_t m[48 + 2 * 28] = { 0 }, want[16], got[16];
    uint32_t words[4] = { 13000, 13052, (uint32_t)getpid(), (uint32_t)(uintptr_t)pthread_self() };
    uint64_t longs[4] = { 0x1000, 0x2000, 0x3000, 1700000000 };

    memcpy(m, words, 16);
    memcpy(m + 16, longs, 32);
    for (int i = 0; i < 2; i++) {
        int32_t place[3] = { 0, 0xa0 + i, 0 };

        memset(m + 48 + 28 * i, 0x11 * (i + 1), 16);
        memcpy(m + 48 + 28 * i + 16, place, 12);
    }
    og_hmac_md2(key, 16, m, sizeof(m), want);
    CHECK(og_integrity_answer(&a, 13052, 1700000000, got) == CUDA_SUCCESS);
    CHECK(!memcmp(want, got, 16));
}

static void answers_of_constants(void)
{
    struct og_integrity_addresses a = { 0 };
    uint64_t got[2];

    CHECK(og_integrity_answer(&a, 13050, 1, (uint8_t *)got) == CUDA_SUCCESS);
    CHECK(got[0] == 0x3341181C03CB675Cull && got[1] == 0x8ED383AA1F4CD1E8ull);
    CHECK(og_integrity_answer(&a, 12081, 1, (uint8_t *)got) == CUDA_SUCCESS);
    CHECK(got[0] == 0x1841181C03CB675Cull && got[1] == 0x8ED383AA1F4CD1E8ull);
}

int main(void)
{
    vector("", "8350e5a3e24c153df2275c9f80692773");
    vector("a", "32ec01ec4a6dac72c0ab96fb34c0b5d1");
    vector("abc", "da853b0d3f88d99b30283a69e6ded6bb");
    vector("message digest", "ab4f496bfb2a530b219ff33031fe06b0");
    vector("abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b");
    vector("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "da33def2a42df13975352846c30338cd");
    vector("12345678901234567890123456789012345678901234567890123456789012345678901234567890",
           "d5976f79d83d3a0dc9806c3c66f3efd8");
    hmac_by_definition();
    answers_of_constants();
    answer_of_hash();
    return 0;
}
