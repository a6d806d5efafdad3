#include "longbench.h"

#include "eval/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

static bool starts(const char *at, const char *phrase)
{
    return strncasecmp(at, phrase, strlen(phrase)) == 0;
}

/* \s* */
static const char *skip_space(const char *at)
{
    for (size_t n; *at && (n = text_space(at)) > 0;) at += n;
    return at;
}

/* The letter at a place in upper case, or 0. */
static int letter(const char *at)
{
    const char c = (char)(*at & ~0x20);
    return c >= 'A' && c <= 'D' ? c : 0;
}

/* \w of a regular expression: letters, digits, underscore, of any script. */
static bool is_word(const char *at)
{
    utf8proc_int32_t point;
    if (!*at || utf8proc_iterate((const utf8proc_uint8_t *)at, -1, &point) <= 0) return false;
    const utf8proc_category_t category = utf8proc_category(point);
    return point == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

/* \s*\(?([A-D])\)? */
static int choice_after(const char *at)
{
    at = skip_space(at);
    return letter(at + (*at == '('));
}

/* \(?\b([A-D])\b\)? behind something that ends in a letter (word) or not. */
static int lone_choice(const char *at, bool word)
{
    const bool open = *at == '(';
    at += open;
    return (open || !word) && letter(at) && !is_word(at + 1) ? letter(at) : 0;
}

static int second_rule(const char *text)
{
    static const char *const phrases[] = { "correct answer is", "answer is", "answer:" };
    const char *read = text; /* lines that start before this place are blank, and what follows them was no choice */
    for (const char *at = text;; at++) {
        int found = 0;
        for (size_t i = 0; i < sizeof phrases / sizeof *phrases && !found; i++) {
            if (!starts(at, phrases[i])) continue;
            const char *end = at + strlen(phrases[i]), *next = skip_space(end);
            found = lone_choice(next, i < 2 && next == end);
        }
        if (!found && at >= read && (at == text || at[-1] == '\n')) {
            read = skip_space(at);
            found = lone_choice(read, false);
        }
        if (found || !*at) return found;
    }
}

static int published_choice(const char *text)
{
    static const char phrase[] = "the correct answer is";
    for (const char *at = text; *at; at++) {
        const int found = starts(at, phrase) ? choice_after(at + sizeof phrase - 1) : 0;
        if (found) return found;
    }
    const int second = second_rule(text);
    if (second) return second;
    for (const char *at = text; (at = strchr(at, '(')); at++)
        if (letter(at + 1) && at[2] == ')') return letter(at + 1);
    return 0;
}

static int official_choice(const char *text)
{
    static const char phrase[] = "The correct answer is ";
    for (int parens = 1; parens >= 0; parens--) {
        for (const char *at = text; (at = strstr(at, phrase)); at++) {
            const char *choice = at + sizeof phrase - 1;
            if (parens && *choice++ != '(') continue;
            if (*choice >= 'A' && *choice <= 'D' && (!parens || choice[1] == ')')) return *choice;
        }
    }
    return 0;
}

int longbench_choice(const char *response, bool official)
{
    char *plain = malloc(strlen(response) + 1), *to = plain;
    if (!plain) return -1;
    for (const char *at = response; *at; at++)
        if (*at != '*') *to++ = *at;
    *to = '\0';
    const int choice = official ? official_choice(plain) : published_choice(skip_space(plain));
    free(plain);
    return choice;
}

/* A predicted letter as the scorer compares it: stripped, in upper case. */
static int stripped_letter(const char *text)
{
    text = skip_space(text);
    const int found = letter(text);
    return found && !*skip_space(text + 1) ? found : 0;
}

bool longbench_id(const json_t *id, char out[LONGBENCH_ID])
{
    if (json_is_integer(id)) return snprintf(out, LONGBENCH_ID, "%lld", (long long)json_integer_value(id)) > 0;
    const char *text = json_string_value(id);
    return text && *text && snprintf(out, LONGBENCH_ID, "%s", text) < LONGBENCH_ID;
}

static bool count_domain(struct longbench_scores *scores, const char *domain, bool right)
{
    json_t *pair = json_object_get(scores->domains, domain);
    if (!pair) {
        pair = json_pack("[i, i]", 0, 0);
        if (json_object_set_new(scores->domains, domain, pair) != 0) return false;
    }
    for (size_t i = 0; i < 2; i++)
        json_integer_set(json_array_get(pair, i), json_integer_value(json_array_get(pair, i)) + (i == 0 || right));
    return true;
}

static void count(struct longbench_bucket *bucket, bool right)
{
    bucket->n++;
    bucket->right += right;
}

static int bucket_of(const char *word, int first, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (word && strcmp(word, names[i]) == 0) return first + i;
    return -1;
}

static const char *const metrics[LONGBENCH_BUCKETS] = { "overall", "easy", "hard", "short", "medium", "long" };

const char *longbench_read_labels(const json_t *row, struct longbench_labels *out)
{
    const char *answer = json_string_value(json_object_get(row, "answer"));
    *out = (struct longbench_labels){
        .answer = answer ? stripped_letter(answer) : 0,
        .difficulty = bucket_of(json_string_value(json_object_get(row, "difficulty")), LONGBENCH_EASY, metrics + LONGBENCH_EASY, 2),
        .length = bucket_of(json_string_value(json_object_get(row, "length")), LONGBENCH_SHORT, metrics + LONGBENCH_SHORT, 3),
        .domain = json_string_value(json_object_get(row, "domain")),
    };
    if (!out->answer) return "\"answer\" is none of A, B, C, D";
    if (out->difficulty < 0) return "\"difficulty\" is neither easy nor hard";
    if (out->length < 0) return "\"length\" is none of short, medium, long";
    return out->domain ? NULL : "no text \"domain\"";
}

const char *longbench_add(struct longbench_scores *scores, const json_t *row, bool official)
{
    char id[LONGBENCH_ID];
    struct longbench_labels labels;
    const char *given = json_string_value(json_object_get(row, "pred_answer"));
    const char *response = json_string_value(json_object_get(row, "response"));
    if (!longbench_id(json_object_get(row, "_id"), id)) return "no \"_id\", a text or a whole number";
    const char *why = longbench_read_labels(row, &labels);
    if (why) return why;
    if (!response && (official || !given)) return "no text \"response\"";
    if (!scores->ids) scores->ids = json_object();
    if (!scores->domains) scores->domains = json_object();
    if (!scores->ids || !scores->domains) return "no memory for the row";
    if (json_object_get(scores->ids, id)) {
        scores->repeated++;
        return NULL;
    }

    const int choice = given && !official ? stripped_letter(given) : longbench_choice(response, official);
    const bool right = choice == labels.answer;
    if (choice < 0 || json_object_set_new(scores->ids, id, json_true()) != 0 || !count_domain(scores, labels.domain, right))
        return "no memory for the row";
    count(&scores->buckets[LONGBENCH_OVERALL], right);
    count(&scores->buckets[labels.difficulty], right);
    count(&scores->buckets[labels.length], right);
    scores->nulls += choice == 0;
    return NULL;
}

void longbench_free(struct longbench_scores *scores)
{
    json_decref(scores->ids);
    json_decref(scores->domains);
    *scores = (struct longbench_scores){ 0 };
}

/* The decimal number with one place that is nearest to the binary value, ties to the even digit: what printf does. */
static json_t *percent(size_t right, size_t n)
{
    char text[32];
    snprintf(text, sizeof text, "%.1f", n > 0 ? 100.0 * (double)right / (double)n : 0.0);
    return json_real(strtod(text, NULL));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static json_t *domains_json(const struct longbench_scores *scores)
{
    const size_t n = json_object_size(scores->domains);
    const char **names = calloc(n + 1, sizeof *names), *name;
    json_t *out = json_object(), *pair;
    size_t at = 0;
    if (names) {
        json_object_foreach(scores->domains, name, pair) names[at++] = name;
        qsort(names, n, sizeof *names, by_name);
    }
    for (size_t i = 0; i < at; i++) {
        pair = json_object_get(scores->domains, names[i]);
        const size_t total = (size_t)json_integer_value(json_array_get(pair, 0));
        const size_t right = (size_t)json_integer_value(json_array_get(pair, 1));
        json_object_set_new(out, names[i], json_pack("{s:I, s:o}", "count", (json_int_t)total, "score", percent(right, total)));
    }
    free((void *)names);
    return out;
}

json_t *longbench_json(const struct longbench_scores *scores)
{
    json_t *out = json_object();
    json_object_set_new(out, "count", json_integer((json_int_t)scores->buckets[LONGBENCH_OVERALL].n));
    for (size_t i = 0; i < LONGBENCH_BUCKETS; i++)
        json_object_set_new(out, metrics[i], percent(scores->buckets[i].right, scores->buckets[i].n));
    json_object_set_new(out, "nulls", json_integer((json_int_t)scores->nulls));
    json_object_set_new(out, "domains", domains_json(scores));
    if (json_object_size(out) == LONGBENCH_BUCKETS + 3) return out;
    json_decref(out);
    return NULL;
}

static void write_field(const char *text, FILE *out)
{
    const bool quoted = strpbrk(text, ",\"\r\n");
    if (quoted) fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    if (quoted) fputc('"', out);
}

static void write_value(const json_t *value, FILE *out)
{
    if (json_is_integer(value))
        fprintf(out, "%lld\r\n", (long long)json_integer_value(value));
    else
        fprintf(out, "%.1f\r\n", json_real_value(value));
}

void longbench_write_csv(const json_t *summary, FILE *out)
{
    const char *name;
    json_t *value;
    fputs("metric,value\r\n", out);
    json_object_foreach((json_t *)(uintptr_t)summary, name, value)
    {
        if (json_is_object(value)) continue;
        fprintf(out, "%s,", name);
        write_value(value, out);
    }
    fputs("\r\ndomain,count,score\r\n", out);
    json_object_foreach(json_object_get(summary, "domains"), name, value)
    {
        write_field(name, out);
        fprintf(out, ",%lld,", (long long)json_integer_value(json_object_get(value, "count")));
        write_value(json_object_get(value, "score"), out);
    }
}
