/* SPDX-License-Identifier: Apache-2.0 */
/* What orion-smi's two files share: the vGPUs as NVML tells them, gathered once. */
#ifndef ORION_SMI_H
#define ORION_SMI_H

#include <stdbool.h>
#include <stdio.h>

#include "gen/nvml_abi.h"

#define MAX_PROCESSES 256
#define MAX_VGPUS 32u
#define UNKNOWN (-1ll) /* of a figure that the host does not tell */

struct process {
    unsigned pid;
    unsigned long long used;
    char name[256];
};

struct vgpu {
    unsigned index;
    char name[96], uuid[96], serial[32], bus_id[32];
    int major, minor;
    unsigned long long total, used;
    long long load, memory_load, temperature, power_mw, limit_mw, pstate, sm_mhz, memory_mhz, ecc;
    unsigned nr_processes;
    struct process process[MAX_PROCESSES];
};

struct machine {
    char driver[80];
    int cuda;
    unsigned nr_vgpus;
    struct vgpu *vgpu;
};

void print_list(const struct machine *m);
void print_table(const struct machine *m);
void print_details(const struct machine *m);
void print_json(const struct machine *m);

#endif
