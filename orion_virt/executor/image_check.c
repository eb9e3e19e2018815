/* SPDX-License-Identifier: Apache-2.0 */
/* Images from the guest: headers must stay inside the bytes that came, before a driver parses them. */
#include <elf.h>
#include <stdlib.h>

#include "fatbin.h"
#include "modules.h"

#define OH_ARCHIVE_MAGIC 0x72613c21u

static bool oh_inside(uint64_t off, uint64_t n, uint64_t size, uint64_t room)
{
    uint64_t bytes;

    return !__builtin_mul_overflow(n, size, &bytes) && off <= room && bytes <= room - off;
}

static bool oh_elf_ok(const uint8_t *p, uint64_t bytes)
{
    Elf64_Ehdr h;

    if (bytes < sizeof(h))
        return false;
    memcpy(&h, p, sizeof(h));
    if (h.e_ident[EI_CLASS] != ELFCLASS64 || (h.e_phnum && h.e_phentsize != sizeof(Elf64_Phdr)) ||
        (h.e_shnum && h.e_shentsize != sizeof(Elf64_Shdr)) || (h.e_shnum && h.e_shstrndx >= h.e_shnum) ||
        !oh_inside(h.e_phoff, h.e_phnum, sizeof(Elf64_Phdr), bytes) ||
        !oh_inside(h.e_shoff, h.e_shnum, sizeof(Elf64_Shdr), bytes))
        return false;
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr ph;

        memcpy(&ph, p + h.e_phoff + i * sizeof(ph), sizeof(ph));
        if (!oh_inside(ph.p_offset, 1, ph.p_filesz, bytes))
            return false;
    }
    for (unsigned i = 0; i < h.e_shnum; i++) {
        Elf64_Shdr sh;

        memcpy(&sh, p + h.e_shoff + i * sizeof(sh), sizeof(sh));
        if (sh.sh_type != SHT_NOBITS && sh.sh_type != SHT_NULL && !oh_inside(sh.sh_offset, 1, sh.sh_size, bytes))
            return false;
    }
    return true;
}

static bool oh_fatbin_ok(const uint8_t *p, uint64_t bytes)
{
    struct oh_fatbin h;
    uint64_t at, end;

    if (bytes < sizeof(h))
        return false;
    memcpy(&h, p, sizeof(h));
    at = h.header_bytes;
    if (at < sizeof(h) || at > bytes || h.files_bytes > bytes - at)
        return false;
    for (end = at + h.files_bytes; at < end;) {
        struct oh_fatbin_entry e;

        if (end - at < sizeof(e))
            return false;
        memcpy(&e, p + at, sizeof(e));
        if (e.header_bytes < sizeof(e) || e.header_bytes > end - at || e.payload_bytes > end - at - e.header_bytes)
            return false;
        if (e.kind == OH_KIND_ELF && !(e.flags & OH_COMPRESSED) && !oh_elf_ok(p + at + e.header_bytes, e.payload_bytes))
            return false;
        at += e.header_bytes + e.payload_bytes;
    }
    return true;
}

static bool oh_archive_ok(const uint8_t *p, uint64_t bytes)
{
    uint64_t at = 8;

    while (at < bytes) {
        char digits[11] = { 0 };
        uint64_t size;

        if (bytes - at < 60 || p[at + 58] != '`' || p[at + 59] != '\n')
            return false;
        memcpy(digits, p + at + 48, 10);
        size = strtoull(digits, NULL, 10);
        size += size & 1;
        at += 60;
        if (size > bytes - at)
            return false;
        at += size;
    }
    return at > 8;
}

/* A text that ends inside, for the driver's compiler to judge. Whatever starts with a byte that no text starts with the
 * driver would take for a structure of its own, with pointers in it (0x466243b1), and follow them. */
static bool oh_text_ok(const uint8_t *p, uint64_t bytes)
{
    return p[bytes - 1] == 0 && (p[0] == 0 || (p[0] >= '\t' && p[0] < 0x7f));
}

bool oh_image_wrapped_ok(const uint8_t *p, uint64_t bytes)
{
    uint32_t magic = 0;

    memcpy(&magic, p, bytes < sizeof(magic) ? bytes : sizeof(magic));
    return magic == OH_FATBIN_MAGIC && oh_fatbin_ok(p, bytes);
}

bool oh_image_piece_ok(const uint8_t *p, uint64_t bytes)
{
    uint32_t magic = 0;

    if (!bytes)
        return false;
    if (bytes >= sizeof(magic))
        memcpy(&magic, p, sizeof(magic));
    if (magic == OH_ELF_MAGIC)
        return oh_elf_ok(p, bytes);
    if (magic == OH_FATBIN_MAGIC)
        return oh_fatbin_ok(p, bytes);
    if (magic == OH_ARCHIVE_MAGIC && bytes >= 8 && !memcmp(p, "!<arch>\n", 8))
        return oh_archive_ok(p, bytes);
    return oh_text_ok(p, bytes);
}
