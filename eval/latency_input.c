#include "eval/latency.h"

#include "cli/message.h"

#include <stdlib.h>
#include <string.h>

/* The output function of SplitMix64, over its place in the sequence. */
static uint64_t draw(uint64_t seed, uint64_t at)
{
    uint64_t z = seed + (at + 1) * 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

const char *latency_source_name(enum latency_source source)
{
    return source == LATENCY_RULER ? "ruler" : source == LATENCY_TEXT ? "text" : "random";
}

void latency_input_free(struct latency_input *input)
{
    ca_free(input->ids);
    dataset_free(&input->rows);
    *input = (struct latency_input){ 0 };
}

bool latency_ruler_path(const struct latency_input *input, uint32_t length, char *path, size_t cap)
{
    const int n = snprintf(path, cap, "%s/synthetic/%u/data/%s/validation.jsonl", input->root, length, input->task);
    return n > 0 && (size_t)n < cap;
}

/* False: why says the reason. */
static bool read_ruler(struct latency_input *input, uint32_t length, char why[LATENCY_WHY])
{
    char path[1024] = "";
    if (input->rows_of == length) return true;
    dataset_free(&input->rows);
    input->rows = (struct dataset){ 0 };
    input->rows_of = 0;
    if (latency_ruler_path(input, length, path, sizeof path) && dataset_read(path, &input->rows) == 0 && input->rows.n_rows > 0) {
        input->rows_of = length;
        return true;
    }
    snprintf(why, LATENCY_WHY, "%.200s: no prompts can be read from it", path);
    return false;
}

static const char *tokenize_row(struct latency_input *input, size_t record, uint32_t length, uint32_t *out, char why[LATENCY_WHY])
{
    const char *text = input->rows.rows[record % input->rows.n_rows].input;
    uint32_t *ids = NULL;
    size_t n = 0;
    if (ca_tokenize(input->tokenizer, text, strlen(text), CA_TOK_PARSE_SPECIAL, &ids, &n) != CA_OK) {
        snprintf(why, LATENCY_WHY, "%.200s", ca_last_error());
        return why;
    }
    if (n < length / 2 && input->told_of != length) { /* once a file */
        note(
            "%s/synthetic/%u/data/%s/validation.jsonl: made for another length or tokenizer, it seems: a prompt of %zu tokens is filled "
            "up to %u",
            input->root, length, input->task, n, length);
        input->told_of = length;
    }
    for (uint32_t i = 0; i < length; i++) out[i] = i < n ? ids[i] % input->vocab : 0;
    ca_free(ids);
    return NULL;
}

const char *latency_prompts(struct latency_input *input, uint32_t length, uint32_t batch, uint32_t run, uint32_t *out,
                            char why[LATENCY_WHY])
{
    const uint32_t turn = input->cycle ? run : 0;
    const char *error = NULL;
    if (input->source == LATENCY_RULER && !read_ruler(input, length, why)) return why;
    for (uint32_t b = 0; b < batch && !error; b++, out += length) {
        const size_t record = (size_t)turn + b;
        if (input->source == LATENCY_RULER) error = tokenize_row(input, record, length, out, why);
        for (uint32_t i = 0; i < length && input->source == LATENCY_TEXT; i++)
            out[i] = input->ids[(record * length + i) % input->n_ids] % input->vocab;
        for (uint32_t i = 0; i < length && input->source == LATENCY_RANDOM; i++)
            out[i] = (uint32_t)(draw(input->seed + record, i) % input->vocab);
    }
    return error;
}

/* ---- methods ---- */

static void keep_block(ca_mask *mask, uint32_t first_head, uint32_t n_heads, uint32_t block)
{
    for (size_t row = (size_t)first_head * mask->n_qblocks; row < (size_t)(first_head + n_heads) * mask->n_qblocks; row++)
        mask->bits[row * mask->words + block / 64] |= UINT64_C(1) << (block % 64);
}

ca_status latency_keep_share(void *user, const ca_cache *cache, const ca_chunk *chunk, const ca_queries *q, ca_mask *mask)
{
    const struct latency_method *method = user;
    const uint32_t past = mask->first_qblock, n_kv = method->n_kv_heads, group = mask->n_heads / n_kv;
    (void)cache;
    (void)q;
    for (uint32_t kv = 0; kv < n_kv; kv++) {
        const uint64_t seed = ((uint64_t)chunk->layer << 40) + ((uint64_t)kv << 32) + chunk->pos;
        uint64_t wanted = (uint64_t)(method->keep * past + 0.5);
        if (wanted > 0) keep_block(mask, kv * group, group, 0);
        if (wanted > 1) keep_block(mask, kv * group, group, past - 1);
        wanted -= wanted < 2 ? wanted : 2;
        for (uint32_t j = 1; j + 1 < past && wanted > 0; j++) { /* each of the blocks left is as likely */
            if (draw(seed, j) % (past - 1 - j) >= wanted) continue;
            keep_block(mask, kv * group, group, j);
            wanted--;
        }
    }
    return CA_OK;
}
