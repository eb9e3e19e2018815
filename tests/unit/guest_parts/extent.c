/* SPDX-License-Identifier: Apache-2.0 */
/* `extent FILE [bounded]`: what the client takes the image in FILE to be: kind, pieces and their bytes.
 * The file ends at an unreadable page, so that a read beyond it is a crash. `wrapper N` makes one of N pieces. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modules.h"
#include "gen/send.h"

/* sending is not looked at here */
CUresult og_send_orion_image_begin(uint64_t image, uint32_t kind, uint32_t pieces)
{
    (void)image, (void)kind, (void)pieces;
    return CUDA_ERROR_UNKNOWN;
}
CUresult og_send_orion_image_piece(uint64_t image, uint64_t bytes)
{
    (void)image, (void)bytes;
    return CUDA_ERROR_UNKNOWN;
}
CUresult og_send_orion_image_data(uint64_t image, uint64_t offset, uint32_t bytes, const uint8_t *data)
{
    (void)image, (void)offset, (void)bytes, (void)data;
    return CUDA_ERROR_UNKNOWN;
}
CUresult og_send_orion_image_bulk(uint64_t image, uint64_t offset, uint64_t region, uint64_t bytes)
{
    (void)image, (void)offset, (void)region, (void)bytes;
    return CUDA_ERROR_UNKNOWN;
}
CUresult og_staging_get(uint64_t *bytes, uint64_t *region_off, void **p)
{
    (void)bytes, (void)region_off, (void)p;
    return CUDA_ERROR_UNKNOWN;
}
void og_staging_fence(uint64_t region_off, uint64_t fence)
{
    (void)region_off, (void)fence;
}
bool og_shared_memory(void)
{
    return false;
}
bool og_peer_knows(uint32_t op)
{
    (void)op;
    return false;
}
CUresult og_send_orion_image_drop(uint64_t image)
{
    (void)image;
    return CUDA_ERROR_UNKNOWN;
}

static void *load_at_edge(const char *path, size_t *bytes)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    size_t room;
    char *p;

    if (fd < 0 || fstat(fd, &st))
        exit(2);
    *bytes = (size_t)st.st_size;
    room = (*bytes + 4095) & ~4095ul;
    p = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + room, 4096, PROT_NONE) ||
        read(fd, p + room - *bytes, *bytes) != (ssize_t)*bytes)
        exit(2);
    close(fd);
    return p + room - *bytes;
}

static void print(CUresult r, struct og_image *image)
{
    printf("%d", (int)r);
    if (r == CUDA_SUCCESS) {
        printf(" %d", image->kind);
        for (unsigned i = 0; i < image->nr; i++)
            printf(" %llu", (unsigned long long)image->pieces[i].bytes);
        og_image_free(image);
    }
    puts("");
}

int main(int argc, char **argv)
{
    struct og_image image;
    size_t bytes;
    void *data = load_at_edge(argv[1], &bytes);

    if (argc > 2 && !strcmp(argv[2], "wrapper")) {
        const void *list[3] = { data, data, NULL };
        struct { uint32_t magic, version; const void *data, *list; } w = { 0x466243b1, (uint32_t)atoi(argv[3]), data, list };

        print(og_image_scan(&w, UINT64_MAX, &image), &image);
        return 0;
    }
    print(og_image_scan(data, argc > 2 ? bytes : UINT64_MAX, &image), &image);
    return 0;
}
