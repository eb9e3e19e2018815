/* SPDX-License-Identifier: Apache-2.0 */
/* What every test program uses: CHECK ends it with status 1 and says where; 0 is a pass, 77 a skip. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

#endif
