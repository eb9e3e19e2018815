/* SPDX-License-Identifier: Apache-2.0 */
/* What the modules of the guest's NVML library share: its life, the host's view of cards and processes, handles. */
#ifndef OG_NVML_H
#define OG_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core.h" /* of libcuda: settings, region, server */
#include "gen/figures.h"
#include "gen/nvml_abi.h"

#define OG_TEXT_BYTES 80
#define OG_MAX_PROCESSES 256 /* oriond tells no more */
#define OG_NO_INSTANCE 0xffffffffu

/* ---- init.c ---- */
struct og_error {
    int code;
    const char *text;
};
extern const struct og_error og_errors[]; /* answers.c; ends with text NULL */
OG_MUST_CHECK nvmlReturn_t og_ready(void); /* NVML_ERROR_UNINITIALIZED outside init and shutdown */
nvmlReturn_t og_bad(void);                 /* an argument is invalid, unless the library is not initialised */
nvmlReturn_t og_absent(const char *name);  /* logs once per name */
/* As snprintf("%s"), but NVML_ERROR_INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t og_put_text(char *to, unsigned length, const char *text);
/* The lock of everything below, and of init and shutdown. Held while the server is asked. */
void og_view_lock(void);
void og_view_unlock(void);

/* ---- view.c: what the server told last; under the lock ---- */
struct og_card {
    uint64_t figure[OG_NR_FIGURES];
    bool known[OG_NR_FIGURES];
    char text[OG_NR_TEXTS][OG_TEXT_BYTES];
};
struct og_process {
    unsigned pid, vgpu, card; /* pid in the guest; vgpu as this machine numbers them; physical card */
    uint64_t used, limit;
    unsigned busy, memory_busy; /* percent of the card in the last second */
};
struct og_pair {
    bool known;
    unsigned level, p2p[5]; /* nvmlGpuTopologyLevel_t; nvmlGpuP2PStatus_t by nvmlGpuP2PCapsIndex_t */
};
struct og_view {
    char driver[OG_TEXT_BYTES], nvml[OG_TEXT_BYTES];
    struct og_card card[OC_SNAP_MAX_GPUS];
    struct og_pair pair[OC_SNAP_MAX_GPUS][OC_SNAP_MAX_GPUS];
    unsigned nr_processes;
    struct og_process process[OG_MAX_PROCESSES];
};
extern struct og_view og_view;
/* Asks the server for everything; reports its failure. */
OG_MUST_CHECK nvmlReturn_t og_view_load(void);
/* Asks for what changes, unless it was asked a moment ago. */
OG_MUST_CHECK nvmlReturn_t og_view_refresh(void);

/* ---- device.c ---- */
OG_MUST_CHECK nvmlReturn_t og_device_of(nvmlDevice_t device, int *index); /* index may be NULL */
nvmlDevice_t og_handle_of(int index);
unsigned og_card_of(int index); /* physical card of a vGPU, under the lock */

/* ---- figures.c: what the generated answers call ---- */
OG_MUST_CHECK nvmlReturn_t og_figures_of(nvmlDevice_t device, unsigned first, unsigned count, bool live, uint64_t *values);
OG_MUST_CHECK nvmlReturn_t og_text_of(nvmlDevice_t device, unsigned number, char *to, unsigned length);

#endif
