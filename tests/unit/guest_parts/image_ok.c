/* SPDX-License-Identifier: Apache-2.0 */
/* `image_ok FILE...`: whether the executor would show each image to the driver; 0 or 1 a line. */
#include <stdio.h>
#include <stdlib.h>

#include "modules.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        uint8_t *p;
        size_t n;
        long size;

        if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0)
            return 2;
        rewind(f);
        p = malloc((size_t)size ? (size_t)size : 1); /* exact, so that the sanitizer sees a step beyond */
        n = fread(p, 1, (size_t)size, f);
        fclose(f);
        printf("%d\n", oh_image_piece_ok(p, n));
        free(p);
    }
    return 0;
}
