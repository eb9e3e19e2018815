/* SPDX-License-Identifier: Apache-2.0 */
/* What launches and occupancy questions share. */
#ifndef OH_LAUNCH_H
#define OH_LAUNCH_H

#include "modules.h"

#define OH_MAX_ATTRIBUTES 64u
#define OH_BLOCK_X(packed) ((packed) & 0x7ffu)
#define OH_BLOCK_Y(packed) ((packed) >> 11 & 0x7ffu)
#define OH_BLOCK_Z(packed) ((packed) >> 22)

/* Copies and checks launch attributes, with the driver's handles in them. */
OH_MUST_CHECK CUresult oh_launch_attributes(const void *bytes, uint32_t nr_bytes, CUlaunchAttribute *to, uint32_t *nr);

#endif
