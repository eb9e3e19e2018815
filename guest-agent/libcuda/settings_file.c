/* SPDX-License-Identifier: Apache-2.0 */
/* client.conf: sections, `key = value`, comments from ';' or '#' on, values bare or quoted. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

struct place {
    const char *file;
    unsigned line;
    char section[64];
};

static char *trim(char *text)
{
    size_t n;

    while (isspace((unsigned char)*text))
        text++;
    for (n = strlen(text); n && isspace((unsigned char)text[n - 1]); n--)
        text[n - 1] = '\0';
    return text;
}

static char *unquote(char *text)
{
    size_t n = strlen(text);

    if (n >= 2 && (*text == '"' || *text == '\'') && text[n - 1] == *text) {
        text[n - 1] = '\0';
        return text + 1;
    }
    return text;
}

static bool bad(const struct place *at, const char *key, const char *value, const char *accepted)
{
    og_say("%s:%u: [%s] %s = '%s' is not valid; accepted: %s", at->file, at->line, at->section, key, value, accepted);
    return false;
}

static bool log_key(struct og_settings *s, const struct place *at, const char *key, const char *value, bool *known)
{
    static const char levels[] = "DEBUG, INFO, WARNING, ERROR or NONE";
    static const char bools[] = "true or false (also yes/no, on/off, 1/0)";
    const struct {
        const char *key;
        bool *flag;
        enum og_level *level;
    } keys[] = {
        { "log_with_time", &s->log_with_time, NULL }, { "log_to_screen", &s->log_to_screen, NULL },
        { "log_to_file", &s->log_to_file, NULL },     { "log_level", NULL, &s->level },
        { "file_log_level", NULL, &s->file_level },
    };

    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(key, keys[i].key))
            continue;
        *known = true;
        if (keys[i].flag)
            return og_parse_bool(value, keys[i].flag) || bad(at, key, value, bools);
        return og_parse_level(value, keys[i].level) || bad(at, key, value, levels);
    }
    return true;
}

static bool set(struct og_settings *s, const struct place *at, const char *key, const char *value)
{
    bool known = false, ok = true;

    if (!strcmp(at->section, "controller") && !strcmp(key, "controller_addr"))
        return og_parse_addr(value, 9123, s->controller) || bad(at, key, value, "ip:port, e.g. 33.31.0.1:9123");
    if (!strcmp(at->section, "controller") && !strcmp(key, "token"))
        return og_parse_token(value, s->token) || bad(at, key, "...", "at most 128 characters without spaces");
    if (!strcmp(at->section, "client-log"))
        ok = log_key(s, at, key, value, &known);
    if (!known)
        og_log_at(OG_WARNING, "%s:%u: unknown key [%s] %s is ignored", at->file, at->line, at->section, key);
    return ok;
}

/* The value's end: a comment starts with ';' or '#' outside quotes. */
static void cut_comment(char *line)
{
    char quote = '\0';

    for (; *line; line++) {
        if (quote ? *line == quote : *line == '"' || *line == '\'')
            quote = quote ? '\0' : *line;
        else if (!quote && (*line == ';' || *line == '#')) {
            *line = '\0';
            return;
        }
    }
}

static bool one_line(struct og_settings *s, struct place *at, char *line)
{
    char *text, *equals, *end;

    cut_comment(line);
    text = trim(line);
    if (!*text)
        return true;
    if (*text == '[') {
        end = strchr(text, ']');
        if (!end || end[1] || end - text - 1 >= (int)sizeof(at->section))
            return bad(at, "section", text, "[controller] or [client-log]");
        *end = '\0';
        snprintf(at->section, sizeof(at->section), "%s", trim(text + 1));
        return true;
    }
    equals = strchr(text, '=');
    if (!equals)
        return bad(at, "line", text, "key = value");
    *equals = '\0';
    return set(s, at, trim(text), unquote(trim(equals + 1)));
}

bool og_settings_file(struct og_settings *s, const char *path)
{
    struct place at = { path, 0, "" };
    char line[1024];
    bool ok = true;
    FILE *f = fopen(path, "re");

    if (!f) {
        if (errno != ENOENT && errno != ENOTDIR)
            og_log_at(OG_WARNING, "%s cannot be read: %s; its settings are ignored", path, strerror(errno));
        return true;
    }
    while (ok && fgets(line, sizeof(line), f)) {
        at.line++;
        ok = one_line(s, &at, line);
    }
    fclose(f);
    return ok;
}
