/* SPDX-License-Identifier: Apache-2.0 */
/* USAGE: asks the server about the host's cards and this machine's processes. docs/design.md, section 5. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "nvml.h"

#define ANSWER_SECONDS 10 /* the host's first look at its cards takes a while */
#define FRESH_NS 200000000u /* the card's own sensors are not quicker */
#define REPEAT_NS 1000000000u

struct og_view og_view;
static uint64_t asked_at_ns;
static nvmlReturn_t last_result;

/* ---- the answer ---- */

/* "1=4 2=16 ...": figures by number. */
static void take_figures(struct og_card *card, const char *text)
{
    char *end;

    while (*text) {
        unsigned long number = strtoul(text, &end, 10);
        unsigned long long value;

        if (end == text || *end != '=')
            return;
        text = end + 1;
        value = strtoull(text, &end, 10);
        if (end == text)
            return;
        if (number < OG_NR_FIGURES) {
            card->figure[number] = value;
            card->known[number] = true;
        }
        text = end + strspn(end, " ");
    }
}

/* Live figures come anew with each answer; one that is missing has become unknown. */
static void forget_live(struct og_card *card, const char *live)
{
    char *end;

    while (*live) {
        unsigned long number = strtoul(live, &end, 10);

        if (end == live)
            return;
        if (number < OG_NR_FIGURES)
            card->known[number] = false;
        live = end + strspn(end, " ");
    }
}

static void take_cards(const char *block, char *line)
{
    char key[32];

    for (unsigned i = 0; i < OC_SNAP_MAX_GPUS; i++) {
        struct og_card *card = &og_view.card[i];

        if (og_block_get(block, "live", line, OG_BLOCK_MAX))
            forget_live(card, line);
        snprintf(key, sizeof(key), "card.%u", i);
        if (og_block_get(block, key, line, OG_BLOCK_MAX))
            take_figures(card, line);
        for (unsigned n = 0; n < OG_NR_TEXTS; n++) {
            snprintf(key, sizeof(key), "text.%u.%u", i, n);
            og_block_get(block, key, card->text[n], OG_TEXT_BYTES);
        }
    }
}

static void take_pairs(const char *block, char *line)
{
    char key[32];

    for (unsigned a = 0; a < OC_SNAP_MAX_GPUS; a++) {
        for (unsigned b = 0; b < OC_SNAP_MAX_GPUS; b++) {
            struct og_pair *p = &og_view.pair[a][b];

            snprintf(key, sizeof(key), "pair.%u.%u", a, b);
            if (og_block_get(block, key, line, OG_BLOCK_MAX))
                p->known = sscanf(line, "%u %u %u %u %u %u", &p->level, &p->p2p[0], &p->p2p[1], &p->p2p[2], &p->p2p[3],
                                  &p->p2p[4]) == 6;
        }
    }
}

static void take_processes(const char *block, char *line)
{
    char key[32];

    og_view.nr_processes = 0;
    for (unsigned i = 0; i < OG_MAX_PROCESSES; i++) {
        struct og_process p = { 0 };
        unsigned long long used, limit;

        snprintf(key, sizeof(key), "process.%u", i);
        if (!og_block_get(block, key, line, OG_BLOCK_MAX))
            return;
        if (sscanf(line, "%u %u %u %llu %llu %u %u", &p.pid, &p.vgpu, &p.card, &used, &limit, &p.busy, &p.memory_busy) != 7)
            continue;
        p.used = used;
        p.limit = limit;
        og_view.process[og_view.nr_processes++] = p;
        /* of this process CUDA's own figures are known: its card and limit */
        if (p.pid == (unsigned)getpid() && p.vgpu < OC_MAX_DEVICES)
            og_device_granted((int)p.vgpu, (int)p.card, p.limit);
    }
}

static bool take(const char *block, bool all, struct og_why *why)
{
    char *line = malloc(OG_BLOCK_MAX);

    if (!line) {
        og_because(why, "out of memory");
        return false;
    }
    if (all) {
        memset(&og_view, 0, sizeof(og_view));
        og_block_get(block, "driver", og_view.driver, OG_TEXT_BYTES);
        og_block_get(block, "nvml", og_view.nvml, OG_TEXT_BYTES);
        take_pairs(block, line);
    }
    take_cards(block, line);
    take_processes(block, line);
    free(line);
    return true;
}

/* ---- the question ---- */

static void write_question(struct og_text *t, bool all)
{
    bool shm = og_shared_region.base != NULL;
    char uuid[37] = "-", machine[33] = "-";

    if (shm)
        og_uuid_text(og_shared_region.header.domain_uuid, uuid);
    else
        og_machine_text(machine);
    t->bytes = 0;
    t->overflow = false;
    og_text_add(t, "ORION/1 USAGE\ntransport: %s\ndomain: %s\ngeneration: %llu\nmachine: %s\nwant: %s\n\n", shm ? "shm" : "tcp",
                uuid, shm ? (unsigned long long)og_shared_region.header.generation : 0, machine, all ? "all" : "live");
}

/* Question, challenge, proof, answer: as HELLO does. */
static bool talk(int fd, bool all, char *block, struct og_why *why)
{
    struct og_text *question = malloc(sizeof(*question));
    bool ok = question != NULL;

    if (ok) {
        write_question(question, all);
        ok = og_send_all(fd, question->text, question->bytes);
    }
    if (!ok)
        og_because(why, "it does not take our question");
    ok = ok && og_read_block(fd, block, OG_BLOCK_MAX, why);
    if (ok && og_block_is(block, "CHALLENGE")) {
        ok = og_answer_challenge(fd, block, question);
        if (!ok)
            og_because(why, "its CHALLENGE is malformed or the connection broke");
        ok = ok && og_read_block(fd, block, OG_BLOCK_MAX, why);
    }
    free(question);
    return ok;
}

static bool understood(const char *block, struct og_why *why)
{
    char reason[200] = "no reason given", hint[150] = "";

    if (og_block_is(block, "USAGE"))
        return true;
    if (og_block_is(block, "REFUSED")) {
        og_block_get(block, "reason", reason, sizeof(reason));
        og_block_get(block, "hint", hint, sizeof(hint));
        og_because(why, "it refuses: %s%s%s", reason, *hint ? ". " : "", hint);
    } else {
        og_because(why, "it does not speak our protocol: %.60s", block);
    }
    return false;
}

/* `dialled`: a server answered, so that its reason is in *why. */
static bool ask(bool all, bool *dialled, struct og_why *why)
{
    struct timeval patience = { ANSWER_SECONDS, 0 };
    char *block = malloc(OG_BLOCK_MAX);
    struct og_addrs addrs;
    bool ok = false;
    int fd;

    *dialled = false;
    if (og_shared_region.base && !og_region_reread(why)) { /* a restored domain has a new generation and token */
        free(block);
        return false;
    }
    og_server_addrs(NULL, &addrs);
    fd = og_dial_server(&addrs, why);
    *dialled = fd >= 0;
    if (fd >= 0 && block) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        ok = talk(fd, all, block, why) && understood(block, why) && take(block, all, why);
    }
    if (fd >= 0)
        close(fd);
    free(block);
    return ok;
}

nvmlReturn_t og_view_load(void)
{
    struct og_why why = { "" };
    bool dialled;

    last_result = NVML_SUCCESS;
    if (ask(true, &dialled, &why)) {
        asked_at_ns = og_now_ns();
        return NVML_SUCCESS;
    }
    if (dialled)
        og_say("no vGPU for NVML: the Orion server does not say what there is: %s", why.text);
    else
        (void)og_no_server(&why);
    return NVML_ERROR_DRIVER_NOT_LOADED;
}

nvmlReturn_t og_view_refresh(void)
{
    struct og_why why = { "" };
    bool dialled;

    if (og_now_ns() - asked_at_ns < (last_result == NVML_SUCCESS ? FRESH_NS : REPEAT_NS))
        return last_result;
    if (ask(false, &dialled, &why)) {
        last_result = NVML_SUCCESS;
    } else {
        og_log_at(OG_WARNING, "NVML: the Orion server does not answer: %s", why.text);
        last_result = NVML_ERROR_UNKNOWN;
    }
    asked_at_ns = og_now_ns();
    return last_result;
}
