/* SPDX-License-Identifier: Apache-2.0 */
/* Words, numbers and punctuation of PTX text. */
#include <ctype.h>
#include <stdlib.h>

#include "ptx_internal.h"

static void skip(struct ptx_lexer *l)
{
    while (l->p < l->end) {
        if (*l->p == '\n')
            l->line++;
        if (isspace((unsigned char)*l->p)) {
            l->p++;
        } else if (l->p + 1 < l->end && l->p[0] == '/' && l->p[1] == '/') {
            while (l->p < l->end && *l->p != '\n')
                l->p++;
        } else if (l->p + 1 < l->end && l->p[0] == '/' && l->p[1] == '*') {
            for (l->p += 2; l->p + 1 < l->end && !(l->p[0] == '*' && l->p[1] == '/'); l->p++)
                l->line += *l->p == '\n';
            l->p = l->p + 2 < l->end ? l->p + 2 : l->end;
        } else {
            return;
        }
    }
}

static bool word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

static void number(struct ptx_lexer *l)
{
    char *after;

    l->kind = K_NUMBER;
    if (l->p[0] == '0' && (l->p[1] == 'f' || l->p[1] == 'F' || l->p[1] == 'd' || l->p[1] == 'D')) {
        l->kind = K_FLOAT;
        l->single = l->p[1] == 'f' || l->p[1] == 'F';
        l->value = strtoull(l->p + 2, &after, 16);
    } else if (l->p[0] == '0' && (l->p[1] == 'b' || l->p[1] == 'B')) {
        l->value = strtoull(l->p + 2, &after, 2);
    } else {
        l->value = strtoull(l->p, &after, 0);
        if (*after == '.' || ((*after == 'e' || *after == 'E') && l->p[1] != 'x')) {
            double v = strtod(l->p, &after);
            l->kind = K_FLOAT;
            l->single = false;
            memcpy(&l->value, &v, 8);
        }
    }
    while (*after == 'U' || *after == 'u' || *after == 'L')
        after++;
    l->p = after;
}

void ptx_next(struct ptx_lexer *l)
{
    skip(l);
    l->text = l->p;
    l->kind = K_END;
    if (l->p >= l->end || !*l->p) {
        l->len = 0;
        return;
    }
    if (isdigit((unsigned char)*l->p)) {
        number(l);
    } else if (word(*l->p)) {
        l->kind = K_NAME;
        while (l->p < l->end && (word(*l->p) || (l->p[0] == ':' && l->p[1] == ':' && ++l->p)))
            l->p++;
    } else if (*l->p == '"') {
        l->kind = K_STRING;
        for (l->p++; l->p < l->end && *l->p != '"'; l->p++)
            l->line += *l->p == '\n';
        l->p += l->p < l->end;
    } else {
        l->kind = K_PUNCT;
        l->p++;
    }
    l->len = (size_t)(l->p - l->text);
}

bool ptx_is(const struct ptx_lexer *l, const char *text)
{
    return l->kind != K_STRING && l->len == strlen(text) && !memcmp(l->text, text, l->len);
}

void ptx_split_word(struct ptx_lexer *l)
{
    const char *dot = l->kind == K_NAME && l->len && l->text[0] == '.' ? memchr(l->text + 1, '.', l->len - 1) : NULL;

    if (!dot)
        return;
    l->len = (size_t)(dot - l->text);
    l->p = dot;
}
