/* SPDX-License-Identifier: Apache-2.0 */
/* Shape of a fatbin, for those who check and who measure it. */
#ifndef OH_FATBIN_H
#define OH_FATBIN_H

#include <stdint.h>

#define OH_FATBIN_MAGIC 0xba55ed50u
#define OH_ELF_MAGIC 0x464c457fu
#define OH_KIND_ELF 2
#define OH_COMPRESSED 0xb000ull /* old, LZ4, Zstd */

struct oh_fatbin {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t files_bytes; /* of the entries; what is behind them is nobody's */
};
struct oh_fatbin_entry {
    uint16_t kind, version;
    uint32_t header_bytes;
    uint64_t payload_bytes;
    uint8_t unused[24];
    uint64_t flags;
};
_Static_assert(sizeof(struct oh_fatbin_entry) == 48, "entry header up to the flags");

#endif
