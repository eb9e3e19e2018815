/* SPDX-License-Identifier: Apache-2.0 */
/* orion-smi's four ways to show the vGPUs. */
#include <string.h>
#include <time.h>

#include "orion-smi.h"

#define MIB (1ull << 20)
#define RULE "+------------------------------------------+------------------------+--------------------+\n"
#define LINE "+----------------------------------------------------------------------------------------+\n"
#define WIDTH 86 /* between the bars of a whole line */

void print_list(const struct machine *m)
{
    for (unsigned i = 0; i < m->nr_vgpus; i++)
        printf("GPU %u: %s (UUID: %s)\n", m->vgpu[i].index, m->vgpu[i].name, m->vgpu[i].uuid);
}

/* "31C", "N/A". */
static const char *figure(char to[24], long long value, long long divide, const char *unit)
{
    if (value == UNKNOWN)
        strcpy(to, "N/A");
    else
        snprintf(to, 24, "%lld%s", value / divide, unit);
    return to;
}

static void print_head(const struct machine *m)
{
    char text[256];

    snprintf(text, sizeof(text), "ORION-SMI      Driver Version: %s      CUDA Version: %d.%d", m->driver, m->cuda / 1000,
             m->cuda % 1000 / 10);
    printf(LINE "| %-*s |\n" RULE, WIDTH, text);
    printf("| %-40s | %-22s | %-18s |\n", "GPU  Name", "Bus-Id", "GPU-Util");
    printf("| %-40s | %-22s | %-18s |\n", "     Temp  Perf  Pwr:Usage/Cap", "Memory-Usage", "Uncorr. ECC");
    printf("|==========================================+========================+====================|\n");
}

void print_table(const struct machine *m)
{
    char a[24], b[24], c[24], d[24], line[96], memory[64];
    unsigned nr_processes = 0;

    print_head(m);
    for (unsigned i = 0; i < m->nr_vgpus; i++) {
        const struct vgpu *g = &m->vgpu[i];

        snprintf(line, sizeof(line), "%3u  %.35s", g->index, g->name);
        printf("| %-40s | %-22s | %18s |\n", line, g->bus_id, figure(a, g->load, 1, "%"));
        snprintf(line, sizeof(line), "     %-5s %s%-4s %s / %s", figure(a, g->temperature, 1, "C"),
                 g->pstate == UNKNOWN ? "" : "P", figure(b, g->pstate, 1, ""), figure(c, g->power_mw, 1000, "W"),
                 figure(d, g->limit_mw, 1000, "W"));
        snprintf(memory, sizeof(memory), "%lluMiB / %lluMiB", g->used / MIB, g->total / MIB);
        printf("| %-40s | %22s | %18s |\n" RULE, line, memory, figure(a, g->ecc, 1, ""));
    }
    printf("\n" LINE "| %-*s |\n", WIDTH, "Processes:");
    printf("| %4s %10s  %-52s %16s |\n", "GPU", "PID", "Process name", "GPU Memory Usage");
    printf("|========================================================================================|\n");
    for (unsigned i = 0; i < m->nr_vgpus; i++) {
        for (unsigned n = 0; n < m->vgpu[i].nr_processes; n++) {
            const struct process *p = &m->vgpu[i].process[n];

            printf("| %4u %10u  %-52.52s %13lluMiB |\n", m->vgpu[i].index, p->pid, p->name, p->used / MIB);
            nr_processes++;
        }
    }
    if (!nr_processes)
        printf("| %-*s |\n", WIDTH, " No running processes found");
    printf(LINE);
}

static void detail(const char *name, const char *value)
{
    printf("    %-38s: %s\n", name, value);
}

void print_details(const struct machine *m)
{
    char text[64];
    time_t now = time(NULL);

    printf("%-42s: %s", "Timestamp", ctime(&now));
    printf("%-42s: %s\n%-42s: %d.%d\n%-42s: %u\n", "Driver Version", m->driver, "CUDA Version", m->cuda / 1000,
           m->cuda % 1000 / 10, "Attached GPUs", m->nr_vgpus);
    for (unsigned i = 0; i < m->nr_vgpus; i++) {
        const struct vgpu *g = &m->vgpu[i];

        printf("GPU %u (%s)\n", g->index, g->bus_id);
        detail("Product Name", g->name);
        detail("GPU UUID", g->uuid);
        detail("Serial Number", g->serial);
        snprintf(text, sizeof(text), "%d.%d", g->major, g->minor);
        detail("CUDA Capability", text);
        snprintf(text, sizeof(text), "%llu MiB", g->total / MIB);
        detail("Memory Total", text);
        snprintf(text, sizeof(text), "%llu MiB", g->used / MIB);
        detail("Memory Used", text);
        detail("GPU Utilization", figure(text, g->load, 1, " %"));
        detail("Memory Utilization", figure(text, g->memory_load, 1, " %"));
        detail("Temperature", figure(text, g->temperature, 1, " C"));
        detail("Power Draw", figure(text, g->power_mw, 1000, " W"));
        detail("Power Limit", figure(text, g->limit_mw, 1000, " W"));
        detail("Performance State", figure(text, g->pstate, 1, ""));
        detail("SM Clock", figure(text, g->sm_mhz, 1, " MHz"));
        detail("Memory Clock", figure(text, g->memory_mhz, 1, " MHz"));
        detail("Uncorrected ECC Errors", figure(text, g->ecc, 1, ""));
        for (unsigned n = 0; n < g->nr_processes; n++)
            printf("    %-38s: %u %s, %llu MiB\n", "Process", g->process[n].pid, g->process[n].name, g->process[n].used / MIB);
    }
}

/* ---- JSON ---- */

static void json_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f)
            printf("\\u%04x", (unsigned char)*text); /* names of programs need not be UTF-8 */
        else
            putchar(*text);
    }
    putchar('"');
}

static void json_member(const char *name, const char *text)
{
    printf("\"%s\": ", name);
    json_text(text);
    printf(", ");
}

static void json_figure(const char *name, long long value)
{
    if (value == UNKNOWN)
        printf("\"%s\": null, ", name);
    else
        printf("\"%s\": %lld, ", name, value);
}

static void json_processes(const struct vgpu *g)
{
    printf("\"processes\": [");
    for (unsigned n = 0; n < g->nr_processes; n++) {
        printf("%s{\"pid\": %u, ", n ? ", " : "", g->process[n].pid);
        json_member("name", g->process[n].name);
        printf("\"used_bytes\": %llu}", g->process[n].used);
    }
    printf("]");
}

void print_json(const struct machine *m)
{
    printf("{");
    json_member("driver_version", m->driver);
    printf("\"cuda_version\": \"%d.%d\", \"vgpus\": [", m->cuda / 1000, m->cuda % 1000 / 10);
    for (unsigned i = 0; i < m->nr_vgpus; i++) {
        const struct vgpu *g = &m->vgpu[i];

        printf("%s{\"index\": %u, ", i ? ", " : "", g->index);
        json_member("name", g->name);
        json_member("uuid", g->uuid);
        json_member("serial", g->serial);
        json_member("bus_id", g->bus_id);
        printf("\"capability\": \"%d.%d\", \"total_bytes\": %llu, \"used_bytes\": %llu, ", g->major, g->minor, g->total, g->used);
        json_figure("load_percent", g->load);
        json_figure("memory_load_percent", g->memory_load);
        json_figure("temperature_c", g->temperature);
        json_figure("power_mw", g->power_mw);
        json_figure("power_limit_mw", g->limit_mw);
        json_figure("performance_state", g->pstate);
        json_figure("sm_mhz", g->sm_mhz);
        json_figure("memory_mhz", g->memory_mhz);
        json_figure("uncorrected_ecc_errors", g->ecc);
        json_processes(g);
        printf("}");
    }
    printf("]}\n");
}
