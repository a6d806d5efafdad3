/* Masks, unions, page tables, chosen tokens and attention outputs of the CompactAttention reference (one NVIDIA H200 run each).
 *
 *   golden_reference [FOLDER]     every fp*.json (FlashPrefill), conv*.json (unions), qk*.json (QUOKA) and seer*.json (gate) of the
 *                                 folder; default: the cases that the repository carries
 *
 * The folder's layout: NAME.json (params, arrays, inputs) and NAME.npz (stored .npy members). Inputs come from an integer recipe
 * and are checked by CRC-32. */
#include <dirent.h>
#include <jansson.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

#include "../kernels/attn_case.h"
#include "cache/cache.h"

static unsigned n_checks, n_failed;
static const char *case_name;

#define CHECK(ok, ...)                                                                                                             \
    do {                                                                                                                           \
        n_checks++;                                                                                                                \
        if (!(ok)) {                                                                                                               \
            n_failed++;                                                                                                            \
            printf("FAILED %s: ", case_name);                                                                                      \
            printf(__VA_ARGS__);                                                                                                   \
            printf("\n");                                                                                                          \
        }                                                                                                                          \
    } while (0)

/* ---- the input recipe ------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t draw(uint64_t seed, uint64_t stream, uint64_t i)
{
    return mix(mix(seed << 32 | stream) + (i + 1) * UINT64_C(0x9E3779B97F4A7C15));
}

static int64_t ih(uint64_t seed, uint64_t stream, uint64_t i)
{
    const uint64_t x = draw(seed, stream, i);
    return (int64_t)((x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48)) - 131070;
}

static uint32_t pick(uint64_t seed, uint64_t stream, uint64_t i, uint32_t n)
{
    return (uint32_t)(((draw(seed, stream, i) >> 32) * n) >> 32);
}

static float bf(int64_t v, int shift)
{
    return ca_bf16_to_f32(ca_f32_to_bf16(ldexpf((float)v, -shift)));
}

typedef struct params {
    uint32_t B, Hq, Hkv, D, L, Lq, block, C, seed, sink, window, last_n, min_budget, subgroup, permille, attend;
    double alpha;
} params;

typedef struct tensors {
    params p;
    uint32_t G, Qb, Kb, past;
    float *q, *k, *v;
    double *exact;  /* qk, seer: what the library should score, in float64 */
    double lengths; /* qk, seer: largest product of the lengths of two vectors that are compared: f32 errors are shares of it */
    double gap;     /* seer: largest relative difference between exact and the reference's scores */
} tensors;

static void make_inputs(tensors *t)
{
    const params *p = &t->p;
    const size_t nq = (size_t)p->B * p->Lq * p->Hq * p->D, nk = (size_t)p->B * p->L * p->Hkv * p->D;
    t->q = malloc(nq * 4);
    t->k = malloc(nk * 4);
    t->v = malloc(nk * 4);
    for (size_t b = 0; b < p->B; b++)
        for (size_t r = 0; r < p->L; r++)
            for (size_t kv = 0; kv < p->Hkv; kv++) {
                const size_t bh = b * p->Hkv + kv;
                const uint32_t c = pick(p->seed, 2, bh * t->Kb + r / p->block, p->C);
                const size_t at = ((b * p->L + r) * p->Hkv + kv) * p->D;
                for (size_t d = 0; d < p->D; d++) {
                    t->k[at + d] = bf(4 * ih(p->seed, 1, (bh * p->C + c) * p->D + d) + 2 * ih(p->seed, 3, at + d), 17);
                    t->v[at + d] = bf(ih(p->seed, 4, at + d), 15);
                }
            }
    for (size_t b = 0; b < p->B; b++)
        for (size_t r = 0; r < p->Lq; r++)
            for (size_t h = 0; h < p->Hq; h++) {
                const size_t kv = h / t->G, bh = b * p->Hkv + kv, bq = b * p->Hq + h;
                const uint32_t turn = pick(p->seed, 8, bq * t->Qb + r / p->block, 3);
                const uint32_t cs[3] = { pick(p->seed, 6, bh, p->C), pick(p->seed, 7, bq * 3, p->C),
                                         pick(p->seed, 7, bq * 3 + turn, p->C) };
                const size_t at = ((b * p->Lq + r) * p->Hq + h) * p->D;
                for (size_t d = 0; d < p->D; d++) {
                    int64_t sum = 0;
                    for (unsigned i = 0; i < 3; i++) sum += ih(p->seed, 1, (bh * p->C + cs[i]) * p->D + d);
                    t->q[at + d] = bf(2 * sum + 2 * ih(p->seed, 5, at + d), 17);
                }
            }
}

static uint32_t crc_of(const float *x, size_t n)
{
    uLong crc = crc32(0, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        const uint16_t b = ca_f32_to_bf16(x[i]);
        crc = crc32(crc, (const Bytef *)&b, 2);
    }
    return (uint32_t)crc;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

typedef struct golden {
    json_t *json;
    zip_t *zip;
} golden;

/* Data of a member behind its .npy header; NULL when there is none. *n receives the bytes. */
static void *array_bytes(const golden *g, const char *name, size_t *n)
{
    char member[80];
    zip_stat_t st;
    snprintf(member, sizeof member, "%s.npy", name);
    if (zip_stat(g->zip, member, 0, &st) != 0) return NULL;
    unsigned char *all = malloc(st.size);
    zip_file_t *f = zip_fopen(g->zip, member, 0);
    const zip_int64_t got = f ? zip_fread(f, all, st.size) : -1;
    if (f) zip_fclose(f);
    if (got != (zip_int64_t)st.size || st.size < 10) {
        free(all);
        return NULL;
    }
    const size_t head = 10 + (size_t)all[8] + (size_t)all[9] * 256;
    *n = st.size - head;
    memmove(all, all + head, *n);
    return all;
}

static void *array(const golden *g, const char *name)
{
    size_t n = 0;
    return array_bytes(g, name, &n);
}

static uint32_t u32_of(const json_t *object, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(object, key));
}

static tensors tensors_of(const golden *g)
{
    const json_t *j = json_object_get(g->json, "params");
    tensors t = { .p = { .B = u32_of(j, "B"),
                         .Hq = u32_of(j, "Hq"),
                         .Hkv = u32_of(j, "Hkv"),
                         .D = u32_of(j, "D"),
                         .L = u32_of(j, "L"),
                         .Lq = u32_of(j, "Lq"),
                         .block = u32_of(j, "block"),
                         .C = u32_of(j, "C"),
                         .seed = u32_of(j, "seed"),
                         .sink = u32_of(j, "sink"),
                         .window = u32_of(j, "window"),
                         .last_n = u32_of(j, "last_n"),
                         .min_budget = u32_of(j, "min_budget"),
                         .subgroup = u32_of(j, "subgroup"),
                         .permille = u32_of(j, "permille"),
                         .attend = u32_of(j, "attend"),
                         .alpha = json_number_value(json_object_get(j, "alpha")) } };
    t.G = t.p.Hq / t.p.Hkv;
    t.past = t.p.L - t.p.Lq;
    t.Qb = ca_ceil_div(t.p.Lq, t.p.block);
    t.Kb = ca_ceil_div(t.p.L, t.p.block);
    return t;
}

static void check_crc(const golden *g, const char *name, const float *x, size_t n)
{
    const json_t *in = json_object_get(json_object_get(g->json, "inputs"), name);
    CHECK((json_int_t)crc_of(x, n) == json_integer_value(json_object_get(in, "crc32_of_le_u16")), "input %s has another CRC", name);
}

/* ---- one case on one kernel set --------------------------------------------------------------------------------------------- */

typedef struct bench {
    tensors t;
    const ca_kern *kern;
    ca_cache *cache;
    ca_workspace ws;
} bench;

static bench bench_create(const tensors *t, const ca_kern *kern, const ca_select_opt *select)
{
    bench b = { .t = *t, .kern = kern };
    const params *p = &t->p;
    const bool values = t->k != NULL;
    const ca_cache_opt opt = { .n_layers = 1,
                               .n_kv_heads = p->Hkv,
                               .head_dim = values ? p->D : 16,
                               .page_tokens = p->block,
                               .max_seqs = p->B,
                               .capacity_tokens = (uint64_t)p->L * p->B,
                               .summaries = ca_select_summaries(select),
                               .gather_tokens = ca_select_gather_tokens(select, p->L),
                               .gate = select->seer.gate,
                               .kern = kern };
    must(ca_cache_create(&opt, &b.cache), "cache");
    const size_t stride = (size_t)p->Hkv * opt.head_dim;
    const float *zeros = calloc(p->L * stride, 4);
    for (uint32_t s = 0; s < p->B; s++) {
        const float *k = values ? t->k + s * p->L * stride : zeros, *v = values ? t->v + s * p->L * stride : zeros;
        must(ca_cache_append(b.cache, s, 0, &(ca_kv){ k, v, stride, .k_raw = k, .raw_stride = stride }, p->L), "append");
    }
    free((void *)(uintptr_t)zeros);
    b.ws.size = ca_table_ws_bytes(b.cache, p->Hq, p->Lq, p->L) * 4 + ca_attend_ws_bytes(b.cache, p->Hq, p->Lq, 2) +
                ca_select_ws_bytes(b.cache, select, p->Hq, p->Lq, p->L) + ((size_t)1 << 20);
    b.ws.base = aligned_alloc(64, ca_align_up(b.ws.size, 64));
    return b;
}

static void bench_destroy(bench *b)
{
    ca_cache_destroy(b->cache);
    free(b->ws.base);
}

static ca_chunk chunk_of(const tensors *t, uint32_t seq)
{
    return (ca_chunk){ .seq = seq, .pos = t->past, .n_tokens = t->p.Lq, .n_heads = t->p.Hq };
}

static bool bit(const uint64_t *bits, uint32_t j)
{
    return bits[j / 64] >> (j % 64) & 1;
}

/* Selects and unions one sequence; want arrays are the reference's. A ragged last Q block is compared as a subset: the reference
 * lets its padding vote. */
static void check_selection(bench *b, uint32_t seq, const uint8_t *active, const uint8_t *keep_q, const uint8_t *keep_kv,
                            const char *means)
{
    const tensors *t = &b->t;
    const params *p = &t->p;
    const ca_chunk chunk = chunk_of(t, seq);
    const float *q = t->q + (size_t)seq * p->Lq * p->Hq * p->D;
    const size_t stride = (size_t)p->Hq * p->D;
    const bool ragged = p->Lq % p->block != 0;
    ca_select_opt opt;
    ca_select_defaults(CA_SELECT_FLASHPREFILL, &opt);
    opt.flashprefill = (ca_flashprefill_opt){ .alpha = (float)p->alpha,
                                              .sink = p->sink * p->block,
                                              .window = p->window * p->block,
                                              .last_dense = p->last_n,
                                              .min_budget = p->min_budget };
    b->ws.used = 0;
    ca_mask m;
    must(ca_mask_create(b->cache, &chunk, 0, p->Lq, &b->ws, &m), "mask");
    must(ca_select(b->cache, &opt, &chunk, &(ca_queries){ .q = q, .stride = stride }, &b->ws, &m, NULL), "select");
    unsigned wrong = 0, extra = 0;
    for (uint32_t h = 0; h < p->Hq; h++)
        for (uint32_t i = 0; i < t->Qb; i++)
            for (uint32_t j = 0; j < t->Kb; j++) {
                const bool ours = bit(m.bits + ((size_t)h * t->Qb + i) * m.words, j);
                const bool ref = active[(((size_t)seq * p->Hq + h) * t->Qb + i) * t->Kb + j];
                if (ragged && i == t->Qb - 1)
                    extra += ours && !ref;
                else
                    wrong += ours != ref;
            }
    CHECK(wrong == 0, "%s, %s means, sequence %u: %u block choices differ from the reference", b->kern->name, means, seq, wrong);
    CHECK(extra == 0, "%s, %s means: %u blocks of the ragged Q block are not among the reference's", b->kern->name, means, extra);

    opt.flashprefill.last_dense = 0;
    opt.flashprefill.last_mute = p->last_n;
    must(ca_mask_create(b->cache, &chunk, 0, p->Lq, &b->ws, &m), "mask");
    must(ca_select(b->cache, &opt, &chunk, &(ca_queries){ .q = q, .stride = stride }, &b->ws, &m, NULL), "select");
    uint64_t *qu = calloc((size_t)p->Hq * m.words, 8), *gu = calloc((size_t)p->Hkv * m.words, 8);
    ca_mask_union(&m, t->G, qu, gu);
    wrong = extra = 0;
    unsigned kept = 0;
    for (uint32_t h = 0; h < p->Hq; h++)
        for (uint32_t j = 0; j < t->Kb; j++) {
            const bool ours = bit(qu + (size_t)h * m.words, j), ref = keep_q[((size_t)seq * p->Hq + h) * t->Kb + j];
            if (ragged ? ours && !ref : ours != ref) wrong++;
        }
    for (uint32_t h = 0; h < p->Hkv; h++)
        for (uint32_t j = 0; j < t->Kb; j++) {
            const bool ours = bit(gu + (size_t)h * m.words, j), ref = keep_kv[((size_t)seq * p->Hkv + h) * t->Kb + j];
            if (ragged ? ours && !ref : ours != ref) extra++;
            kept += ours;
        }
    CHECK(wrong == 0, "%s, %s means, sequence %u: %u bits of the Q-block union differ", b->kern->name, means, seq, wrong);
    CHECK(extra == 0, "%s, %s means, sequence %u: %u bits of the group union differ", b->kern->name, means, seq, extra);
    CHECK(kept >= p->Hkv * (t->Qb + 1), "%s: the union keeps next to nothing", b->kern->name);
    free(qu);
    free(gu);
}

/* Overwrites the cache's mean keys with the reference's own, which are not reproducible to the bit. */
static void use_reference_means(const bench *b, const uint16_t *mean_k)
{
    const params *p = &b->t.p;
    for (size_t s = 0; s < p->B; s++)
        for (size_t j = 0; j < b->t.Kb; j++)
            for (size_t h = 0; h < p->Hkv; h++) {
                float *panel = ca_cache_head(b->cache, (uint32_t)s, 0, (uint32_t)h)->mean_k + j / 16 * p->D * 16 + j % 16;
                for (size_t d = 0; d < p->D; d++)
                    panel[d * 16] = ca_bf16_to_f32(mean_k[((s * b->t.Kb + j) * p->Hkv + h) * p->D + d]);
            }
}

/* A page list as the reference names pages: (sequence * Hkv + KV head) * Kb + block. */
static void check_pages(const bench *b, const ca_table *table, uint32_t seq, uint32_t rows_per_seq, const int32_t *indptr,
                        const int32_t *indices, const char *what)
{
    unsigned wrong = table->n_rows != rows_per_seq;
    for (uint32_t r = 0; r < table->n_rows && !wrong; r++) {
        const ca_row *row = &table->rows[r];
        const int32_t *want = indices + indptr[seq * rows_per_seq + r];
        const uint32_t n = (uint32_t)(indptr[seq * rows_per_seq + r + 1] - indptr[seq * rows_per_seq + r]);
        wrong += n != row->n_pages;
        for (uint32_t i = 0; i < n && i < row->n_pages; i++) {
            const uint32_t block = ca_page_pos(b->cache, table->pages[row->first_page + i]) / b->t.p.block;
            wrong += (int32_t)((seq * b->t.p.Hkv + row->kv_head) * b->t.Kb + block) != want[i];
        }
    }
    CHECK(wrong == 0, "%s, sequence %u: page table %s differs (%u places)", b->kern->name, seq, what, wrong);
}

/* Outputs of a whole chunk, f32 [Lq][Hq][D]. */
static float *attend(bench *b, const ca_table *table, uint32_t seq)
{
    const params *p = &b->t.p;
    const size_t stride = (size_t)p->Hq * p->D;
    float *o = malloc((size_t)p->Lq * stride * 4);
    must(ca_attend(b->cache, table, 1.0F / sqrtf((float)p->D), b->t.q + (size_t)seq * p->Lq * stride, stride, o, stride, CA_F32, 2,
                   &b->ws),
         "attend");
    return o;
}

/* Runs a table and compares the stored rows with the float64 answer. */
static void check_output(bench *b, const ca_table *table, uint32_t seq, const int32_t *rows, size_t n_rows, const float *want,
                         const char *what)
{
    const params *p = &b->t.p;
    const size_t stride = (size_t)p->Hq * p->D;
    float *o = attend(b, table, seq);
    float *got = malloc(n_rows * stride * 4);
    for (size_t i = 0; i < n_rows; i++) memcpy(got + i * stride, o + (size_t)rows[i] * stride, stride * 4);
    const double err = relative_error(got, want + seq * n_rows * stride, n_rows * stride);
    /* The reference's own bf16 outputs are 1.2e-3 to 2.3e-3 off; ours are not rounded at the end. */
    const double bound = b->kern->type == CA_BF16 ? 2.3e-3 : 2e-6;
    CHECK(err <= bound, "%s, sequence %u: %s is off by %.3g (bound %.3g)", b->kern->name, seq, what, err, bound);
    free(o);
    free(got);
}

static ca_mask mask_of(bench *b, uint32_t seq)
{
    ca_mask m;
    const ca_chunk chunk = chunk_of(&b->t, seq);
    must(ca_mask_create(b->cache, &chunk, 0, b->t.p.Lq, &b->ws, &m), "mask");
    return m;
}

static ca_table table_of(bench *b, uint32_t seq)
{
    ca_table table;
    const ca_chunk chunk = chunk_of(&b->t, seq);
    must(ca_table_create(b->cache, &chunk, &b->ws, &table), "table");
    return table;
}

static ca_select_opt select_of(ca_selector selector)
{
    ca_select_opt opt;
    ca_select_defaults(selector, &opt);
    return opt;
}

static void flashprefill_case(const golden *g, const ca_kern *kern, const tensors *t)
{
    const params *p = &t->p;
    const ca_select_opt opt = select_of(CA_SELECT_FLASHPREFILL);
    bench b = bench_create(t, kern, &opt);
    uint8_t *active = array(g, "active"), *keep_q = array(g, "keep_q"), *keep_kv = array(g, "keep_kv");
    uint16_t *mean_k = array(g, "mean_k");
    int32_t *indptr = array(g, "kv_indptr"), *indices = array(g, "kv_indices");
    float *sparse = array(g, "out_block_sparse_f64"), *compact = array(g, "out_compact_f64");
    size_t n_rows = 0;
    int32_t *rows = array_bytes(g, "rows", &n_rows);
    n_rows /= 4;
    for (uint32_t seq = 0; seq < p->B; seq++) check_selection(&b, seq, active, keep_q, keep_kv, "own");
    use_reference_means(&b, mean_k);
    for (uint32_t seq = 0; seq < p->B; seq++) check_selection(&b, seq, active, keep_q, keep_kv, "reference");

    for (uint32_t seq = 0; seq < p->B; seq++) { /* the executions, given the reference's masks */
        b.ws.used = 0;
        ca_mask m = mask_of(&b, seq);
        for (size_t r = 0; r < (size_t)p->Hq * t->Qb; r++)
            for (uint32_t j = 0; j < t->Kb; j++)
                if (active[((size_t)seq * p->Hq * t->Qb + r) * t->Kb + j]) m.bits[r * m.words + j / 64] |= UINT64_C(1) << (j % 64);
        ca_table table = table_of(&b, seq);
        must(ca_table_add_block_sparse(b.cache, &m, &table), "block_sparse");
        check_output(&b, &table, seq, rows, n_rows, sparse, "block_sparse");

        b.ws.used = 0;
        m = mask_of(&b, seq);
        for (size_t h = 0; h < p->Hq; h++)
            for (uint32_t j = 0; j < t->Kb; j++)
                if (keep_kv[((size_t)seq * p->Hkv + h / t->G) * t->Kb + j])
                    m.bits[h * t->Qb * m.words + j / 64] |= UINT64_C(1) << (j % 64);
        table = table_of(&b, seq);
        must(ca_table_add_compact(b.cache, &m, &(ca_table_opt){ 0 }, &table), "compact");
        if (indptr) check_pages(&b, &table, seq, p->Hkv, indptr, indices, "kv");
        if (compact) check_output(&b, &table, seq, rows, n_rows, compact, "compactattn");
    }
    free(active), free(keep_q), free(keep_kv), free(mean_k), free(indptr), free(indices), free(sparse), free(compact), free(rows);
    bench_destroy(&b);
}

static void unions_case(const golden *g, const ca_kern *kern, const tensors *t)
{
    const params *p = &t->p;
    const ca_select_opt none = select_of(CA_SELECT_NONE);
    bench b = bench_create(t, kern, &none);
    const struct {
        const char *name;
        uint32_t heads;
    } shapes[] = { { "kv", t->G }, { "qh", 1 }, { "sub", p->subgroup } };
    size_t n_rows = 0;
    int32_t *rows = array_bytes(g, "rows", &n_rows);
    n_rows /= 4;
    for (unsigned s = 0; s < 3; s++) {
        char name[40];
        snprintf(name, sizeof name, "kv_indptr_%s", shapes[s].name);
        int32_t *indptr = array(g, name);
        snprintf(name, sizeof name, "kv_indices_%s", shapes[s].name);
        int32_t *indices = array(g, name);
        snprintf(name, sizeof name, "out_%s_f64", shapes[s].name);
        float *want = array(g, name);
        for (uint32_t seq = 0; seq < p->B; seq++) {
            b.ws.used = 0;
            const ca_mask m = mask_of(&b, seq);
            for (uint32_t h = 0; h < p->Hq; h++)
                for (uint32_t j = 0; j < t->Kb; j++)
                    if (pick(p->seed, 11, ((uint64_t)seq * p->Hq + h) * t->Kb + j, 1000) < p->permille)
                        m.bits[((size_t)h * m.n_qblocks + j % m.n_qblocks) * m.words + j / 64] |= UINT64_C(1) << (j % 64);
            ca_table table = table_of(&b, seq);
            must(ca_table_add_compact(b.cache, &m, &(ca_table_opt){ .heads_per_row = shapes[s].heads }, &table), "compact");
            check_pages(&b, &table, seq, p->Hq / shapes[s].heads, indptr, indices, shapes[s].name);
            if (want) check_output(&b, &table, seq, rows, n_rows, want, shapes[s].name);
        }
        free(indptr), free(indices), free(want);
    }
    free(rows);
    bench_destroy(&b);
}

/* ---- QUOKA ------------------------------------------------------------------------------------------------------------------ */

static double number_of(const golden *g, const char *key)
{
    return json_number_value(json_object_get(json_object_get(g->json, "params"), key));
}

static uint32_t count_of(const golden *g, const char *key)
{
    return u32_of(json_object_get(g->json, "params"), key);
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static double length(const double *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static const float *query_at(const tensors *t, size_t seq, size_t row, size_t head)
{
    return t->q + ((seq * t->p.Lq + row) * t->p.Hq + head) * t->p.D;
}

static const float *key_at(const tensors *t, const float *x, size_t seq, size_t pos, size_t kv)
{
    return x + ((seq * t->p.L + pos) * t->p.Hkv + kv) * t->p.D;
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* How many of the n numbers, which should ascend and name the n largest scores, do not. Scores closer than margin to the n-th
 * largest may be in or out. */
static uint32_t misfits(const double *score, uint32_t total, const uint32_t *chosen, uint32_t n, double margin)
{
    double *sorted = malloc((total + 1) * sizeof *sorted);
    memcpy(sorted, score, total * sizeof *sorted);
    qsort(sorted, total, sizeof *sorted, descending);
    const double cut = sorted[n - 1];
    free(sorted);
    uint32_t wrong = 0, at = 0;
    for (uint32_t i = 0; i < total; i++) {
        const bool in = at < n && chosen[at] == i;
        at += in;
        wrong += in ? score[i] < cut - margin : score[i] > cut + margin;
    }
    return wrong + (n - at);
}

/* -cosine of every query of a head to their mean. */
static void unlikeness(const tensors *t, size_t seq, size_t head, double *out)
{
    const params *p = &t->p;
    double mean[256] = { 0 };
    for (size_t r = 0; r < p->Lq; r++)
        for (size_t d = 0; d < p->D; d++) mean[d] += (double)query_at(t, seq, r, head)[d] / p->Lq;
    for (size_t r = 0; r < p->Lq; r++) {
        const float *q = query_at(t, seq, r, head);
        double along = 0.0;
        for (size_t d = 0; d < p->D; d++) along += (double)q[d] * mean[d];
        out[r] = -along / (sqrt(dot(q, q, p->D)) * length(mean, p->D));
    }
}

/* Scores of the past of one KV head when slot a pairs the queries order[h][a] of its heads; returns the longest average. */
static double token_scores(const tensors *t, size_t seq, size_t kv, const uint32_t *order, size_t n, double *score)
{
    const params *p = &t->p;
    double longest = 0.0, key[256], *ubar = calloc(n * p->D, sizeof *ubar);
    for (size_t a = 0; a < n; a++) {
        for (size_t h = kv * t->G; h < (kv + 1) * t->G; h++) {
            const float *q = query_at(t, seq, order[(seq * p->Hq + h) * n + a], h);
            const double weight = 1.0 / (sqrt(dot(q, q, p->D)) * t->G);
            for (size_t d = 0; d < p->D; d++) ubar[a * p->D + d] += (double)q[d] * weight;
        }
        longest = fmax(longest, length(ubar + a * p->D, p->D));
    }
    for (size_t i = 0; i < t->past; i++) {
        const float *k = key_at(t, t->k, seq, i, kv);
        const double size = sqrt(dot(k, k, p->D));
        for (size_t d = 0; d < p->D; d++) key[d] = (double)k[d] / size;
        score[i] = -INFINITY;
        for (size_t a = 0; a < n; a++) {
            double sum[4] = { 0 };
            for (size_t d = 0; d < p->D; d += 4)
                for (size_t l = 0; l < 4; l++) sum[l] += ubar[a * p->D + d + l] * key[d + l];
            score[i] = fmax(score[i], sum[0] + sum[1] + sum[2] + sum[3]);
        }
    }
    free(ubar);
    return longest;
}

/* The reference's own numbers, rebuilt in float64: what a query's cosine is, which queries and tokens follow, and the scores in its
 * pairing. t->exact then gets the scores in ascending pairing, the library's. The bounds are those of the reference's f32 sums. */
static void quoka_prepare(const golden *g, tensors *t)
{
    const params *p = &t->p;
    const uint32_t n = count_of(g, "query_count"), budget = count_of(g, "kv_budget");
    float *cosine = array(g, "query_cos_f32"), *ref = array(g, "token_score_f32");
    uint32_t *ascending = array(g, "query_idx_f32"), *order = array(g, "query_order_f32"), *token_idx = array(g, "token_idx_f32");
    const double bound = 1e-6;
    double *unlike = malloc(p->Lq * sizeof *unlike), *score = malloc(t->past * sizeof *score), far_cos = 0.0, far = 0.0;
    uint32_t wrong = 0, wrong_tokens = 0;
    t->exact = malloc((size_t)p->B * p->Hkv * t->past * sizeof *t->exact);
    for (size_t r = 0; r < (size_t)p->B * p->Hq; r++) {
        unlikeness(t, r / p->Hq, r % p->Hq, unlike);
        for (size_t i = 0; i < p->Lq; i++) far_cos = fmax(far_cos, fabs(unlike[i] + (double)cosine[r * p->Lq + i]));
        wrong += misfits(unlike, p->Lq, ascending + r * n, n, 2 * bound);
    }
    for (size_t r = 0; r < (size_t)p->B * p->Hkv; r++) {
        token_scores(t, r / p->Hkv, r % p->Hkv, order, n, score);
        for (size_t i = 0; i < t->past; i++) far = fmax(far, fabs(score[i] - (double)ref[r * t->past + i]));
        wrong_tokens += misfits(score, t->past, token_idx + r * budget, budget, 2 * bound);
        t->lengths = fmax(t->lengths, token_scores(t, r / p->Hkv, r % p->Hkv, ascending, n, t->exact + r * t->past));
    }
    CHECK(far_cos <= bound, "cosines of the queries are %.3g from the reference's", far_cos);
    CHECK(wrong == 0, "%u chosen queries are not the reference's", wrong);
    CHECK(far <= bound, "token scores in the reference's pairing are %.3g from its own", far);
    CHECK(wrong_tokens == 0, "%u tokens are not the reference's in its own pairing", wrong_tokens);
    free(cosine), free(ref), free(ascending), free(order), free(token_idx), free(unlike), free(score);
}

/* Attention of some rows over listed tokens of the past, per KV head, and the current chunk up to the row: f32 [n_rows][Hq][D]. */
static void attend_tokens(const tensors *t, size_t seq, const uint32_t *tokens, size_t stride, uint32_t n, const int32_t *rows,
                          size_t n_rows, float *out)
{
    const params *p = &t->p;
    double *weight = malloc((n + p->Lq) * sizeof *weight);
    for (size_t i = 0; i < n_rows * p->Hq; i++) {
        const uint32_t row = (uint32_t)rows[i / p->Hq], kv = (uint32_t)(i % p->Hq) / t->G, seen = n + row + 1;
        double top = -INFINITY, sum = 0.0, o[256] = { 0 };
        for (uint32_t j = 0; j < seen; j++) {
            const uint32_t pos = j < n ? tokens[kv * stride + j] : t->past + (j - n);
            weight[j] = dot(query_at(t, seq, row, i % p->Hq), key_at(t, t->k, seq, pos, kv), p->D) / sqrt(p->D);
            top = fmax(top, weight[j]);
        }
        for (uint32_t j = 0; j < seen; j++) {
            const uint32_t pos = j < n ? tokens[kv * stride + j] : t->past + (j - n);
            weight[j] = exp(weight[j] - top);
            sum += weight[j];
            for (size_t d = 0; d < p->D; d++) o[d] += weight[j] * (double)key_at(t, t->v, seq, pos, kv)[d];
        }
        for (size_t d = 0; d < p->D; d++) out[i * p->D + d] = (float)(o[d] / sum);
    }
    free(weight);
}

/* Chooses and gathers tokens of one sequence; a table of one row per KV head. */
static ca_table gathered_table(bench *b, const ca_select_opt *opt, uint32_t seq, uint32_t *tokens, uint32_t *n, float *scores)
{
    const params *p = &b->t.p;
    const ca_chunk chunk = chunk_of(&b->t, seq);
    const size_t stride = b->cache->opt.gather_tokens;
    uint32_t *pages = calloc((size_t)p->Hkv * b->t.Kb, 4), *n_pages = calloc(p->Hkv, 4);
    b->ws.used = 0;
    must(ca_select_tokens(b->cache, opt, &chunk, &(ca_queries){ .q = query_at(&b->t, seq, 0, 0), .stride = (size_t)p->Hq * p->D },
                          &b->ws, tokens, n, scores),
         "select_tokens");
    for (uint32_t kv = 0; kv < p->Hkv; kv++) {
        must(ca_cache_gather(b->cache, seq, 0, kv, tokens + kv * stride, *n, pages + (size_t)kv * b->t.Kb), "gather");
        n_pages[kv] = ca_ceil_div(*n, p->block);
    }
    ca_table table = table_of(b, seq);
    must(ca_table_add_gathered(b->cache, 0, p->Lq, pages, b->t.Kb, n_pages, &table), "gathered");
    free(pages), free(n_pages);
    return table;
}

static void quoka_case(const golden *g, const ca_kern *kern, const tensors *t)
{
    const params *p = &t->p;
    const size_t width = (size_t)p->Hq * p->D;
    const uint32_t budget = count_of(g, "kv_budget"), last = p->Lq - 1;
    const int32_t rows[] = { 0, 1, (int32_t)last / 3, (int32_t)last };
    const size_t n_rows = sizeof rows / sizeof rows[0];
    ca_select_opt opt = select_of(CA_SELECT_QUOKA);
    opt.quoka = (ca_quoka_opt){ .query_ratio = (float)number_of(g, "query_ratio"), .kv_ratio = 1.0F };
    bench b = bench_create(t, kern, &opt);
    const size_t stride = b.cache->opt.gather_tokens;
    uint32_t *tokens = malloc(p->Hkv * stride * 4), *ref = array(g, "token_idx_f32"), shared = 0;
    float *scores = malloc((size_t)p->Hkv * t->past * 4), *want = malloc(p->B * n_rows * width * 4);
    /* f32: D products, G + 4 other roundings. bf16: each element of the averaged query is up to 2^-8 off, with random signs: half of
     * the worst case. One query chosen otherwise would move later slots and scores by far more. */
    const double bound = t->lengths * (kern->type == CA_BF16 ? 0x1p-9 : (p->D + t->G + 4) * 0x1p-24);
    CHECK(t->past % p->block == 0, "the past of %u tokens is not whole pages of %u", t->past, p->block);
    for (uint32_t seq = 0; seq < p->B; seq++) {
        uint32_t n = 0;
        ca_table table = gathered_table(&b, &opt, seq, tokens, &n, NULL); /* kv_ratio 1 is dense attention, to the bit */
        CHECK(n == t->past, "%s: kv_ratio 1 chose %u of %u tokens", kern->name, n, t->past);
        float *all = attend(&b, &table, seq);
        table = table_of(&b, seq);
        must(ca_table_add_dense(b.cache, 0, p->Lq, &table), "dense");
        float *dense = attend(&b, &table, seq);
        CHECK(memcmp(all, dense, p->Lq * width * 4) == 0, "%s, sequence %u: kv_ratio 1 is not dense attention", kern->name, seq);
        free(all), free(dense);

        ca_select_opt some = opt;
        some.quoka.kv_ratio = (float)number_of(g, "kv_budget_ratio");
        table = gathered_table(&b, &some, seq, tokens, &n, scores);
        CHECK(n == budget, "%s, sequence %u: %u tokens chosen, not %u", kern->name, seq, n, budget);
        for (size_t kv = 0; kv < p->Hkv && n == budget; kv++) {
            const size_t r = seq * p->Hkv + kv;
            double far = 0.0;
            for (size_t i = 0; i < t->past; i++)
                far = fmax(far, fabs((double)scores[kv * t->past + i] - t->exact[r * t->past + i]));
            CHECK(far <= bound, "%s, sequence %u, KV head %zu: token scores are off by %.3g (bound %.3g)", kern->name, seq, kv, far,
                  bound);
            const uint32_t wrong = misfits(t->exact + r * t->past, t->past, tokens + kv * stride, n, 2 * far);
            CHECK(wrong == 0, "%s, sequence %u, KV head %zu: %u tokens are not among the best", kern->name, seq, kv, wrong);
            for (uint32_t i = 0, j = 0; i < n && j < n;) {
                const uint32_t ours = tokens[kv * stride + i], theirs = ref[r * n + j];
                shared += ours == theirs;
                i += ours <= theirs, j += theirs <= ours;
            }
        }
        attend_tokens(t, seq, tokens, stride, n, rows, n_rows, want + seq * n_rows * width);
        check_output(&b, &table, seq, rows, n_rows, want, "quoka");
    }
    const double overlap = shared / ((double)p->B * p->Hkv * budget);
    const double least = number_of(g, "token_overlap_if_queries_are_paired_in_plain_ascending_order") - 5e-5;
    const double slack = kern->type == CA_BF16 ? 0.01 : 1.0 / budget; /* tokens at the cut: one in each list for f32 */
    CHECK(overlap >= least - slack, "%s: %.4f of the reference's tokens are chosen (bound %.4f)", kern->name, overlap,
          least - slack);
    free(tokens), free(ref), free(scores), free(want);
    bench_destroy(&b);
}

/* ---- SeerAttention's gate --------------------------------------------------------------------------------------------------- */

typedef struct weights {
    uint32_t q_heads, k_heads; /* q_heads = 0: queries are not projected */
    float *wq, *wk;
    double freq[64];
} weights;

enum { HIDDEN = 128 };

static float *make_weight(const golden *g, const char *shape_key, uint64_t stream, uint32_t in, uint32_t *heads)
{
    const json_t *shape = json_object_get(json_object_get(g->json, "params"), shape_key);
    *heads = (uint32_t)json_integer_value(json_array_get(shape, 0));
    if (*heads == 0) return NULL;
    CHECK(json_integer_value(json_array_get(shape, 1)) == in && json_integer_value(json_array_get(shape, 2)) == HIDDEN,
          "%s is not [heads, %u, %d]", shape_key, in, HIDDEN);
    const size_t n = (size_t)*heads * in * HIDDEN;
    const int shift = (int)count_of(g, "weight_shift");
    float *w = malloc(n * sizeof *w);
    for (size_t i = 0; i < n; i++) w[i] = bf(ih(count_of(g, "seed"), stream, i), shift);
    return w;
}

static weights weights_of(const golden *g, const tensors *t)
{
    weights w = { 0 };
    w.wq = make_weight(g, "mask_linear_q_weight_shape", 9, t->p.D, &w.q_heads);
    w.wk = make_weight(g, "mask_linear_k_weight_shape", 10, 3 * t->p.D, &w.k_heads);
    for (unsigned i = 0; i < HIDDEN / 2; i++) w.freq[i] = pow(number_of(g, "rope_theta"), -2.0 * i / HIDDEN);
    return w;
}

static void weights_free(weights *w)
{
    free(w->wq), free(w->wk);
}

/* Max, min and mean [3][D] of the n tokens at x. */
static void pool(const float *x, size_t stride, size_t n, size_t dim, double *out)
{
    for (size_t d = 0; d < dim; d++) {
        double most = -INFINITY, least = INFINITY, sum = 0.0;
        for (size_t i = 0; i < n; i++) {
            const double v = (double)x[i * stride + d];
            most = fmax(most, v), least = fmin(least, v), sum += v;
        }
        out[d] = most, out[dim + d] = least, out[2 * dim + d] = sum / (double)n;
    }
}

/* y[HIDDEN] = x W, rotated by the cosines and sines of a block, f64 [HIDDEN/2] each. */
static void project(const double *x, const float *w, size_t in, const double *cosine, const double *sine, double *y)
{
    for (size_t j = 0; j < HIDDEN; j++) y[j] = w ? 0.0 : x[j];
    for (size_t i = 0; w && i < in; i++)
        for (size_t j = 0; j < HIDDEN; j++) y[j] += x[i] * (double)w[i * HIDDEN + j];
    for (size_t j = 0; j < HIDDEN / 2; j++) {
        const double a = y[j], b = y[j + HIDDEN / 2];
        y[j] = a * cosine[j] - b * sine[j];
        y[j + HIDDEN / 2] = b * cosine[j] + a * sine[j];
    }
}

/* Gate scores [B][Hq][Qb][Kb] in float64, from cosines and sines [Kb][HIDDEN/2] of the blocks. Returns the largest |q| |k|. */
static double gate_scores(const tensors *t, const weights *w, const double *cosine, const double *sine, double *score)
{
    const params *p = &t->p;
    const size_t in = 3 * (size_t)p->D, per_head = in * HIDDEN, half = HIDDEN / 2;
    double *keys = malloc((size_t)t->Kb * HIDDEN * sizeof *keys), pooled[3 * 256], q[HIDDEN], lengths = 0.0;
    for (size_t r = 0; r < (size_t)p->B * p->Hq; r++) {
        const size_t seq = r / p->Hq, h = r % p->Hq, kv = h / t->G;
        for (size_t j = 0; j < t->Kb; j++) {
            pool(key_at(t, t->k, seq, j * p->block, kv), (size_t)p->Hkv * p->D, p->block, p->D, pooled);
            project(pooled, w->wk + (w->q_heads ? kv : h) * per_head, in, cosine + j * half, sine + j * half, keys + j * HIDDEN);
        }
        for (size_t i = 0; i < t->Qb; i++) {
            const size_t diag = t->Kb - t->Qb + i;
            double *row = score + (r * t->Qb + i) * t->Kb, top = -INFINITY, sum = 0.0;
            pool(query_at(t, seq, i * p->block, h), (size_t)p->Hq * p->D, p->block, p->D, pooled);
            project(pooled + 2 * (size_t)p->D, w->wq ? w->wq + h * p->D * HIDDEN : NULL, p->D, cosine + diag * half,
                    sine + diag * half, q);
            for (size_t j = 0; j <= diag; j++) {
                row[j] = 0.0;
                for (size_t d = 0; d < HIDDEN; d++) row[j] += q[d] * keys[j * HIDDEN + d] / sqrt(HIDDEN);
                top = fmax(top, row[j]);
                lengths = fmax(lengths, length(q, HIDDEN) * length(keys + j * HIDDEN, HIDDEN));
            }
            for (size_t j = 0; j <= diag; j++) sum += row[j] = exp(row[j] - top);
            for (size_t j = 0; j < t->Kb; j++) row[j] = j <= diag ? row[j] / sum : 0.0;
        }
    }
    free(keys);
    return lengths;
}

/* Relative difference of two softmax scores; 0 where both are in the future. */
static double score_gap(double a, double b)
{
    return fabs(a - b) / (b + 1e-30);
}

/* What f32 may do to a softmax score, relatively: logits are off by four roundings (two projections, rotation, dot product) of the
 * vectors' lengths, and so is the sum below the fraction. */
static double gate_bound(const tensors *t)
{
    return 2 * 4 * 0x1p-24 * t->lengths / sqrt(HIDDEN);
}

/* Rebuilds the reference's scores from its tables of cosines and sines, which hold angles rounded to f32, then those from exact
 * angles, the library's: t->exact. */
static void seer_prepare(const golden *g, tensors *t)
{
    const params *p = &t->p;
    weights w = weights_of(g, t);
    const size_t n = (size_t)p->B * p->Hq * t->Qb * t->Kb, n_angles = (size_t)t->Kb * HIDDEN / 2;
    float *cos_f32 = array(g, "cos_f32"), *sin_f32 = array(g, "sin_f32"), *ref = array(g, "gate_score_f32");
    double *cosine = malloc(n_angles * sizeof *cosine), *sine = malloc(n_angles * sizeof *sine);
    t->exact = malloc(n * sizeof *t->exact);
    CHECK(p->D == HIDDEN && p->block == 64 && t->past % p->block == 0 && p->Lq % p->block == 0, "a shape that is not covered");
    double far = 0.0, far_angle = 0.0;
    for (size_t i = 0; i < n_angles; i++) {
        const size_t j = i / (HIDDEN / 2), d = i % (HIDDEN / 2);
        cosine[i] = (double)cos_f32[j * HIDDEN + d], sine[i] = (double)sin_f32[j * HIDDEN + d];
    }
    t->lengths = gate_scores(t, &w, cosine, sine, t->exact);
    for (size_t i = 0; i < n; i++) far = fmax(far, score_gap(t->exact[i], (double)ref[i]));
    CHECK(far <= gate_bound(t), "gate scores from the reference's angles are %.3g from its own (bound %.3g)", far, gate_bound(t));
    for (size_t i = 0; i < n_angles; i++) {
        const size_t pos = i / (HIDDEN / 2) * p->block;
        const double angle = (double)pos * w.freq[i % (HIDDEN / 2)];
        far_angle = fmax(far_angle, fmax(fabs(cosine[i] - cos(angle)), fabs(sine[i] - sin(angle))) - angle * 0x1p-22);
        cosine[i] = cos(angle), sine[i] = sin(angle);
    }
    CHECK(far_angle <= 0x1p-23, "the reference's cosines and sines are %.3g off beside the rounding of angles", far_angle);
    gate_scores(t, &w, cosine, sine, t->exact);
    for (size_t i = 0; i < n; i++) t->gap = fmax(t->gap, score_gap(t->exact[i], (double)ref[i]));
    CHECK(t->gap <= p->L * 0x1p-22, "gate scores from exact angles are %.3g from the reference's", t->gap);
    free(cos_f32), free(sin_f32), free(ref), free(cosine), free(sine);
    weights_free(&w);
}

static ca_gate *gate_of(const tensors *t, const weights *w)
{
    ca_gate *gate = NULL;
    must(ca_gate_create(&(ca_gate_opt){ .n_layers = 1,
                                        .n_heads = t->p.Hq,
                                        .n_kv_heads = t->p.Hkv,
                                        .head_dim = t->p.D,
                                        .hidden = HIDDEN,
                                        .block = t->p.block,
                                        .q_pool = CA_POOL_AVG,
                                        .k_pool = CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG,
                                        .layout = w->q_heads ? CA_GATE_DOUBLE : CA_GATE_SINGLE,
                                        .inv_freq = w->freq,
                                        .rotary = HIDDEN,
                                        .rope_scale = 1.0F },
                        &gate),
         "gate");
    must(ca_gate_set_layer(gate, 0, w->wk, w->wq), "gate weights");
    return gate;
}

/* The cache's projected keys, rotated back, against k_gate_f32 [B][Kb][k heads][HIDDEN]. */
static void check_gate_keys(const bench *b, const ca_gate *gate, const weights *w, const float *want)
{
    const tensors *t = &b->t;
    const size_t n = (size_t)t->p.B * t->Kb * w->k_heads * HIDDEN;
    const uint32_t per_kv = w->k_heads / t->p.Hkv;
    float *got = malloc(n * sizeof *got), cos_sin[HIDDEN];
    for (size_t r = 0; r < n / HIDDEN; r++) {
        const size_t seq = r / w->k_heads / t->Kb, j = r / w->k_heads % t->Kb, h = r % w->k_heads;
        const float *panel = ca_cache_head(b->cache, (uint32_t)seq, 0, (uint32_t)h / per_kv)->gate_k +
                             (h % per_kv) * b->cache->blocks_cap * HIDDEN + j / 16 * HIDDEN * 16 + j % 16;
        for (size_t d = 0; d < HIDDEN; d++) got[r * HIDDEN + d] = panel[d * 16];
        ca_gate_cos_sin(gate, (uint32_t)j * t->p.block, cos_sin);
        for (size_t d = HIDDEN / 2; d < HIDDEN; d++) cos_sin[d] = -cos_sin[d];
        ca_gate_rotate(gate, cos_sin, got + r * HIDDEN);
    }
    const double err = relative_error(got, want, n);
    CHECK(err <= 1e-6, "%s: projected keys are off by %.3g", b->kern->name, err);
    free(got);
}

/* One sequence at one threshold: scores, the unions of both kinds. Choices may differ where a score of the reference is as close to
 * the threshold as it is to ours. Returns the mask, in the workspace. */
static ca_mask check_gate(bench *b, ca_select_opt *opt, uint32_t seq, const float *score, const uint8_t *keep_q,
                          const uint8_t *keep_kv, uint32_t recent)
{
    const tensors *t = &b->t;
    const params *p = &t->p;
    const size_t stride = (size_t)p->Hq * p->D, n = (size_t)p->Hq * t->Qb * t->Kb;
    const double *exact = t->exact + seq * n, bound = gate_bound(t), slack = (t->gap + bound) * (double)opt->seer.threshold;
    const float *q = query_at(t, seq, 0, 0);
    const ca_chunk chunk = chunk_of(t, seq);
    b->ws.used = 0;
    ca_mask m = mask_of(b, seq);
    float *got = malloc(n * sizeof *got);
    must(ca_select(b->cache, opt, &chunk, &(ca_queries){ q, stride, .q_raw = q, .raw_stride = stride }, &b->ws, &m, got), "select");
    double far = 0.0;
    for (size_t i = 0; i < n; i++) far = fmax(far, score_gap((double)got[i], exact[i]));
    CHECK(far <= bound, "%s, sequence %u: gate scores are off by %.3g (bound %.3g)", b->kern->name, seq, far, bound);

    uint64_t *qu = calloc((size_t)p->Hq * m.words, 8), *gu = calloc((size_t)p->Hkv * m.words, 8);
    ca_mask_union(&m, t->G, qu, gu);
    unsigned wrong = 0, wrong_union = 0;
    for (uint32_t kv = 0; kv < p->Hkv; kv++)
        for (uint32_t j = 0; j < t->Kb; j++) {
            bool open = false;
            for (uint32_t h = kv * t->G; h < (kv + 1) * t->G; h++) {
                bool ours = j >= t->Kb - recent, near = false;
                for (uint32_t i = 0; i < t->Qb; i++) {
                    ours = ours || bit(m.bits + ((size_t)h * t->Qb + i) * m.words, j);
                    near = near || fabs((double)score[((size_t)h * t->Qb + i) * t->Kb + j] - (double)opt->seer.threshold) <= slack;
                }
                wrong += !near && ours != keep_q[(size_t)h * t->Kb + j];
                open = open || near;
            }
            wrong_union += !open && bit(gu + (size_t)kv * m.words, j) != keep_kv[(size_t)kv * t->Kb + j];
        }
    CHECK(wrong == 0, "%s, sequence %u, threshold %g: %u blocks of the Q-block union differ", b->kern->name, seq,
          (double)opt->seer.threshold, wrong);
    CHECK(wrong_union == 0, "%s, sequence %u, threshold %g: %u blocks of the group union differ", b->kern->name, seq,
          (double)opt->seer.threshold, wrong_union);
    free(got), free(qu), free(gu);
    return m;
}

static void seer_case(const golden *g, const ca_kern *kern, const tensors *t)
{
    const params *p = &t->p;
    weights w = weights_of(g, t);
    ca_gate *gate = gate_of(t, &w);
    ca_select_opt opt = select_of(CA_SELECT_SEER);
    opt.seer = (ca_seer_opt){ .gate = gate, .bare = true };
    bench b = bench_create(t, kern, &opt);
    const json_t *thresholds = json_object_get(json_object_get(g->json, "params"), "thresholds");
    float *score = array(g, "gate_score_f32"), *k_gate = array(g, "k_gate_f32"), *out = array(g, "out_compact_f64");
    size_t n_rows = 0;
    int32_t *rows = array_bytes(g, "rows", &n_rows);
    n_rows /= 4;
    check_gate_keys(&b, gate, &w, k_gate);
    for (size_t i = 0; i < json_array_size(thresholds); i++) {
        char name[40];
        snprintf(name, sizeof name, "keep_q_f32_th%zu", i);
        uint8_t *keep_q = array(g, name);
        snprintf(name, sizeof name, "keep_kv_f32_th%zu", i);
        uint8_t *keep_kv = array(g, name);
        opt.seer.threshold = (float)json_number_value(json_array_get(thresholds, i));
        for (uint32_t seq = 0; seq < p->B; seq++) {
            const size_t blocks = (size_t)seq * t->Kb;
            const ca_mask m = check_gate(&b, &opt, seq, score + blocks * p->Hq * t->Qb, keep_q + blocks * p->Hq,
                                         keep_kv + blocks * p->Hkv, count_of(g, "keep_recent"));
            if (i + 1 < json_array_size(thresholds)) continue;
            ca_table table = table_of(&b, seq);
            must(ca_table_add_compact(b.cache, &m, &(ca_table_opt){ 0 }, &table), "compact");
            check_output(&b, &table, seq, rows, n_rows, out, "compactattn");
        }
        free(keep_q), free(keep_kv);
    }
    free(score), free(k_gate), free(out), free(rows);
    bench_destroy(&b);
    ca_gate_destroy(gate);
    weights_free(&w);
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------ */

typedef struct case_kind {
    const char *prefix;
    void (*prepare)(const golden *g, tensors *t); /* once per case; may be NULL */
    void (*run)(const golden *g, const ca_kern *kern, const tensors *t);
} case_kind;

static const case_kind *kind_of(const char *name)
{
    static const case_kind kinds[] = { { "fp", NULL, flashprefill_case },
                                       { "conv", NULL, unions_case },
                                       { "qk", quoka_prepare, quoka_case },
                                       { "seer", seer_prepare, seer_case } };
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) return &kinds[i];
    return NULL;
}

static void run_case(const char *folder, const char *name)
{
    char path[4096 + 80];
    json_error_t err;
    int zerr = 0;
    golden g = { 0 };
    const case_kind *kind = kind_of(name);
    case_name = name;
    snprintf(path, sizeof path, "%.4000s/%.64s.json", folder, name);
    g.json = json_load_file(path, 0, &err);
    snprintf(path, sizeof path, "%.4000s/%.64s.npz", folder, name);
    g.zip = zip_open(path, ZIP_RDONLY, &zerr);
    CHECK(g.json && g.zip, "cannot read %s/%s.json and .npz", folder, name);
    if (!g.json || !g.zip) return;
    const unsigned before = n_failed;
    tensors t = tensors_of(&g);
    if (t.p.attend || strcmp(kind->prefix, "conv") != 0) {
        make_inputs(&t);
        check_crc(&g, "q", t.q, (size_t)t.p.B * t.p.Lq * t.p.Hq * t.p.D);
        check_crc(&g, "k", t.k, (size_t)t.p.B * t.p.L * t.p.Hkv * t.p.D);
        check_crc(&g, "v", t.v, (size_t)t.p.B * t.p.L * t.p.Hkv * t.p.D);
    }
    if (kind->prepare) kind->prepare(&g, &t);
    const char *const isas[] = { "avx512bf16", "avx512mixed", "avx512", "avx2mixed", "avx2", "scalar" };
    enum { N_ISAS = sizeof isas / sizeof *isas };
    for (unsigned i = 0; i < N_ISAS; i++) {
        const ca_kern *kern = NULL;
        if (ca_kern_choose(isas[i], &kern) != CA_OK) continue;
        if (i == N_ISAS - 1 && t.p.Lq * t.p.L > 1U << 20 && t.k) continue; /* the scalar set takes minutes on the large cases */
        kind->run(&g, kern, &t);
    }
    printf("%-12s %s\n", name, n_failed == before ? "ok" : "FAILED");
    free(t.q), free(t.k), free(t.v), free(t.exact);
    json_decref(g.json);
    zip_discard(g.zip);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Runs every case of a folder; false when there is none. */
static bool run_folder(const char *folder)
{
    char names[256][64];
    size_t n = 0;
    unsigned other = 0;
    DIR *dir = opendir(folder);
    if (!dir) {
        fprintf(stderr, "golden_reference: cannot open folder %s\n", folder);
        return false;
    }
    for (const struct dirent *e = readdir(dir); e && n < 256; e = readdir(dir)) {
        const size_t len = strlen(e->d_name);
        if (len < 6 || len > 60 || strcmp(e->d_name + len - 5, ".json") != 0) continue;
        if (!kind_of(e->d_name)) {
            other++;
            continue;
        }
        memcpy(names[n], e->d_name, len - 5);
        names[n++][len - 5] = 0;
    }
    closedir(dir);
    qsort(names, n, sizeof names[0], by_name);
    for (size_t i = 0; i < n; i++) run_case(folder, names[i]);
    printf("%zu cases, %u checks, %u failed; %u cases of kinds that this test does not know\n", n, n_checks, n_failed, other);
    return n > 0;
}

int main(int argc, char **argv)
{
    bool ran = run_folder(argc > 1 ? argv[1] : CA_TEST_DATA "/reference");
    if (argc == 1 && access(CA_SHARED_GOLDEN "/reference", R_OK) == 0) ran = run_folder(CA_SHARED_GOLDEN "/reference") && ran;
    return !ran || n_failed > 0;
}
