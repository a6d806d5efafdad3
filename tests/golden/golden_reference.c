/* Masks, unions, page tables and attention outputs of the CompactAttention reference (one NVIDIA H200 run each).
 *
 *   golden_reference [FOLDER]     every fp*.json and conv*.json of the folder; default: the cases that the repository carries
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

static bench bench_create(const tensors *t, const ca_kern *kern)
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
                               .summaries = CA_SUMMARY_MEAN_K,
                               .kern = kern };
    must(ca_cache_create(&opt, &b.cache), "cache");
    const float *zeros = calloc((size_t)p->Hkv * 16, 4);
    for (uint32_t s = 0; s < p->B; s++) {
        const size_t stride = values ? (size_t)p->Hkv * p->D : 0;
        const float *k = values ? t->k + s * p->L * stride : zeros, *v = values ? t->v + s * p->L * stride : zeros;
        must(ca_cache_append(b.cache, s, 0, k, v, stride, p->L), "append");
    }
    free((void *)(uintptr_t)zeros);
    b.ws.size = ca_table_ws_bytes(b.cache, p->Hq, p->Lq, p->L) * 4 + ca_attend_ws_bytes(b.cache, p->Hq, p->Lq, 2) +
                ((size_t)1 << 22);
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
    opt.flashprefill = (ca_flashprefill_opt){
        .alpha = (float)p->alpha, .sink = p->sink, .window = p->window, .last_dense = p->last_n, .min_budget = p->min_budget
    };
    b->ws.used = 0;
    ca_mask m;
    must(ca_mask_create(b->cache, &chunk, 0, p->Lq, &b->ws, &m), "mask");
    must(ca_select(b->cache, &opt, &chunk, q, stride, &b->ws, &m, NULL), "select");
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
    must(ca_select(b->cache, &opt, &chunk, q, stride, &b->ws, &m, NULL), "select");
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

/* Runs a table and compares the stored rows with the float64 answer. */
static void check_output(bench *b, const ca_table *table, uint32_t seq, const int32_t *rows, size_t n_rows, const float *want,
                         const char *what)
{
    const params *p = &b->t.p;
    const size_t stride = (size_t)p->Hq * p->D;
    float *o = malloc((size_t)p->Lq * stride * 4);
    must(ca_attend(b->cache, table, 1.0F / sqrtf((float)p->D), b->t.q + (size_t)seq * p->Lq * stride, stride, o, stride, CA_F32, 2,
                   &b->ws),
         "attend");
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

static void flashprefill_case(const golden *g, const ca_kern *kern, const tensors *t)
{
    const params *p = &t->p;
    bench b = bench_create(t, kern);
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
    bench b = bench_create(t, kern);
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

static void run_case(const char *folder, const char *name)
{
    char path[4096 + 80];
    json_error_t err;
    int zerr = 0;
    golden g = { 0 };
    case_name = name;
    snprintf(path, sizeof path, "%.4000s/%.64s.json", folder, name);
    g.json = json_load_file(path, 0, &err);
    snprintf(path, sizeof path, "%.4000s/%.64s.npz", folder, name);
    g.zip = zip_open(path, ZIP_RDONLY, &zerr);
    CHECK(g.json && g.zip, "cannot read %s/%s.json and .npz", folder, name);
    if (!g.json || !g.zip) return;
    tensors t = tensors_of(&g);
    const bool fp = strncmp(name, "fp", 2) == 0;
    if (fp || t.p.attend) {
        make_inputs(&t);
        check_crc(&g, "q", t.q, (size_t)t.p.B * t.p.Lq * t.p.Hq * t.p.D);
        check_crc(&g, "k", t.k, (size_t)t.p.B * t.p.L * t.p.Hkv * t.p.D);
        check_crc(&g, "v", t.v, (size_t)t.p.B * t.p.L * t.p.Hkv * t.p.D);
    }
    const char *const isas[] = { "avx512bf16", "avx512", "avx2", "scalar" };
    const unsigned before = n_failed;
    for (unsigned i = 0; i < 4; i++) {
        const ca_kern *kern = NULL;
        if (ca_kern_choose(isas[i], &kern) != CA_OK) continue;
        if (i == 3 && t.p.L > 2048 && t.k) continue; /* the scalar set takes minutes on the large cases */
        (fp ? flashprefill_case : unions_case)(&g, kern, &t);
    }
    printf("%-12s %s\n", name, n_failed == before ? "ok" : "FAILED");
    free(t.q), free(t.k), free(t.v);
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
        if (strncmp(e->d_name, "fp", 2) != 0 && strncmp(e->d_name, "conv", 4) != 0) {
            other++;
            continue;
        }
        memcpy(names[n], e->d_name, len - 5);
        names[n++][len - 5] = 0;
    }
    closedir(dir);
    qsort(names, n, sizeof names[0], by_name);
    for (size_t i = 0; i < n; i++) run_case(folder, names[i]);
    printf("%zu cases, %u checks, %u failed; %u cases of selectors that this build does not have\n", n, n_checks, n_failed, other);
    return n > 0;
}

int main(int argc, char **argv)
{
    bool ran = run_folder(argc > 1 ? argv[1] : CA_TEST_DATA "/reference");
    if (argc == 1 && access(CA_SHARED_GOLDEN "/reference", R_OK) == 0) ran = run_folder(CA_SHARED_GOLDEN "/reference") && ran;
    return !ran || n_failed > 0;
}
