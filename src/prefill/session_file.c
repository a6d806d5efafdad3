/* A prefilled session in a file:
 *
 *   u8[8] "CACACHE\0", u32 version, u32 length of text, text (model and settings), u32 n_tokens, u32 tokens[n_tokens],
 *   the cache's bytes (cache_io.h), u32 CRC-32 of all before. Little-endian.
 *
 * The text names what the bytes depend on; a session takes a file only when its own text is the same. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/mapfile.h"
#include "base/newfile.h"
#include "base/reader.h"
#include "cache/cache_io.h"
#include "prefill/session.h"

static const char magic[8] = "CACACHE";
enum { VERSION = 2, TEXT = 2048 };

/* Text that grows; what its end does not hold is cut off. */
typedef struct description {
    char text[TEXT];
    size_t len;
} description;

static __attribute__((format(printf, 2, 3))) void say(description *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(d->text + d->len, TEXT - d->len, format, args);
    va_end(args);
    if (n > 0) d->len += (size_t)n < TEXT - d->len ? (size_t)n : TEXT - 1 - d->len;
}

static void say_model(const ca_session *s, description *d)
{
    const ca_model_info *m = &s->info;
    say(d, "model %s %u x %u, heads %u:%u x %u, vocabulary %u, rope %s %g, weights %016" PRIx64 "\n", m->architecture, m->n_layers,
        m->hidden, m->n_heads, m->n_kv_heads, m->head_dim, m->vocab, m->rope_scaling, (double)m->rope_factor,
        s->model->fingerprint);
}

static void say_selector(const ca_select_opt *o, description *d)
{
    switch (o->selector) {
    case CA_SELECT_FLASHPREFILL:
        say(d, "alpha %g, sink %u, window %u, last %u %u, budget %u, %d %d\n", (double)o->flashprefill.alpha, o->flashprefill.sink,
            o->flashprefill.window, o->flashprefill.last_dense, o->flashprefill.last_mute, o->flashprefill.min_budget,
            o->flashprefill.free_max, o->flashprefill.every_chunk);
        break;
    case CA_SELECT_SEER:
        say(d, "threshold %g, %d %d, steps", (double)o->seer.threshold, o->seer.relative, o->seer.bare);
        for (uint32_t i = 0; i < o->seer.n_steps; i++)
            say(d, " %u:%g", o->seer.steps[i].max_kv, (double)o->seer.steps[i].threshold);
        say(d, "\n");
        break;
    case CA_SELECT_QUOKA: say(d, "ratios %g %g\n", (double)o->quoka.query_ratio, (double)o->quoka.kv_ratio); break;
    case CA_SELECT_XATTENTION: say(d, "stride %u, threshold %g\n", o->xattention.stride, (double)o->xattention.threshold); break;
    case CA_SELECT_MINFERENCE: say(d, "top_k %u\n", o->minference.top_k); break;
    case CA_SELECT_TRISHAPE: say(d, "sink %u, window %u\n", o->trishape.sink, o->trishape.window); break;
    case CA_SELECT_ORACLE: say(d, "mass %g, scale %g\n", (double)o->oracle.mass, (double)o->oracle.scale); break;
    case CA_SELECT_NONE:
    case CA_SELECT_USER: break;
    }
}

/* Everything that the keys, values and summaries of a session depend on. */
static void describe(const ca_session *s, description *d)
{
    const ca_session_opt *o = &s->opt;
    *d = (description){ .len = 0 };
    say_model(s, d);
    say(d, "selector %s, executor %d, rows %u x %u, worth %g %g %g, first %d, dense %u..%u\n", ca_selector_name(o->select.selector),
        (int)o->executor, o->table.heads_per_row, o->table.qblocks_per_row, (double)o->worth.heads, (double)o->worth.qblocks,
        (double)o->worth.whole, o->sparse_first, o->dense_prefix, o->dense_tail);
    if (o->executor == CA_EXEC_AUTO) say(d, "cost %g %g %g\n", o->cost.flop, o->cost.page_byte, o->cost.job);
    say(d, "kernels %s, %s products, pages of %u, summaries %u, chunk %u\n", ca_kern_name(s->cache->opt.kern),
        ca_matmul_name(s->info.matmul), o->page_tokens, s->cache->opt.summaries, s->asked_chunk);
    if (o->attention != CA_ATTENTION_NATIVE) say(d, "%s attention\n", ca_attention_name(o->attention));
    if (s->cache->opt.summaries & CA_SUMMARY_GATE) say(d, "gate %016" PRIx64 "\n", ca_gate_fingerprint(s->cache->opt.gate));
    say_selector(&o->select, d);
}

typedef struct output {
    const char *path;
    FILE *file;
    uLong crc;
} output;

static ca_status put(void *user, void *data, size_t n)
{
    output *out = user;
    out->crc = crc32_z(out->crc, data, n);
    if (fwrite(data, 1, n, out->file) == n) return CA_OK;
    return ca_fail(CA_E_IO, "%s: the session cannot be saved: %s", out->path, strerror(errno));
}

static ca_status write_all(const ca_session *s, output *out)
{
    description d;
    char head[8];
    describe(s, &d);
    uint32_t version = VERSION, n_tokens = s->len, length = (uint32_t)d.len;
    memcpy(head, magic, sizeof head);
    CA_TRY(put(out, head, sizeof head));
    CA_TRY(put(out, &version, sizeof version));
    CA_TRY(put(out, &length, sizeof length));
    CA_TRY(put(out, d.text, length));
    CA_TRY(put(out, &n_tokens, sizeof n_tokens));
    CA_TRY(put(out, s->tokens, n_tokens * sizeof *s->tokens));
    CA_TRY(ca_cache_export(s->cache, 0, put, out));
    uint32_t crc = (uint32_t)out->crc;
    return put(out, &crc, sizeof crc);
}

/* A saved session is replaced whole, and so is an empty file; another file, a device, a pipe or a folder of that name is not. */
static ca_status check_target(const char *path)
{
    struct stat old;
    char head[sizeof magic] = "";
    if (stat(path, &old) != 0) return CA_OK;
    FILE *file = S_ISREG(old.st_mode) && old.st_size > 0 ? fopen(path, "rb") : NULL;
    const bool other = file && (fread(head, 1, sizeof head, file) != sizeof head || memcmp(head, magic, sizeof head) != 0);
    if (file) (void)fclose(file);
    if (other)
        return ca_fail(CA_E_IO, "%s: the session cannot be saved: there is a file that is no saved session: give another name",
                       path);
    if (S_ISREG(old.st_mode)) return CA_OK;
    return ca_fail(CA_E_IO, "%s: the session cannot be saved: the name is that of something else than a file: give another", path);
}

ca_status ca_session_save(const ca_session *session, const char *path)
{
    char *temporary = NULL;
    output out = { .path = path, .crc = crc32_z(0, NULL, 0) };
    CA_TRY(check_target(path));
    CA_TRY(ca_newfile_open(path, &temporary, &out.file));
    return ca_newfile_close(path, temporary, out.file, write_all(session, &out));
}

static ca_status get(void *user, void *data, size_t n)
{
    return rd_copy(user, data, n);
}

/* The first line in which the texts differ, as "theirs" and "ours". */
static ca_status refuse(const char *path, const char *theirs, size_t length, const char *ours)
{
    enum { SHOWN = 400 }; /* of a line: a file may say anything */
    size_t line = 0, i = 0;
    for (; i < length && ours[i] == theirs[i]; i++)
        if (ours[i] == '\n') line = i + 1;
    const int a = (int)strcspn(ours + line, "\n");
    size_t b = line;
    while (b < length && b - line < SHOWN && theirs[b] != '\n' && theirs[b] != '\0') b++;
    return ca_fail(CA_E_SHAPE, "%s was saved with '%.*s', this session has '%.*s': use the same model and settings", path,
                   (int)(b - line), theirs + line, a, ours + line);
}

/* Up to the text, which is text[length]. */
static ca_status read_head(const char *path, ca_reader *r, const uint8_t **text, uint32_t *length)
{
    uint32_t version = 0;
    if (rd_left(r) < sizeof magic) return ca_fail(CA_E_FORMAT, "%s is not a saved session", path);
    CA_TRY(rd_bytes(r, sizeof magic, text));
    if (memcmp(*text, magic, sizeof magic) != 0) return ca_fail(CA_E_FORMAT, "%s is not a saved session", path);
    CA_TRY(rd_u32(r, &version));
    if (version != VERSION)
        return ca_fail(CA_E_UNSUPPORTED, "%s: version %u of saved sessions; this build reads %d", path, version, VERSION);
    CA_TRY(rd_u32(r, length));
    return rd_bytes(r, *length, text);
}

ca_status ca_session_saved_len(const char *path, uint32_t *n_tokens)
{
    ca_mapfile map = { 0 };
    const uint8_t *text = NULL;
    uint32_t length = 0;
    *n_tokens = 0;
    CA_TRY(ca_mapfile_open(path, &map));
    ca_reader r = { .data = map.data, .size = map.size, .name = path };
    ca_status st = read_head(path, &r, &text, &length);
    if (st == CA_OK) st = rd_u32(&r, n_tokens);
    ca_mapfile_close(&map);
    return st;
}

static ca_status read_all(ca_session *s, const char *path, ca_reader *r)
{
    description d;
    const uint8_t *bytes = NULL;
    uint32_t length = 0, n_tokens = 0;
    describe(s, &d);
    CA_TRY(read_head(path, r, &bytes, &length));
    for (uint32_t i = 0; i < length; i++)
        if (bytes[i] != '\n' && (bytes[i] < ' ' || bytes[i] > '~')) return ca_fail(CA_E_FORMAT, "%s: damaged description", path);
    if (length != d.len || memcmp(bytes, d.text, length) != 0) return refuse(path, (const char *)bytes, length, d.text);
    CA_TRY(rd_u32(r, &n_tokens));
    if (n_tokens > s->opt.context)
        return ca_fail(CA_E_FULL, "%s holds %u tokens, the session's context is %u: raise it", path, n_tokens, s->opt.context);
    CA_TRY(rd_copy(r, s->tokens, n_tokens * sizeof *s->tokens));
    for (uint32_t i = 0; i < n_tokens; i++)
        if (s->tokens[i] >= s->info.vocab)
            return ca_fail(CA_E_FORMAT, "%s: token %u is outside of the vocabulary", path, s->tokens[i]);
    CA_TRY(ca_cache_import(s->cache, 0, get, r));
    for (uint32_t l = 0; l < s->info.n_layers; l++)
        if (ca_cache_len(s->cache, 0, l) != n_tokens || ca_session_misses(s, l, n_tokens) || rd_left(r) != sizeof(uint32_t)) {
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
