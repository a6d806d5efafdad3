#include "ruler_score.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { DRAWS = 2000 };

/* The next character, or the byte itself where the text is not UTF-8. *size = its bytes. */
static utf8proc_int32_t next_char(const char *text, size_t *size)
{
    utf8proc_int32_t c;
    const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &c);
    *size = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : -1;
}

static bool is_space(utf8proc_int32_t c)
{
    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || c == 0x85) return true;
    const utf8proc_category_t category = utf8proc_category(c);
    return c > 0 && (category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP);
}

void ruler_strip(char *text)
{
    char *first = text, *end = text;
    bool inside = false;
    for (size_t size, at = 0; text[at]; at += size) {
        if (is_space(next_char(text + at, &size))) continue;
        if (!inside) first = text + at;
        inside = true;
        end = text + at + size;
    }
    if (!inside) first = end = text;
    memmove(text, first, (size_t)(end - first));
    text[end - first] = '\0';
}

static bool is_cased(utf8proc_int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

/* Marks, modifiers and the punctuation that stands inside words: looked past by the rule of the final sigma. */
static bool is_looked_past(utf8proc_int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' || c == 0xb7 ||
           c == 0x2019;
}

/* A sigma after a cased letter (that says before) with none to follow. */
static bool is_final(bool before, const char *rest)
{
    size_t size;
    utf8proc_int32_t c = next_char(rest, &size);
    while (*rest && c > 0 && is_looked_past(c)) {
        rest += size;
        c = next_char(rest, &size);
    }
    return before && !(*rest && c > 0 && is_cased(c));
}

char *ruler_lower(const char *text)
{
    enum { CAPITAL_I_DOT = 0x130, CAPITAL_SIGMA = 0x3a3, FINAL_SIGMA = 0x3c2, DOT_ABOVE = 0x307 };
    char *lower = malloc(4 * strlen(text) + 1); /* one byte becomes at most three, two at most four */
    char *out = lower;
    bool before = false;
    while (lower && *text) {
        size_t size;
        const utf8proc_int32_t c = next_char(text, &size);
        if (c < 0) *out++ = *text;
        text += size;
        if (c < 0) continue;
        const utf8proc_int32_t small = c == CAPITAL_I_DOT                             ? 'i'
                                       : c == CAPITAL_SIGMA && is_final(before, text) ? FINAL_SIGMA
                                                                                      : utf8proc_tolower(c);
        out += utf8proc_encode_char(small, (utf8proc_uint8_t *)out);
        if (c == CAPITAL_I_DOT) out += utf8proc_encode_char(DOT_ABOVE, (utf8proc_uint8_t *)out);
        if (!is_looked_past(c)) before = is_cased(c);
    }
    if (lower) *out = '\0';
    return lower;
}

double ruler_score(const char *answer, const char *const *references, size_t n_references, bool part)
{
    char *within = ruler_lower(answer);
    size_t found = 0;
    bool known = within;
    for (size_t i = 0; known && i < n_references; i++) {
        char *reference = ruler_lower(references[i]);
        known = reference;
        if (known) found += strstr(within, reference) != NULL;
        free(reference);
    }
    free(within);
    if (!known) return -1;
    if (part || n_references == 0) return found > 0 ? 1 : 0;
    return (double)found / (double)n_references;
}

double ruler_round(double value, int decimals)
{
    char text[400]; /* the largest double has 309 digits */
    snprintf(text, sizeof text, "%.*f", decimals, value);
    return strtod(text, NULL);
}

double ruler_percent(const double *scores, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += scores[i];
    return n > 0 ? ruler_round(sum / (double)n * 100, 2) : 0;
}

/* splitmix64 */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static double draw_mean(const struct ruler_group *group, uint64_t *state)
{
    double sum = 0;
    for (size_t i = 0; i < group->n; i++) sum += group->values[(draw(state) >> 32) * group->n >> 32];
    return sum / (double)group->n;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct ruler_interval ruler_bootstrap(const struct ruler_group *groups, size_t n_groups)
{
    double means[DRAWS];
    uint64_t state = 42;
    size_t n_used = 0;
    for (size_t g = 0; g < n_groups; g++) n_used += groups[g].n > 0;
    if (n_used == 0) return (struct ruler_interval){ NAN, NAN };
    for (size_t d = 0; d < DRAWS; d++) {
        means[d] = 0;
        for (size_t g = 0; g < n_groups; g++)
            if (groups[g].n > 0) means[d] += draw_mean(&groups[g], &state);
        means[d] /= (double)n_used;
    }
    qsort(means, DRAWS, sizeof *means, ascending);
    return (struct ruler_interval){ means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40] };
}
