/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what a client sends over TCP: an input is the bytes of the connection, which arrive in pieces. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"

#define PIECE 5000u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct oh_config oh_config = { .region_fd = -1 };
struct oc_channel *oh_channel;
_Atomic int oh_ending;
static uint8_t *block;

void oh_baton_kick(void) {}
void oh_end(enum oc_close why, const char *format, ...)
{
    (void)format;
    atomic_store(&oh_ending, (int)why);
}

void *oh_region(uint64_t off, uint64_t bytes)
{
    return off < OC_CHANNEL_BYTES && bytes <= OC_CHANNEL_BYTES - off ? block + off : NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    block = aligned_alloc(4096, OC_CHANNEL_BYTES);
    if (!block)
        abort();
    memset(block, 0, OC_CHANNEL_BYTES);
    oh_channel = (void *)block;
    return oh_transport_start();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oc_channel before = *oh_channel;
    int s[2], r = 1;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
        abort();
    oh_config.socket_fd = s[0];
    atomic_store(&oh_ending, 0);
    while (r > 0 && size) {
        size_t piece = size < PIECE ? size : PIECE;

        if (send(s[1], data, piece, 0) != (ssize_t)piece)
            abort();
        data += piece, size -= piece;
        r = oh_transport_read();
    }
    close(s[1]);
    while (r > 0)
        r = oh_transport_read();
    close(s[0]);
    if (memcmp(&before, oh_channel, offsetof(struct oc_channel, callback_parked)))
        abort(); /* the host's words are not the client's to write */
    return 0;
}
