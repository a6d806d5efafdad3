#include "words.h"

#include "cli/file.h"
#include "cli/message.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

/* The pairs of an adjective stand together, in the nouns' order, unless it is followed by a hyphen in another ("blue", "blue-eyed"):
 * then the pairs of both mix, and the block of both lists them. */
struct block {
    size_t first, n;      /* adjectives */
    struct strings pairs; /* of a block of several adjectives */
};

struct words {
    struct strings adjectives, nouns, common; /* sorted, without repetition; common is shuffled */
    struct block *blocks;                     /* one for each adjective at most */
    size_t n_blocks;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_once(struct strings *strings)
{
    size_t kept = 0;
    if (strings->n) qsort(strings->items, strings->n, sizeof *strings->items, by_text);
    for (size_t i = 0; i < strings->n; i++) {
        if (kept && strcmp(strings->items[kept - 1], strings->items[i]) == 0)
            free(strings->items[i]);
        else
            strings->items[kept++] = strings->items[i];
    }
    strings->n = kept;
}

/* Adds the lines of a list to both. */
static int read_list(const char *name, struct strings *common, struct strings *own)
{
    char path[1024], why[FILE_WHY], *data, *at;
    size_t size;
    if (!file_find_data(name, path, sizeof path))
        return fail(
            "data/%s is missing: it belongs to the program, and is looked for here, beside the program's folder and in its share/compactattn",
            name);
    if (!file_read(path, &data, &size, why)) return fail("%s: %s", path, why);
    for (char *line = strtok_r(data, "\n", &at); line; line = strtok_r(NULL, "\n", &at)) {
        for (size_t n = strlen(line); n && text_space(line + n - 1); n--) line[n - 1] = '\0';
        strings_add(common, line);
        if (own) strings_add(own, line);
    }
    free(data);
    if (common->failed || (own && own->failed)) return fail("%s: no memory for the words", path);
    return common->n ? EXIT_DONE : fail("%s: no words", path);
}

/* Whether string begins with an adjective and a hyphen. */
static bool continues(const char *string, const char *adjective)
{
    const size_t n = strlen(adjective);
    return strncmp(string, adjective, n) == 0 && string[n] == '-';
}

static void list_pairs(const struct words *words, struct block *block)
{
    struct text pair = { 0 };
    for (size_t i = block->first; i < block->first + block->n; i++) {
        for (size_t j = 0; j < words->nouns.n && !pair.failed; j++) {
            text_clear(&pair);
            text_print(&pair, "%s-%s", words->adjectives.items[i], words->nouns.items[j]);
            if (!pair.failed) strings_add(&block->pairs, pair.at);
        }
    }
    block->pairs.failed = block->pairs.failed || pair.failed;
    text_free(&pair);
    if (block->pairs.n) qsort(block->pairs.items, block->pairs.n, sizeof *block->pairs.items, by_text);
}

static int build_blocks(struct words *words)
{
    const struct strings *adjectives = &words->adjectives;
    words->blocks = calloc(adjectives->n + 1, sizeof *words->blocks);
    if (!words->blocks) return fail("no memory for the words");
    for (size_t i = 0; i < adjectives->n;) {
        struct block *block = &words->blocks[words->n_blocks++];
        block->first = i;
        while (i < adjectives->n && (i == block->first || continues(adjectives->items[i], adjectives->items[block->first]))) i++;
        block->n = i - block->first;
        if (block->n > 1) list_pairs(words, block);
        if (block->pairs.failed) return fail("no memory for the words");
    }
    return EXIT_DONE;
}

struct words *words_open(uint32_t seed)
{
    struct words *words = calloc(1, sizeof *words);
    if (!words) {
        fail("no memory for the words");
        return NULL;
    }
    if (read_list("ruler/nounlist.txt", &words->common, &words->nouns) != EXIT_DONE ||
        read_list("ruler/adjectivelist.txt", &words->common, &words->adjectives) != EXIT_DONE ||
        read_list("ruler/verblist.txt", &words->common, NULL) != EXIT_DONE) {
        words_close(words);
        return NULL;
    }
    sort_once(&words->nouns);
    sort_once(&words->adjectives);
    sort_once(&words->common);
    random_shuffle(seed, words->common.items, words->common.n, sizeof *words->common.items);
    if (build_blocks(words) != EXIT_DONE) {
        words_close(words);
        return NULL;
    }
    return words;
}

void words_close(struct words *words)
{
    if (!words) return;
    for (size_t i = 0; i < words->n_blocks; i++) strings_free(&words->blocks[i].pairs);
    free(words->blocks);
    strings_free(&words->adjectives);
    strings_free(&words->nouns);
    strings_free(&words->common);
    free(words);
}

uint32_t words_pairs(const struct words *words)
{
    return (uint32_t)(words->adjectives.n * words->nouns.n);
}

void words_add_pair(const struct words *words, uint32_t index, struct text *out)
{
    const size_t adjective = index / words->nouns.n;
    const struct block *block = words->blocks;
    while (adjective >= block->first + block->n) block++;
    if (block->n > 1)
        text_add(out, block->pairs.items[index - block->first * words->nouns.n]);
    else
        text_print(out, "%s-%s", words->adjectives.items[adjective], words->nouns.items[index % words->nouns.n]);
}

const struct strings *words_common(const struct words *words)
{
    return &words->common;
}
