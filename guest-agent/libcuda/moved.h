/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of the application that show region memory while they are registered. */
#ifndef OG_MOVED_H
#define OG_MOVED_H

#include <stdbool.h>
#include <stdint.h>

/* Private pages of this process all through, and of no stack that is known. Addresses and lengths are whole pages. */
bool og_moved_possible(uint64_t start, uint64_t bytes, bool read_only);
/* Moves the contents to region memory and maps that in their place; false: of a part at most, og_moved_back is next. */
bool og_moved_there(uint64_t start, uint64_t bytes, uint64_t region_addr, bool read_only);
/* Pages that this process shares with others by one mapping of a file that lives in memory: which file, and where. */
struct og_piece {
    uint64_t device, inode, offset;
};
bool og_moved_shareable(uint64_t start, uint64_t bytes, struct og_piece *piece);
/* Region memory in their place, after their contents were put there if `fill`. Every process that has the pages must
 * do so to go on sharing them. False: everything is as before. */
bool og_moved_shared(uint64_t start, uint64_t bytes, uint64_t region_addr, bool fill);
/* ---- piece.c: `live` is region memory with OC_PIECE_TAIL bytes behind it ---- */
void og_piece_fill(uint8_t *live, const uint8_t *file, uint64_t bytes);
/* Takes over what was written into the file since. */
void og_piece_merge(uint8_t *live, const uint8_t *file, uint64_t bytes);

/* Private pages with the present contents again, where the application has not mapped something else since. False: no
 * memory for them, so the region memory must stay as it is. */
bool og_moved_back(uint64_t start);
/* The same for all: before the region memory may become another process's. */
void og_moved_all_back(void);

#endif
