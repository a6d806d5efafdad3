/* A prefilled session in a file:
 *
 *   u8[8] "CACACHE\0", u32 version, u32 length of text, text (model and settings), u32 n_tokens, u32 tokens[n_tokens],
 *   the cache's bytes (cache_io.h), u32 CRC-32 of all before. Little-endian.
 *
 * The text names what the bytes depend on; a session takes a file only when its own text is the same. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/mapfile.h"
#include "base/reader.h"
#include "cache/cache_io.h"
#include "model/weights.h"
#include "prefill/session.h"

static const char magic[8] = "CACACHE";
enum { VERSION = 1, TEXT = 1024 };

/* FNV-1a over 32-bit words. */
static uint64_t mix(uint64_t hash, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, &x[i], 4);
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* Norm weights of every layer tell models of one shape apart, fine-tuned ones too. */
static uint64_t fingerprint(const ca_model *model)
{
    uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), model->final_norm, model->info.hidden);
    for (uint32_t l = 0; l < model->info.n_layers; l++) hash = mix(hash, model->layers[l].attn_norm, model->info.hidden);
    return hash;
}

/* Everything that the keys and values of a session depend on. */
static void describe(const ca_session *s, char text[TEXT])
{
    const ca_select_opt *o = &s->opt.select;
    const ca_model_info *m = &s->info;
    int n = snprintf(text, TEXT,
                     "model %s %u x %u, heads %u:%u x %u, vocabulary %u, rope %s %g, weights %016llx\n"
                     "selector %s, executor %d, rows %u x %u, worth %g %g %g, first %d, dense %u..%u\n"
                     "kernels %s, %s products, pages of %u, summaries %u, chunk %u\n",
                     m->architecture, m->n_layers, m->hidden, m->n_heads, m->n_kv_heads, m->head_dim, m->vocab, m->rope_scaling,
                     (double)m->rope_factor, (unsigned long long)fingerprint(s->model), ca_selector_name(o->selector),
                     (int)s->opt.executor, s->opt.table.heads_per_row, s->opt.table.qblocks_per_row, (double)s->opt.worth.heads,
                     (double)s->opt.worth.qblocks, (double)s->opt.worth.whole, s->opt.sparse_first, s->opt.dense_prefix,
                     s->opt.dense_tail, ca_kern_name(s->cache->opt.kern), ca_matmul_name(m->matmul), s->opt.page_tokens,
                     s->cache->opt.summaries, s->opt.chunk);
    const size_t at = n > 0 && n < TEXT ? (size_t)n : TEXT - 1;
    char *more = text + at;
    const size_t left = TEXT - at;
    switch (o->selector) {
    case CA_SELECT_FLASHPREFILL:
        (void)snprintf(more, left, "alpha %g, sink %u, window %u, last %u %u, budget %u, %d %d\n", (double)o->flashprefill.alpha,
                       o->flashprefill.sink, o->flashprefill.window, o->flashprefill.last_dense, o->flashprefill.last_mute,
                       o->flashprefill.min_budget, o->flashprefill.free_max, o->flashprefill.every_chunk);
        break;
    case CA_SELECT_SEER:
        (void)snprintf(more, left, "threshold %g, steps %u, %d %d\n", (double)o->seer.threshold, o->seer.n_steps, o->seer.relative,
                       o->seer.bare);
        break;
    case CA_SELECT_QUOKA:
        (void)snprintf(more, left, "ratios %g %g\n", (double)o->quoka.query_ratio, (double)o->quoka.kv_ratio);
        break;
    case CA_SELECT_XATTENTION:
        (void)snprintf(more, left, "stride %u, threshold %g\n", o->xattention.stride, (double)o->xattention.threshold);
        break;
    case CA_SELECT_MINFERENCE: (void)snprintf(more, left, "top_k %u\n", o->minference.top_k); break;
    case CA_SELECT_TRISHAPE: (void)snprintf(more, left, "sink %u, window %u\n", o->trishape.sink, o->trishape.window); break;
    case CA_SELECT_ORACLE: (void)snprintf(more, left, "mass %g\n", (double)o->oracle.mass); break;
    case CA_SELECT_NONE:
    case CA_SELECT_USER: break;
    }
}

typedef struct output {
    FILE *file;
    uLong crc;
} output;

static ca_status put(void *user, void *data, size_t n)
{
    output *out = user;
    out->crc = crc32_z(out->crc, data, n);
    return fwrite(data, 1, n, out->file) == n ? CA_OK : ca_fail(CA_E_IO, "%s", strerror(errno));
}

static ca_status write_all(const ca_session *s, output *out)
{
    char text[TEXT], head[8];
    uint32_t version = VERSION, n_tokens = s->len;
    describe(s, text);
    uint32_t length = (uint32_t)strlen(text);
    memcpy(head, magic, sizeof head);
    CA_TRY(put(out, head, sizeof head));
    CA_TRY(put(out, &version, sizeof version));
    CA_TRY(put(out, &length, sizeof length));
    CA_TRY(put(out, text, length));
    CA_TRY(put(out, &n_tokens, sizeof n_tokens));
    CA_TRY(put(out, s->tokens, n_tokens * sizeof *s->tokens));
    CA_TRY(ca_cache_export(s->cache, 0, put, out));
    uint32_t crc = (uint32_t)out->crc;
    return put(out, &crc, sizeof crc);
}

ca_status ca_session_save(const ca_session *session, const char *path)
{
    const size_t cap = strlen(path) + 8;
    char *part = malloc(cap);
    if (part == NULL) return ca_fail(CA_E_MEMORY, "session: no memory to save %s", path);
    (void)snprintf(part, cap, "%s.part", path);
    output out = { .file = fopen(part, "wb"), .crc = crc32_z(0, NULL, 0) };
    ca_status st = out.file != NULL ? write_all(session, &out) : CA_E_IO;
    if (out.file != NULL && fclose(out.file) != 0) st = CA_E_IO;
    if (st == CA_OK && rename(part, path) != 0) st = CA_E_IO;
    if (st != CA_OK) {
        const int why = errno;
        (void)remove(part);
        st = ca_fail(CA_E_IO, "%s: the session cannot be saved: %s", path, strerror(why));
    }
    free(part);
    return st;
}

static ca_status get(void *user, void *data, size_t n)
{
    return rd_copy(user, data, n);
}

/* The first line in which the texts differ, as "theirs" and "ours". */
static ca_status refuse(const char *path, const char *theirs, size_t length, const char *ours)
{
    size_t line = 0, i = 0;
    for (; i < length && ours[i] == theirs[i]; i++)
        if (ours[i] == '\n') line = i + 1;
    const int a = (int)strcspn(ours + line, "\n");
    size_t b = line;
    while (b < length && theirs[b] != '\n') b++;
    return ca_fail(CA_E_SHAPE, "%s was saved with '%.*s', this session has '%.*s': use the same model and settings", path,
                   (int)(b - line), theirs + line, a, ours + line);
}

static ca_status read_all(ca_session *s, const char *path, ca_reader *r)
{
    char text[TEXT];
    const uint8_t *bytes = NULL;
    uint32_t version = 0, length = 0, n_tokens = 0;
    describe(s, text);
    CA_TRY(rd_bytes(r, sizeof magic, &bytes));
    if (memcmp(bytes, magic, sizeof magic) != 0) return ca_fail(CA_E_FORMAT, "%s is not a saved session", path);
    CA_TRY(rd_u32(r, &version));
    if (version != VERSION)
        return ca_fail(CA_E_UNSUPPORTED, "%s: version %u of saved sessions; this build reads %d", path, version, VERSION);
    CA_TRY(rd_u32(r, &length));
    CA_TRY(rd_bytes(r, length, &bytes));
    for (uint32_t i = 0; i < length; i++)
        if (bytes[i] != '\n' && (bytes[i] < ' ' || bytes[i] > '~')) return ca_fail(CA_E_FORMAT, "%s: damaged description", path);
    if (length != strlen(text) || memcmp(bytes, text, length) != 0) return refuse(path, (const char *)bytes, length, text);
    CA_TRY(rd_u32(r, &n_tokens));
    if (n_tokens > s->opt.context)
        return ca_fail(CA_E_FULL, "%s holds %u tokens, the session's context is %u: raise it", path, n_tokens, s->opt.context);
    CA_TRY(rd_copy(r, s->tokens, n_tokens * sizeof *s->tokens));
    for (uint32_t i = 0; i < n_tokens; i++)
        if (s->tokens[i] >= s->info.vocab)
            return ca_fail(CA_E_FORMAT, "%s: token %u is outside of the vocabulary", path, s->tokens[i]);
    CA_TRY(ca_cache_import(s->cache, 0, get, r));
    for (uint32_t l = 0; l < s->info.n_layers; l++)
        if (ca_cache_len(s->cache, 0, l) != n_tokens || rd_left(r) != sizeof(uint32_t)) {
            (void)ca_cache_truncate(s->cache, 0, 0);
            return ca_fail(CA_E_FORMAT, "%s: %u tokens do not match the pages that follow", path, n_tokens);
        }
    s->len = n_tokens;
    s->has_logits = false;
    return CA_OK;
}

ca_status ca_session_load(ca_session *session, const char *path)
{
    ca_mapfile map = { 0 };
    if (session->len > 0)
        return ca_fail(CA_E_ARG, "session: only an empty session can load %s; it has %u tokens", path, session->len);
    CA_TRY(ca_mapfile_open(path, &map));
    ca_reader r = { .data = map.data, .size = map.size, .name = path };
    uint32_t crc = 0;
    ca_status st = CA_OK;
    if (map.size < sizeof magic + sizeof crc || memcmp(map.data, magic, sizeof magic) != 0) {
        st = ca_fail(CA_E_FORMAT, "%s is not a saved session", path);
    } else {
        memcpy(&crc, r.data + map.size - sizeof crc, sizeof crc);
        if (crc32_z(crc32_z(0, NULL, 0), r.data, map.size - sizeof crc) != crc)
            st = ca_fail(CA_E_FORMAT, "%s: the checksum is wrong: the file is damaged", path);
    }
    if (st == CA_OK) st = read_all(session, path, &r);
    ca_mapfile_close(&map);
    return st;
}
