/* SPDX-License-Identifier: Apache-2.0 */
/* MD2 (RFC 1319, with the checksum erratum) and HMAC over it (RFC 2104), for the runtime's handshake only. */
#ifndef OG_MD2_H
#define OG_MD2_H

#include <stddef.h>
#include <stdint.h>

#define OG_MD2_BYTES 16

void og_md2(const void *data, size_t bytes, uint8_t digest[OG_MD2_BYTES]);
/* `key` at most one MD2 block (16 bytes), `bytes` at most OG_HMAC_MAX. */
void og_hmac_md2(const uint8_t *key, size_t key_bytes, const void *data, size_t bytes, uint8_t digest[OG_MD2_BYTES]);
#define OG_HMAC_MAX 2048

#endif
