/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked for: variables of the environment over ~/.orion/client.conf over /etc/orion/client.conf. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core.h"

#define MIB (1ull << 20)
#define MAX_GMEM_MIB (1u << 24)

/* Before anybody has said anything. */
#define INITIAL { .vgpus = 1, .log_with_time = true, .log_to_screen = true, .log_to_file = true, .level = OG_INFO, \
                  .file_level = OG_INFO }

struct og_settings og_settings = INITIAL;

bool og_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *value)
{
    uint64_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || n > high / 10)
            return false;
        n = n * 10 + (uint64_t)(*text - '0');
    }
    *value = n;
    return n >= low && n <= high;
}

bool og_parse_addr(const char *text, unsigned default_port, char to[OG_ADDR_BYTES])
{
    const char *colon = strrchr(text, ':'), *bracket = strchr(text, ']');
    size_t host = strlen(text);
    uint64_t port = default_port;
    bool naked_v6 = *text != '[' && colon && strchr(text, ':') != colon;

    if (colon && !naked_v6 && !(bracket && colon < bracket)) {
        if (!og_parse_number(colon + 1, 1, 65535, &port))
            return false;
        host = (size_t)(colon - text);
    }
    if (!host || host > OG_ADDR_BYTES - 10 || strcspn(text, " \t/,\"'") < host)
        return false;
    if (*text == '[' && (host < 4 || text[host - 1] != ']'))
        return false;
    return snprintf(to, OG_ADDR_BYTES, naked_v6 ? "[%.*s]:%u" : "%.*s:%u", (int)host, text, (unsigned)port) <
           OG_ADDR_BYTES;
}

bool og_parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = { "1", "true", "yes", "on" }, *const no[] = { "0", "false", "no", "off" };

    for (unsigned i = 0; i < 4; i++) {
        if (!strcasecmp(text, yes[i]) || !strcasecmp(text, no[i])) {
            *value = !strcasecmp(text, yes[i]);
            return true;
        }
    }
    return false;
}

bool og_parse_level(const char *text, enum og_level *level)
{
    static const char *const names[] = { "DEBUG", "INFO", "WARNING", "ERROR", "NONE" };

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!strcasecmp(text, names[i])) {
            *level = (enum og_level)i;
            return true;
        }
    }
    return false;
}

/* The variable's value, NULL when it is unset or empty. */
static const char *variable(const char *name)
{
    const char *value = secure_getenv(name);

    return value && *value ? value : NULL;
}

static bool bad(const char *name, const char *value, const char *accepted)
{
    og_say("%s=%s is not valid; accepted: %s", name, value, accepted);
    return false;
}

static bool number_variable(const char *name, uint64_t low, uint64_t high, const char *accepted, uint64_t *to)
{
    const char *value = variable(name);

    return !value || og_parse_number(value, low, high, to) || bad(name, value, accepted);
}

static bool addr_variable(const char *name, unsigned port, char to[OG_ADDR_BYTES])
{
    const char *value = variable(name);

    return !value || og_parse_addr(value, port, to) || bad(name, value, "ip:port, e.g. 192.168.122.1:9123");
}

static bool bool_variable(const char *name, bool *to)
{
    const char *value = variable(name);

    return !value || og_parse_bool(value, to) || bad(name, value, "0 or 1 (also true/false, yes/no, on/off)");
}

static bool bar_variable(struct og_settings *s)
{
    const char *value = variable("ORION_BAR");

    if (value && strcmp(value, "wc") && strcmp(value, "uc"))
        return bad("ORION_BAR", value, "wc (write-combining mapping) or uc (the default)");
    s->bar_wc = value && !strcmp(value, "wc");
    return true;
}

static bool region_variable(struct og_settings *s)
{
    const char *value = variable("ORION_REGION");

    if (value && (*value != '/' || strlen(value) >= sizeof(s->region)))
        return bad("ORION_REGION", value, "the absolute path of a region file, e.g. /dev/shm/orion-<uuid>");
    snprintf(s->region, sizeof(s->region), "%s", value ? value : "");
    return true;
}

static bool log_variables(struct og_settings *s)
{
    const char *level = variable("ORION_LOG_LEVEL");

    if (level && !og_parse_level(level, &s->level))
        return bad("ORION_LOG_LEVEL", level, "DEBUG, INFO, WARNING, ERROR or NONE");
    if (level)
        s->file_level = s->level;
    return bool_variable("ORION_LOG_SCREEN", &s->log_to_screen);
}

static bool from_environment(struct og_settings *s)
{
    uint64_t vgpus = (uint64_t)s->vgpus, mib = 0, ratio = 0;

    if (!log_variables(s))
        return false;
    if (!number_variable("ORION_VGPU", 1, OC_MAX_DEVICES, "a whole number of vGPUs from 1 to 32", &vgpus) ||
        !number_variable("ORION_GMEM", 1, MAX_GMEM_MIB, "MiB of memory of each vGPU, a whole number, e.g. 12000", &mib) ||
        !number_variable("ORION_RATIO", 1, 100, "percent of a GPU's time for each vGPU, 1 to 100", &ratio))
        return false;
    s->ratio = (int)ratio;
    s->vgpus = (int)vgpus;
    s->gmem_bytes = mib * MIB;
    s->vgpus_said = variable("ORION_VGPU") != NULL;
    s->gmem_said = mib != 0;
    return addr_variable("ORION_CONTROLLER", 9123, s->controller) &&
           addr_variable("ORION_SERVER", 9960, s->server) && bool_variable("ORION_SYNC", &s->sync) &&
           bar_variable(s) && region_variable(s);
}

/* Files of the system, then of the user. */
static bool from_files(struct og_settings *s)
{
    const char *etc = variable("ORION_ETC"), *home = variable("HOME");
    char path[512];

    if (snprintf(path, sizeof(path), "%s/client.conf", etc ? etc : "/etc/orion") < (int)sizeof(path) &&
        !og_settings_file(s, path))
        return false;
    if (!home || snprintf(path, sizeof(path), "%s/.orion/client.conf", home) >= (int)sizeof(path))
        return true;
    return og_settings_file(s, path);
}

void og_settings_of_domain(const struct oc_header *h)
{
    if (!og_settings.vgpus_said && h->default_vgpus && h->default_vgpus <= OC_MAX_DEVICES)
        og_settings.vgpus = (int)h->default_vgpus;
    if (!og_settings.gmem_said && h->default_memory_mib && h->default_memory_mib <= MAX_GMEM_MIB)
        og_settings.gmem_bytes = h->default_memory_mib * MIB;
}

CUresult og_settings_load(void)
{
    struct og_settings s = INITIAL;

    if (!from_files(&s) || !from_environment(&s))
        return CUDA_ERROR_INVALID_VALUE;
    og_settings = s;
    return CUDA_SUCCESS;
}
