/* What must hold of a session whatever its model: chunks, threads and cuts change nothing, a full table is dense to the bit, and
 * every refusal leaves the session as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>

#include <compactattn/session.h>

#include "tiny_model.h"

enum { N = 300, LAST = 8, PAGE = 32 };

typedef struct fixture {
    tiny_model *tiny;
    ca_model *f32, *best; /* scalar or vector fp32 kernels, and the best that this machine has */
    uint32_t tokens[N];
} fixture;

static ca_model *open_model(const char *path, const char *isa)
{
    ca_model *model = NULL;
    const ca_model_opt opt = { .isa = isa, .n_threads = 2 };
    return ca_model_open(path, &opt, &model) == CA_OK ? model : NULL;
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return 1;
    f->tiny = tiny_new(&tiny_plain);
    f->f32 = open_model(f->tiny->path, "avx2");
    if (f->f32 == NULL) f->f32 = open_model(f->tiny->path, "scalar");
    f->best = open_model(f->tiny->path, NULL);
    uint64_t seed = 3;
    for (uint32_t i = 0; i < N; i++) f->tokens[i] = (uint32_t)(fabsf(tiny_random(&seed)) * 255.0F);
    *state = f;
    return f->f32 == NULL || f->best == NULL;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    ca_model_close(f->f32);
    ca_model_close(f->best);
    tiny_free(f->tiny);
    free(f);
    return 0;
}

static ca_session_opt options(ca_executor executor, uint32_t chunk)
{
    ca_session_opt opt;
    ca_session_defaults(executor, &opt);
    opt.chunk = chunk;
    opt.page_tokens = PAGE;
    opt.dense_tail = 0;
    opt.n_threads = 2;
    return opt;
}

static ca_session *create(const ca_model *model, const ca_session_opt *opt)
{
    ca_session *session = NULL;
    if (ca_session_create(model, opt, &session) != CA_OK) fail_msg("%s", ca_last_error());
    return session;
}

/* Logits of the last LAST positions of a prompt of N tokens. */
typedef struct tail {
    float logits[LAST][TINY_VOCAB];
    uint32_t n;
} tail;

static ca_status keep_tail(void *user, uint32_t position, const float *logits)
{
    tail *t = user;
    assert_int_equal(position, N - LAST + t->n);
    memcpy(t->logits[t->n++], logits, sizeof t->logits[0]);
    return CA_OK;
}

static void prefill(ca_session *session, const uint32_t *tokens, size_t n)
{
    if (ca_session_prefill(session, tokens, n, NULL) != CA_OK) fail_msg("%s", ca_last_error());
}

static ca_session_stats run_stats(const fixture *f, const ca_model *model, const ca_session_opt *opt, tail *out)
{
    ca_session *session = create(model, opt);
    *out = (tail){ 0 };
    const ca_prefill_opt p = { .user = out, .n_logits = LAST, .on_logits = keep_tail };
    if (ca_session_prefill(session, f->tokens, N, &p) != CA_OK) fail_msg("%s", ca_last_error());
    assert_int_equal(out->n, LAST);
    ca_session_stats stats;
    ca_session_get_stats(session, &stats);
    assert_int_equal(stats.prefill_tokens, N);
    ca_session_destroy(session);
    return stats;
}

static double difference(const tail *a, const tail *b)
{
    double worst = 0.0;
    for (size_t i = 0; i < LAST; i++)
        for (size_t j = 0; j < TINY_VOCAB; j++) {
            const double d = fabs((double)a->logits[i][j] - (double)b->logits[i][j]);
            if (!(d <= worst)) worst = d;
        }
    return worst;
}

/* Logits spread over some 15; fp32 sums in another order give 1e-5 of that at most. */
static const double same_in_f32 = 2e-4;

static void test_chunk_sizes_agree(void **state)
{
    const fixture *f = *state;
    static const uint32_t chunks[] = { 1, 7, 64, 128, 2048 };
    tail whole, t;
    ca_session_opt opt = options(CA_EXEC_DENSE, N);
    run_stats(f, f->f32, &opt, &whole);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        opt = options(CA_EXEC_DENSE, chunks[i]);
        const ca_session_stats stats = run_stats(f, f->f32, &opt, &t);
        assert_int_equal(stats.n_chunks, (N + chunks[i] - 1) / chunks[i]);
        const double d = difference(&whole, &t);
        if (!(d <= same_in_f32)) fail_msg("chunk %u: logits differ by %g", chunks[i], d);
    }
}

static void test_threads_agree(void **state)
{
    const fixture *f = *state;
    tail one, two;
    ca_session_opt opt = options(CA_EXEC_COMPACT, 64);
    opt.n_threads = 1;
    run_stats(f, f->f32, &opt, &one);
    opt.n_threads = 3;
    const int threads = omp_get_max_threads();
    run_stats(f, f->f32, &opt, &two);
    assert_int_equal(omp_get_max_threads(), threads); /* the caller's setting comes back */
    assert_true(difference(&one, &two) <= same_in_f32);
}

static void test_decode_equals_prefill(void **state)
{
    const fixture *f = *state;
    tail whole;
    const ca_session_opt opt = options(CA_EXEC_DENSE, 64);
    run_stats(f, f->f32, &opt, &whole);
    ca_session *session = create(f->f32, &opt);
    assert_null(ca_session_logits(session));
    prefill(session, f->tokens, N - LAST);
    for (size_t i = 0; i < LAST; i++) {
        assert_int_equal(ca_session_decode(session, f->tokens[N - LAST + i]), CA_OK);
        const float *logits = ca_session_logits(session);
        for (size_t j = 0; j < TINY_VOCAB; j++) assert_true(fabs((double)logits[j] - (double)whole.logits[i][j]) <= same_in_f32);
    }
    ca_session_stats stats;
    ca_session_get_stats(session, &stats);
    assert_int_equal(stats.decode_tokens, LAST);
    assert_int_equal(stats.prefill_tokens, N - LAST);
    assert_int_equal(ca_session_len(session), N);
    ca_session_destroy(session);
}

/* alpha 0 keeps every block: all executors must give the bits of dense. A dense tail as long as the prompt does, too. */
static void test_full_tables_equal_dense(void **state)
{
    const fixture *f = *state;
    const ca_model *models[] = { f->f32, f->best };
    for (size_t m = 0; m < 2; m++) {
        for (uint32_t chunk = 50; chunk <= 128; chunk += 78) {
            tail dense, full;
            ca_session_opt opt = options(CA_EXEC_DENSE, chunk);
            ca_session_stats stats = run_stats(f, models[m], &opt, &dense);
            assert_true(stats.kept_fraction == 1.0);
            const double gflop = stats.gflop;
            ca_model_info info;
            ca_model_get_info(models[m], &info);
            const double pairs = 0.5 * N * (N + 1);
            const double attention = 4e-9 * info.head_dim * info.n_heads * info.n_layers * pairs;
            assert_true(fabs(stats.gemm_gflop + attention - gflop) <= 1e-9 * gflop);
            for (int executor = CA_EXEC_BLOCK_SPARSE; executor <= CA_EXEC_AUTO; executor++) {
                opt = options((ca_executor)executor, chunk);
                opt.select.flashprefill.alpha = 0.0F;
                for (opt.dense_tail = 0; opt.dense_tail < 80; opt.dense_tail += 33) {
                    stats = run_stats(f, models[m], &opt, &full);
                    assert_memory_equal(&dense, &full, sizeof dense);
                    assert_true(stats.kept_fraction == 1.0);
                    assert_true(fabs(stats.gflop - gflop) <= 1e-9 * gflop);
                }
                opt.select.flashprefill.alpha = 2.0F;
                opt.dense_tail = N;
                run_stats(f, models[m], &opt, &full);
                assert_memory_equal(&dense, &full, sizeof dense);
            }
        }
    }
}

/* alpha above 1 keeps sink and window only: less is read, and that is seen in the logits. */
static void test_sparse_is_sparse(void **state)
{
    const fixture *f = *state;
    tail dense, sparse, tailed;
    ca_session_opt opt = options(CA_EXEC_DENSE, 64);
    const ca_session_stats all = run_stats(f, f->f32, &opt, &dense);
    opt = options(CA_EXEC_BLOCK_SPARSE, 64);
    opt.select.flashprefill.alpha = 2.0F;
    opt.select.flashprefill.sink = 1;
    opt.select.flashprefill.window = 1;
    ca_session_stats stats = run_stats(f, f->f32, &opt, &sparse);
    assert_true(stats.kept_fraction > 0.0 && stats.kept_fraction < 0.5);
    assert_true(stats.gflop < all.gflop);
    assert_true(difference(&dense, &sparse) > 100 * same_in_f32);
    assert_true(stats.attention_ms >= stats.select_ms + stats.kernel_ms);
    const double kept = stats.kept_fraction;
    opt.dense_tail = 40;
    stats = run_stats(f, f->f32, &opt, &tailed);
    assert_true(stats.kept_fraction > kept && stats.kept_fraction < 1.0);
    opt.dense_tail = 0;
    opt.select.flashprefill.last_dense = 2; /* the last Q blocks of the prompt only: less than in every chunk */
    stats = run_stats(f, f->f32, &opt, &tailed);
    const double last = stats.kept_fraction;
    opt.select.flashprefill.last_dense = 100;
    stats = run_stats(f, f->f32, &opt, &tailed);
    assert_true(kept < last && last <= stats.kept_fraction && stats.kept_fraction < 0.9);
}

typedef struct stopper {
    volatile int flag;
    int calls, stop_after;
    double last;
} stopper;

static void count_progress(void *user, double done, double total)
{
    stopper *s = user;
    assert_true(done > s->last && done <= total);
    s->last = done;
    if (++s->calls == s->stop_after) s->flag = 1;
}

static void test_cancel(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_EXEC_COMPACT, 64);
    ca_session *straight = create(f->best, &opt);
    stopper s = { .stop_after = -1 };
    const ca_prefill_opt p = { .user = &s, .on_progress = count_progress, .cancel = &s.flag };
    assert_int_equal(ca_session_prefill(straight, f->tokens, N, &p), CA_OK);
    assert_int_equal(s.calls, 2 * 5); /* layers * chunks */
    assert_true(s.last == (double)N);

    ca_session *session = create(f->best, &opt);
    stopper early = { .stop_after = 5 }; /* the first layer of the third chunk */
    const ca_prefill_opt canceled = { .user = &early, .on_progress = count_progress, .cancel = &early.flag };
    assert_int_equal(ca_session_prefill(session, f->tokens, N, &canceled), CA_E_CANCELED);
    assert_int_equal(ca_session_len(session), 128);
    assert_null(ca_session_logits(session));
    prefill(session, f->tokens + 128, N - 128);
    assert_memory_equal(ca_session_logits(session), ca_session_logits(straight), TINY_VOCAB * sizeof(float));
    ca_session_destroy(session);
    ca_session_destroy(straight);
}

static void test_truncate(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_EXEC_COMPACT, 64);
    ca_session *straight = create(f->best, &opt);
    prefill(straight, f->tokens, 150);
    prefill(straight, f->tokens + 150, N - 150);

    ca_session *session = create(f->best, &opt);
    uint32_t other[N];
    for (size_t i = 0; i < N; i++) other[i] = 255 - f->tokens[i];
    prefill(session, f->tokens, 150);
    prefill(session, other, 120);
    assert_int_equal(ca_session_truncate(session, 271), CA_E_ARG);
    assert_int_equal(ca_session_truncate(session, 150), CA_OK);
    assert_null(ca_session_logits(session));
    assert_int_equal(ca_session_len(session), 150);
    prefill(session, f->tokens + 150, N - 150);
    assert_memory_equal(ca_session_logits(session), ca_session_logits(straight), TINY_VOCAB * sizeof(float));

    ca_session_stats stats;
    assert_int_equal(ca_session_truncate(session, 0), CA_OK);
    ca_session_get_stats(session, &stats);
    assert_int_equal(stats.prefill_tokens, 0);
    assert_true(stats.prefill_ms == 0.0 && stats.gflop == 0.0 && stats.kept_fraction == 1.0);
    assert_true(stats.kv_bytes > 0 && stats.workspace_bytes > 0);
    prefill(session, f->tokens, 150);
    prefill(session, f->tokens + 150, N - 150);
    assert_memory_equal(ca_session_logits(session), ca_session_logits(straight), TINY_VOCAB * sizeof(float));
    ca_session_destroy(session);
    ca_session_destroy(straight);
}

static void test_context_full(void **state)
{
    const fixture *f = *state;
    ca_session_opt opt = options(CA_EXEC_DENSE, 64);
    opt.context = 100;
    ca_session *session = create(f->f32, &opt);
    assert_int_equal(ca_session_context(session), 100);
    assert_int_equal(ca_session_prefill(session, f->tokens, 101, NULL), CA_E_FULL);
    assert_non_null(strstr(ca_last_error(), "101"));
    assert_int_equal(ca_session_len(session), 0);
    prefill(session, f->tokens, 99);
    assert_int_equal(ca_session_decode(session, 1), CA_OK);
    assert_int_equal(ca_session_decode(session, 1), CA_E_FULL);
    assert_int_equal(ca_session_len(session), 100);
    assert_int_equal(ca_session_truncate(session, 90), CA_OK);
    assert_int_equal(ca_session_decode(session, 1), CA_OK);
    ca_session_destroy(session);
}

static ca_status refuse(void *user, uint32_t position, const float *logits)
{
    (void)user;
    (void)position;
    (void)logits;
    return CA_E_IO;
}

static void test_bad_calls(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_EXEC_DENSE, 64);
    ca_session *session = create(f->f32, &opt);
    const uint32_t outside[] = { 1, TINY_VOCAB };
    assert_int_equal(ca_session_prefill(session, outside, 2, NULL), CA_E_ARG);
    assert_int_equal(ca_session_decode(session, TINY_VOCAB), CA_E_ARG);
    assert_int_equal(ca_session_prefill(session, f->tokens, 0, NULL), CA_E_ARG);
    assert_int_equal(ca_session_prefill(session, f->tokens, 4, &(ca_prefill_opt){ .n_logits = 5, .on_logits = refuse }), CA_E_ARG);
    assert_int_equal(ca_session_prefill(session, f->tokens, 4, &(ca_prefill_opt){ .n_logits = 2 }), CA_E_ARG);
    assert_int_equal(ca_session_len(session), 0);
    assert_int_equal(ca_session_prefill(session, f->tokens, 4, &(ca_prefill_opt){ .n_logits = 2, .on_logits = refuse }), CA_E_IO);
    ca_session_destroy(session);
    ca_session_destroy(NULL);
}

static void test_bad_options(void **state)
{
    const fixture *f = *state;
    struct {
        ca_session_opt opt;
        const char *says;
    } bad[8];
    size_t n = 0;
    for (; n < 8; n++) bad[n].opt = options(CA_EXEC_COMPACT, 64);
    bad[0].opt.executor = (ca_executor)9, bad[0].says = "executor";
    bad[1].opt.select.selector = CA_SELECT_NONE, bad[1].says = "selector";
    bad[2].opt.executor = CA_EXEC_DENSE, bad[2].says = "selector";
    bad[3].opt.context = 641, bad[3].says = "640";
    bad[4].opt.chunk = 0, bad[4].says = "chunk";
    bad[5].opt.page_tokens = 48, bad[5].says = "48";
    bad[6].opt.table.heads_per_row = 3, bad[6].says = "heads per row";
    bad[7].opt.n_threads = -2, bad[7].says = "threads";
    for (size_t i = 0; i < n; i++) {
        ca_session *session = NULL;
        ca_session_memory memory;
        if (ca_session_create(f->f32, &bad[i].opt, &session) != CA_E_ARG || strstr(ca_last_error(), bad[i].says) == NULL)
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, ca_last_error(), bad[i].says);
        assert_null(session);
        assert_int_equal(ca_session_forecast(f->f32, &bad[i].opt, &memory), CA_E_ARG);
    }
}

static void test_forecast(void **state)
{
    const fixture *f = *state;
    ca_session_opt opt = options(CA_EXEC_COMPACT, 64);
    ca_session_memory memory, longer;
    ca_session_stats stats;
    assert_int_equal(ca_session_forecast(f->f32, &opt, &memory), CA_OK);
    ca_session *session = create(f->f32, &opt);
    ca_session_get_stats(session, &stats);
    assert_int_equal(stats.kv_bytes, memory.kv_bytes);
    assert_int_equal(stats.workspace_bytes, memory.workspace_bytes);
    assert_true(memory.kv_bytes >= UINT64_C(640) * 2 * 2 * 16 * 2 * sizeof(float)); /* tokens, layers, heads, dims, K and V */
    ca_session_destroy(session);
    opt.context = 320;
    assert_int_equal(ca_session_forecast(f->f32, &opt, &longer), CA_OK);
    assert_true(longer.kv_bytes < memory.kv_bytes);
}

/* A context of 2^26 tokens of 8 KiB each is more than any machine that runs this has free. */
static void test_too_large(void **state)
{
    (void)state;
    tiny_spec spec = tiny_plain;
    spec.context = 1U << 26;
    spec.n_layers = 4;
    spec.n_heads = spec.n_kv_heads = 4;
    spec.head_dim = 64;
    tiny_model *tiny = tiny_new(&spec);
    ca_model *model = open_model(tiny->path, "scalar");
    assert_non_null(model);
    ca_session *session = NULL;
    ca_session_opt opt = options(CA_EXEC_DENSE, 64);
    opt.page_tokens = 128;
    assert_int_equal(ca_session_create(model, &opt, &session), CA_E_MEMORY);
    assert_non_null(strstr(ca_last_error(), "shorter context"));
    assert_null(session);
    ca_model_close(model);
    tiny_free(tiny);
}

typedef struct traced {
    uint32_t calls, masks, layers_seen;
    uint32_t past; /* of the last call */
} traced;

static void look(void *user, const ca_trace *trace)
{
    traced *t = user;
    t->calls++;
    t->layers_seen |= 1U << trace->chunk.layer;
    assert_true(trace->table->n_rows > 0);
    assert_int_equal(ca_cache_len(trace->cache, trace->chunk.seq, trace->chunk.layer), trace->chunk.pos + trace->chunk.n_tokens);
    assert_true(trace->q.q && trace->q.stride >= 4 * 16 && trace->scale == 0.25F);
    assert_true(trace->chunk.pos >= t->past);
    t->past = trace->chunk.pos;
    assert_true((trace->mask == NULL) == (trace->scores == NULL));
    if (trace->mask == NULL) return;
    t->masks++;
    assert_true(trace->mask->n_qblocks > 0);
    assert_int_equal(trace->mask->n_heads, 4);
    for (size_t r = 0; r < (size_t)trace->mask->n_heads * trace->mask->n_qblocks; r++) {
        double sum = 0.0;
        for (size_t j = 0; j < trace->mask->n_kblocks; j++) sum += (double)trace->scores[r * trace->mask->n_kblocks + j];
        assert_true(fabs(sum - 1.0) < 1e-4); /* normalised: a past block can always be scored */
    }
}

static void test_trace(void **state)
{
    const fixture *f = *state;
    traced t = { 0 };
    const ca_prefill_opt p = { .user = &t, .on_trace = look };
    ca_session_opt opt = options(CA_EXEC_COMPACT, 64);
    ca_session *session = create(f->best, &opt);
    assert_int_equal(ca_session_prefill(session, f->tokens, N, &p), CA_OK);
    assert_int_equal(t.calls, 2 * 5); /* layers * chunks */
    assert_int_equal(t.masks, 2 * 4); /* the first chunk has no past to select from */
    assert_int_equal(t.layers_seen, 3);
    ca_session_destroy(session);
    t = (traced){ 0 };
    opt = options(CA_EXEC_DENSE, 64);
    session = create(f->best, &opt);
    assert_int_equal(ca_session_prefill(session, f->tokens, N, &p), CA_OK);
    assert_int_equal(t.calls, 2 * 5);
    assert_int_equal(t.masks, 0);
    ca_session_destroy(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunk_sizes_agree),
        cmocka_unit_test(test_threads_agree),
        cmocka_unit_test(test_decode_equals_prefill),
        cmocka_unit_test(test_full_tables_equal_dense),
        cmocka_unit_test(test_sparse_is_sparse),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_context_full),
        cmocka_unit_test(test_bad_calls),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_forecast),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_trace),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
