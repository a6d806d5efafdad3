/* ca_table_add_auto against brute force: every shape of the lattice is built by the other builders and priced from its rows. */
#include "unit/select_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "kern/kern.h"

static const select_case cases[] = {
    /* q_len kv_len hq hkv dim page */
    { { 130, 517, 6, 2, 80, 32, "nothing divides" }, 0, 0, 0 },
    { { 300, 900, 12, 2, 16, 64, "group of 6, the cache goes on" }, 33, 0, 0 },
    { { 256, 1024, 4, 4, 32, 32, "MHA, everything divides" }, 0, 0, 0 },
    { { 500, 1100, 3, 1, 96, 128, "the mask begins after the chunk" }, 0, 137, 300 },
    { { 70, 2500, 8, 1, 16, 32, "two words of blocks" }, 0, 0, 50 },
    { { 1, 300, 3, 1, 16, 64, "one token" }, 0, 0, 0 },
    { { 200, 200, 6, 2, 16, 32, "first chunk" }, 0, 0, 0 },
};
enum { N_CASES = sizeof cases / sizeof *cases, MAX_SHAPES = 64 };

static const unsigned keeps[] = { 0, 3, 20, 60, 100 };
enum { N_KEEPS = sizeof keeps / sizeof *keeps };

/* Blocks at random; the heads of a KV head agree about half of them, so that unions are worth something. */
static ca_mask random_mask(const select_case *c, attn_data *d, unsigned keep_percent)
{
    ca_mask m = mask_of(c, d);
    uint8_t *blocks = calloc((size_t)m.n_heads * m.n_qblocks * m.n_kblocks, 1);
    const uint32_t group = m.n_heads / c->shape.hkv;
    uint64_t seed = keep_percent + 1;
    for (uint32_t r = 0; r < m.n_heads * m.n_qblocks; r++)
        for (uint32_t j = 0; j < m.n_kblocks; j++) {
            uint64_t shared = (r / m.n_qblocks / group) * UINT64_C(1000003) + j * UINT64_C(31) + keep_percent;
            blocks[(size_t)r * m.n_kblocks + j] = mix64(&seed) % 100 < keep_percent / 2 ||
                                                  mix64(&shared) % 100 < keep_percent / 2 || keep_percent == 100;
        }
    must(ca_mask_set(&m, blocks, m.n_heads, m.n_qblocks, m.n_kblocks), "mask");
    free(blocks);
    return m;
}

static attn_data data_of(const select_case *c)
{
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    attn_data d = attn_data_create(c->shape, kern, 0, 0, 0.7F);
    d.chunk.pos = c->shape.kv_len - c->after - c->shape.q_len;
    free(d.ws.base);
    d.ws.size = 4 * ca_table_ws_bytes(d.cache, c->shape.hq, c->shape.q_len, c->shape.kv_len) +
                ca_attend_ws_bytes(d.cache, c->shape.hq, c->shape.q_len, 1);
    d.ws.base = aligned_alloc(64, ca_align_up(d.ws.size, 64));
    return d;
}

static ca_table new_table(attn_data *d)
{
    ca_table t;
    must(ca_table_create(d->cache, &d->chunk, &d->ws, &t), "table");
    return t;
}

/* The documented price of a table's rows of one KV head. */
static double price(const attn_data *d, const ca_table *t, uint32_t kv, const ca_cost *cost)
{
    const ca_kern *kern = NULL;
    double sum = 0.0;
    must(ca_kern_choose(NULL, &kern), "kern");
    const double page_bytes = (double)ca_page_bytes(kern, d->shape.page, d->shape.dim);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const ca_row *row = &t->rows[r];
        const double vectors = (double)row->n_heads * row->n_tokens, jobs = ceil(vectors / kern->attn_job);
        const uint32_t n = (row->pos + row->n_tokens - 1) / d->shape.page - row->pos / d->shape.page + 1; /* Q blocks */
        const double pages = row->n_pages - (n - 1) / 2.0;
        if (row->kv_head != kv) continue;
        sum += jobs * (cost->job + pages * page_bytes * cost->page_byte) +
               cost->flop * 4.0 * vectors * pages * d->shape.page * d->shape.dim;
    }
    return sum;
}

/* The lattice, coarsest first: heads that divide the group, and Q blocks halved (rounded up) down to one. */
static uint32_t lattice(uint32_t group, uint32_t n_qblocks, ca_row_shape *out)
{
    uint32_t n = 0;
    for (uint32_t heads = group; heads > 0; heads--)
        for (uint32_t q = n_qblocks; group % heads == 0 && q > 0; q = q == 1 ? 0 : (q + 1) / 2)
            out[n++] = (ca_row_shape){ heads, q };
    return n;
}

static double worth_of(const ca_worth *w, ca_row_shape s)
{
    return (1.0 + (double)w->heads * (1.0 - 1.0 / s.heads)) * (1.0 + (double)w->qblocks * (1.0 - 1.0 / s.qblocks));
}

/* Rows of a KV head, without where their lists lie, and their pages are the same in both tables. */
static void check_same_rows(const attn_data *d, const ca_table *a, const ca_table *b, uint32_t kv)
{
    uint32_t i = 0, j = 0;
    for (;; i++, j++) {
        while (i < a->n_rows && a->rows[i].kv_head != kv) i++;
        while (j < b->n_rows && b->rows[j].kv_head != kv) j++;
        if (i == a->n_rows || j == b->n_rows) break;
        ca_row x = a->rows[i], y = b->rows[j];
        assert_int_equal(x.n_pages, y.n_pages);
        assert_memory_equal(a->pages + x.first_page, b->pages + y.first_page, x.n_pages * sizeof *a->pages);
        x.first_page = y.first_page = 0;
        if (memcmp(&x, &y, sizeof x) != 0) fail_msg("%s: KV head %u has other rows than its shape", d->shape.what, kv);
    }
    assert_true(i == a->n_rows && j == b->n_rows);
}

/* Every (head, token) of the mask is in one row, whose pages hold all that the mask asks for. */
static void check_cover(const attn_data *d, const ca_mask *m, const ca_table *t)
{
    const uint32_t n = d->shape.q_len, first = m->first_token - d->chunk.pos;
    uint8_t *rows = calloc((size_t)n * m->n_heads, 1), *has = malloc(m->n_kblocks);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const ca_row *row = &t->rows[r];
        memset(has, 0, m->n_kblocks);
        for (uint32_t p = 0; p < row->n_pages; p++) has[ca_page_pos(d->cache, t->pages[row->first_page + p]) / d->shape.page] = 1;
        for (uint32_t h = row->head; h < row->head + row->n_heads; h++)
            for (uint32_t i = row->token; i < row->token + row->n_tokens; i++) {
                const uint32_t q = (d->chunk.pos + i) / d->shape.page - m->first_qblock;
                rows[(size_t)h * n + i]++;
                for (uint32_t j = 0; j < m->n_kblocks; j++)
                    if (bit(m->bits + ((size_t)h * m->n_qblocks + q) * m->words, j) && !has[j])
                        fail_msg("%s: token %u of head %u does not read block %u", d->shape.what, i, h, j);
            }
    }
    for (uint32_t i = 0; i < n * m->n_heads; i++) {
        const bool inside = i % n >= first && i % n < first + m->n_tokens;
        if (rows[i] != inside) fail_msg("%s: token %u of head %u is in %u rows", d->shape.what, i % n, i / n, rows[i]);
    }
    free(rows);
    free(has);
}

/* Share of the past blocks that some head of the KV head and some Q block asks for. */
static double union_share(const attn_data *d, const ca_mask *m, uint32_t kv)
{
    const uint32_t group = m->n_heads / d->shape.hkv, past = d->chunk.pos / d->shape.page;
    uint32_t asked = 0;
    for (uint32_t j = 0; j < past; j++) {
        bool any = false;
        for (uint32_t r = kv * group * m->n_qblocks; r < (kv + 1) * group * m->n_qblocks; r++)
            any = any || bit(m->bits + (size_t)r * m->words, j);
        asked += any;
    }
    return past > 0 ? (double)asked / past : 1.0;
}

typedef struct seen {
    unsigned dense, coarsest, finest, between;
} seen;

/* The choice for one KV head is the best of all that can be built. */
static void check_choice(attn_data *d, const ca_mask *m, const ca_cost *cost, const ca_worth *worth, uint32_t kv, ca_row_shape got,
                         const ca_table *t, seen *count)
{
    ca_row_shape all[MAX_SHAPES];
    const uint32_t group = m->n_heads / d->shape.hkv, lattice_size = lattice(group, m->n_qblocks, all);
    /* A union that reads enough of the past is not split: the first shape is the only one. */
    const uint32_t n = union_share(d, m, kv) >= (double)worth->whole ? 1 : lattice_size;
    const size_t mark = d->ws.used;
    double best = INFINITY, best_price = INFINITY, got_value = INFINITY, got_price = INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        d->ws.used = mark;
        ca_table one = new_table(d);
        must(ca_table_add_compact(d->cache, m, &(ca_table_opt){ all[i].heads, all[i].qblocks }, &one), "compactattn");
        const double p = price(d, &one, kv, cost), value = p / worth_of(worth, all[i]);
        if (value < best) best = value, best_price = p;
        if (all[i].heads != got.heads || all[i].qblocks != got.qblocks) continue;
        got_value = value;
        got_price = p;
        check_same_rows(d, t, &one, kv);
    }
    d->ws.used = mark;
    ca_table dense = new_table(d);
    must(ca_table_add_dense(d->cache, m->first_token - d->chunk.pos, m->n_tokens, &dense), "dense");
    const double dense_price = price(d, &dense, kv, cost);
    d->ws.used = mark;
    if (got.heads == 0) {
        check_same_rows(d, t, &dense, kv);
        if (dense_price > 1.05 * best_price * (1.0 + 1e-9))
            fail_msg("%s: KV head %u is dense for %g, the best shape costs %g", d->shape.what, kv, dense_price, best_price);
    } else if (!(got_value <= best * (1.0 + 1e-9)) || dense_price < 1.05 * got_price * (1.0 - 1e-9)) {
        fail_msg("%s: KV head %u has rows of %u heads x %u Q blocks (%g per worth), the best shape has %g; dense costs %g",
                 d->shape.what, kv, got.heads, got.qblocks, got_value, best, dense_price);
    }
    const bool coarse = got.heads == group && got.qblocks == m->n_qblocks, fine = got.heads == 1 && got.qblocks == 1;
    count->dense += got.heads == 0;
    count->coarsest += coarse;
    count->finest += fine && !coarse;
    count->between += got.heads != 0 && !coarse && !fine;
}

static void best_shape(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    ca_cost built_in;
    ca_worth built_in_worth;
    must(ca_kern_choose(NULL, &kern), "kern");
    ca_cost_defaults(kern, CA_ATTENTION_NATIVE, &built_in);
    ca_worth_defaults(&built_in_worth);
    const ca_cost costs[] = { built_in, { 1.0, 0.0, 0.0, 0 }, { 1.0, 0.0, 1e7, 0 }, { 0.01, 3.0, 10.0, 0 } };
    const ca_worth worths[] = { built_in_worth, { 0.0F, 0.0F, 2.0F }, { 0.3F, 3.0F, 2.0F }, { 0.1F, 0.1F, 0.5F } };
    seen count = { 0 };
    for (size_t n = 0; n < N_CASES * N_KEEPS; n++) {
        const select_case *c = &cases[n / N_KEEPS];
        attn_data d = data_of(c);
        const ca_mask m = random_mask(c, &d, keeps[n % N_KEEPS]);
        const size_t mark = d.ws.used;
        for (size_t i = 0; i < 4 * 4; i++) {
            ca_row_shape shapes[8];
            d.ws.used = mark;
            ca_table t = new_table(&d), again;
            must(ca_table_add_auto(d.cache, &m, &costs[i / 4], &worths[i % 4], shapes, &t), "auto");
            check_cover(&d, &m, &t);
            for (uint32_t kv = 0; kv < c->shape.hkv; kv++)
                check_choice(&d, &m, &costs[i / 4], &worths[i % 4], kv, shapes[kv], &t, &count);
            again = new_table(&d);
            must(ca_table_add_auto(d.cache, &m, &costs[i / 4], &worths[i % 4], NULL, &again), "auto");
            for (uint32_t kv = 0; kv < c->shape.hkv; kv++) check_same_rows(&d, &t, &again, kv);
        }
        attn_data_destroy(&d);
    }
    if (count.dense < 20 || count.coarsest < 20 || count.finest < 20 || count.between < 20)
        fail_msg("%u dense, %u coarsest, %u finest, %u other shapes", count.dense, count.coarsest, count.finest, count.between);
}

/* A full mask reads all there is in any shape, and is dense where the past is long. */
static void full_mask(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    ca_cost cost;
    must(ca_kern_choose(NULL, &kern), "kern");
    ca_cost_defaults(kern, CA_ATTENTION_NATIVE, &cost);
    const ca_worth worths[] = { { 0.0F, 0.0F, 2.0F }, { 1.0F, 0.7F, 0.5F }, { 1e6F, 1e6F, 2.0F } };
    for (size_t n = 0; n < N_CASES * 3; n++) {
        const select_case *c = &cases[n / 3];
        attn_data d = data_of(c);
        const ca_mask m = random_mask(c, &d, 100);
        ca_row_shape shapes[8];
        ca_table_count count;
        ca_table t = new_table(&d);
        must(ca_table_add_auto(d.cache, &m, &cost, &worths[n % 3], shapes, &t), "auto");
        ca_table_measure(d.cache, &t, &count);
        assert_true(count.pairs == count.pairs_dense && count.past_pairs == count.past_pairs_dense);
        for (uint32_t kv = 0; kv < c->shape.hkv; kv++)
            if (d.chunk.pos > 10 * c->shape.q_len && shapes[kv].heads != 0) fail_msg("%s: a full mask is not dense", c->shape.what);
        attn_data_destroy(&d);
    }
}

static void bad_costs(void **state)
{
    (void)state;
    attn_data d = data_of(&cases[0]);
    ca_mask m = random_mask(&cases[0], &d, 20);
    static const struct {
        ca_cost cost;
        ca_worth worth;
        const char *says;
    } bad[] = {
        { { 0.0, 1.0, 1.0, 0 }, { 0.0F, 0.0F, 0.0F }, "cost 0" },
        { { -1.0, 1.0, 1.0, 0 }, { 0.0F, 0.0F, 0.0F }, "cost -1" },
        { { (double)NAN, 1.0, 1.0, 0 }, { 0.0F, 0.0F, 0.0F }, "cost" },
        { { 1.0, -2.0, 1.0, 0 }, { 0.0F, 0.0F, 0.0F }, "-2" },
        { { 1.0, (double)NAN, 1.0, 0 }, { 0.0F, 0.0F, 0.0F }, "cost" },
        { { 1.0, 1.0, -3.0, 0 }, { 0.0F, 0.0F, 0.0F }, "-3" },
        { { 1.0, 1.0, (double)NAN, 0 }, { 0.0F, 0.0F, 0.0F }, "cost" },
        { { 1.0, 1.0, 1.0, 0 }, { -0.5F, 0.0F, 0.0F }, "worth -0.5" },
        { { 1.0, 1.0, 1.0, 0 }, { NAN, 0.0F, 0.0F }, "worth" },
        { { 1.0, 1.0, 1.0, 0 }, { 0.0F, -0.25F, 0.0F }, "-0.25" },
        { { 1.0, 1.0, 1.0, 0 }, { 0.0F, NAN, 0.0F }, "worth" },
        { { 1.0, 1.0, 1.0, 0 }, { 0.0F, 0.0F, -0.75F }, "-0.75" },
    };
    ca_table t = new_table(&d);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (ca_table_add_auto(d.cache, &m, &bad[i].cost, &bad[i].worth, NULL, &t) != CA_E_ARG ||
            !strstr(ca_last_error(), bad[i].says))
            fail_msg("case %zu ('%s'): '%s'", i, bad[i].says, ca_last_error());
        assert_int_equal(t.n_rows, 0);
    }
    m.n_heads = 4; /* not the chunk's */
    assert_int_equal(ca_table_add_auto(d.cache, &m, &(ca_cost){ 1.0, 1.0, 1.0, 0 }, &(ca_worth){ .whole = 2.0F }, NULL, &t),
                     CA_E_SHAPE);
    attn_data_destroy(&d);
}

int main(void)
{
    omp_set_num_threads(1);
    const struct CMUnitTest tests[] = { cmocka_unit_test(best_shape), cmocka_unit_test(full_mask), cmocka_unit_test(bad_costs) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
