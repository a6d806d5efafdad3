/* Which tokens of a session go through the selector and what its statistics say of that: dense prefix and tail, the first chunk, the
 * rules for a prompt's last Q blocks, every selector by way of a session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>

#include <compactattn/session.h>

#include "tiny_model.h"

enum { N = 260, PAGE = 32, N_LAYERS = 2, N_HEADS = 4 };

typedef struct fixture {
    tiny_model *tiny;
    ca_model *model;
    ca_gate *gate;
    uint32_t tokens[N];
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return 1;
    f->tiny = tiny_new(&tiny_plain);
    const ca_model_opt opt = { .n_threads = 2 };
    if (ca_model_open(f->tiny->path, &opt, &f->model) != CA_OK) return 1;
    uint64_t seed = 3;
    for (uint32_t i = 0; i < N; i++) f->tokens[i] = (uint32_t)(fabsf(tiny_random(&seed)) * 255.0F);
    double freq[8];
    float wk[N_HEADS * 48 * 16];
    for (size_t i = 0; i < 8; i++) freq[i] = pow((double)tiny_theta, -2.0 * (double)i / 16.0);
    for (size_t i = 0; i < sizeof wk / sizeof *wk; i++) wk[i] = tiny_random(&seed);
    const ca_gate_opt gate = { .n_layers = N_LAYERS,
                               .n_heads = N_HEADS,
                               .n_kv_heads = 2,
                               .head_dim = 16,
                               .hidden = 16,
                               .block = PAGE,
                               .q_pool = CA_POOL_AVG,
                               .k_pool = CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG,
                               .layout = CA_GATE_SINGLE,
                               .inv_freq = freq,
                               .rotary = 16,
                               .rope_scale = 1.0F };
    if (ca_gate_create(&gate, &f->gate) != CA_OK) return 1;
    for (uint32_t l = 0; l < N_LAYERS; l++)
        if (ca_gate_set_layer(f->gate, l, wk, NULL) != CA_OK) return 1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    ca_model_close(f->model);
    ca_gate_destroy(f->gate);
    tiny_free(f->tiny);
    free(f);
    return 0;
}

static ca_session_opt options(const fixture *f, ca_executor executor, ca_selector selector, uint32_t chunk)
{
    ca_session_opt opt;
    ca_session_defaults(executor, &opt);
    ca_select_defaults(selector, &opt.select);
    opt.select.seer.gate = f->gate;
    opt.chunk = chunk;
    opt.page_tokens = PAGE;
    opt.dense_tail = 0;
    opt.n_threads = 2;
    return opt;
}

static ca_session *create(const fixture *f, const ca_session_opt *opt)
{
    ca_session *session = NULL;
    if (ca_session_create(f->model, opt, &session) != CA_OK) fail_msg("%s", ca_last_error());
    return session;
}

static ca_session *run(const fixture *f, const ca_session_opt *opt, const ca_prefill_opt *p)
{
    ca_session *session = create(f, opt);
    if (ca_session_prefill(session, f->tokens, N, p) != CA_OK) fail_msg("%s", ca_last_error());
    return session;
}

/* A selector that keeps every block, or none, and notes what it was asked for. */
typedef struct caller {
    uint8_t asked[N_LAYERS][N];
    bool keep;
    uint32_t calls, fail_at;
} caller;

static ca_status users_rule(void *user, const ca_cache *cache, const ca_chunk *chunk, const ca_queries *q, ca_mask *mask)
{
    caller *u = user;
    assert_true(cache != NULL && q->q != NULL);
    if (++u->calls == u->fail_at) return CA_E_UNSUPPORTED;
    for (uint32_t i = 0; i < mask->n_tokens; i++) u->asked[chunk->layer][mask->first_token + i]++;
    memset(mask->bits, u->keep ? 0xff : 0, (size_t)mask->n_heads * mask->n_qblocks * mask->words * sizeof *mask->bits);
    return CA_OK;
}

/* Selected: behind the prefix, before the call's tail, and not of the first chunk unless that was asked for. */
static void test_selected_tokens(void **state)
{
    const fixture *f = *state;
    static const uint32_t prefixes[] = { 0, 40, 100, 150, 1000 }, tails[] = { 0, 33, 70, 1000 }, chunks[] = { 50, 64, 300 };
    for (size_t i = 0; i < 5 * 4 * 3 * 2; i++) {
        caller u = { .keep = true };
        ca_session_opt opt = options(f, CA_EXEC_COMPACT, CA_SELECT_USER, chunks[i / 20 % 3]);
        opt.select.user = (ca_user_opt){ users_rule, &u };
        opt.dense_prefix = prefixes[i % 5];
        opt.dense_tail = tails[i / 5 % 4];
        opt.sparse_first = i / 60;
        ca_session_destroy(run(f, &opt, NULL));
        for (uint32_t l = 0; l < N_LAYERS; l++)
            for (uint32_t t = 0; t < N; t++) {
                const bool want = t >= opt.dense_prefix && t + opt.dense_tail < N && (t >= opt.chunk || opt.sparse_first);
                if (u.asked[l][t] != want)
                    fail_msg("prefix %u, tail %u, chunk %u, sparse_first %d: token %u is selected for %u times", opt.dense_prefix,
                             opt.dense_tail, opt.chunk, opt.sparse_first, t, u.asked[l][t]);
            }
    }
}

static void test_user_selector(void **state)
{
    const fixture *f = *state;
    const ca_session_opt plain = options(f, CA_EXEC_DENSE, CA_SELECT_NONE, 64);
    ca_session *dense = run(f, &plain, NULL);
    for (ca_executor executor = CA_EXEC_BLOCK_SPARSE; executor <= CA_EXEC_AUTO; executor++) {
        caller u = { .keep = true };
        ca_session_opt opt = options(f, executor, CA_SELECT_USER, 64);
        opt.select.user = (ca_user_opt){ users_rule, &u };
        ca_session *session = run(f, &opt, NULL);
        assert_int_equal(u.calls, N_LAYERS * 4);
        assert_memory_equal(ca_session_logits(session), ca_session_logits(dense), TINY_VOCAB * sizeof(float));
        ca_session_destroy(session);
        u.keep = false;
        session = run(f, &opt, NULL);
        assert_memory_not_equal(ca_session_logits(session), ca_session_logits(dense), TINY_VOCAB * sizeof(float));
        ca_session_destroy(session);

        u = (caller){ .fail_at = 4 }; /* the second layer of the third chunk; its status comes back and the chunk is taken back */
        session = create(f, &opt);
        assert_int_equal(ca_session_prefill(session, f->tokens, N, NULL), CA_E_UNSUPPORTED);
        assert_int_equal(ca_session_len(session), 128);
        ca_session_destroy(session);
    }
    ca_session_destroy(dense);
}

/* Settings that keep every block give the bits of dense, whatever chooses; quoka behind a dense prefix that ends inside a chunk, too. */
static void test_full_selectors_equal_dense(void **state)
{
    const fixture *f = *state;
    const ca_session_opt plain = options(f, CA_EXEC_DENSE, CA_SELECT_NONE, 50);
    ca_session *dense = run(f, &plain, NULL);
    static const ca_selector all[] = { CA_SELECT_FLASHPREFILL, CA_SELECT_SEER, CA_SELECT_MINFERENCE, CA_SELECT_TRISHAPE,
                                       CA_SELECT_QUOKA };
    for (size_t i = 0; i < 5 * 3; i++) {
        const ca_selector selector = all[i % 5];
        ca_session_opt opt = options(f, selector == CA_SELECT_QUOKA ? CA_EXEC_DENSE : CA_EXEC_COMPACT, selector, 50);
        opt.select.flashprefill.alpha = opt.select.seer.threshold = 0.0F;
        opt.select.minference.top_k = 1000;
        opt.select.trishape.window = 1000;
        opt.select.quoka.kv_ratio = 1.0F;
        opt.dense_prefix = (uint32_t)(i / 5) * 77;
        opt.dense_tail = (uint32_t)(i / 5) * 9;
        ca_session *session = run(f, &opt, NULL);
        ca_session_stats stats;
        ca_session_get_stats(session, &stats);
        if (memcmp(ca_session_logits(session), ca_session_logits(dense), TINY_VOCAB * sizeof(float)) != 0 ||
            stats.kept_fraction != 1.0)
            fail_msg("%s, prefix %u: kept %g", ca_selector_name(selector), opt.dense_prefix, stats.kept_fraction);
        ca_session_destroy(session);
    }
    ca_session_destroy(dense);
}

/* What last_dense and last_mute do to the masks: last rows that are full, or that lack the diagonal, which is a vote of their own. */
typedef struct rows_seen {
    bool full[2], mute[2]; /* [the prompt's last chunk] */
    uint32_t masks;
} rows_seen;

static void look_at_rows(void *user, const ca_trace *trace)
{
    rows_seen *seen = user;
    const ca_mask *m = trace->mask;
    const bool last = trace->chunk.pos + trace->chunk.n_tokens == N;
    if (m == NULL) return;
    seen->masks++;
    for (uint32_t h = 0; h < m->n_heads; h++) {
        const uint64_t *row = m->bits + ((size_t)h * m->n_qblocks + m->n_qblocks - 1) * m->words;
        uint32_t kept = 0, diag = m->n_kblocks - 1;
        for (uint32_t j = 0; j < m->n_kblocks; j++) kept += (uint32_t)(row[j / 64] >> (j % 64) & 1);
        seen->full[last] |= kept == m->n_kblocks;
        seen->mute[last] |= (row[diag / 64] >> (diag % 64) & 1) == 0;
        assert_true(kept > 0); /* who does not vote reads what the others chose */
    }
}

static void test_last_blocks(void **state)
{
    const fixture *f = *state;
    for (unsigned i = 0; i < 8; i++) {
        const bool dense = i & 1, mute = i & 2, every = i & 4;
        rows_seen seen = { 0 };
        const ca_prefill_opt p = { .user = &seen, .on_trace = look_at_rows };
        ca_session_opt opt = options(f, CA_EXEC_COMPACT, CA_SELECT_FLASHPREFILL, 100);
        opt.select.flashprefill =
            (ca_flashprefill_opt){ .alpha = 2.0F, .window = 1, .last_dense = dense, .last_mute = mute, .every_chunk = every };
        ca_session_destroy(run(f, &opt, &p));
        assert_int_equal(seen.masks, N_LAYERS * 2);
        for (unsigned last = 0; last < 2; last++) {
            const bool holds = last || every;
            assert_int_equal(seen.mute[last], holds && mute);
            assert_int_equal(seen.full[last], holds && dense && !mute);
        }
    }
}

static void test_layer_stats(void **state)
{
    const fixture *f = *state;
    static const ca_selector all[] = { CA_SELECT_FLASHPREFILL, CA_SELECT_SEER,   CA_SELECT_XATTENTION, CA_SELECT_MINFERENCE,
                                       CA_SELECT_TRISHAPE,     CA_SELECT_ORACLE, CA_SELECT_NONE,       CA_SELECT_QUOKA };
    for (size_t i = 0; i < 6 * 3 + 2; i++) {
        const ca_selector selector = i < 18 ? all[i % 6] : all[6 + i - 18];
        const ca_executor executor = i < 18 ? CA_EXEC_BLOCK_SPARSE + (ca_executor)(i / 6) : CA_EXEC_DENSE;
        ca_session_opt opt = options(f, executor, selector, 75);
        opt.select.flashprefill = (ca_flashprefill_opt){ .alpha = 0.5F, .window = 1 };
        opt.select.seer.threshold = 0.2F;
        opt.select.xattention.threshold = opt.select.oracle.mass = 0.5F;
        opt.select.minference.top_k = 1;
        opt.select.trishape = (ca_trishape_opt){ 1, 1 };
        ca_session *session = run(f, &opt, NULL);
        ca_session_stats stats;
        ca_layer_stats before[N_LAYERS], after;
        double select_ms = 0.0, table_ms = 0.0, kernel_ms = 0.0, executed = 0.0;
        ca_session_get_stats(session, &stats);
        for (uint32_t l = 0; l < N_LAYERS; l++) {
            ca_layer_stats *s = &before[l];
            assert_int_equal(ca_session_get_layer_stats(session, l, s), CA_OK);
            select_ms += s->select_ms;
            table_ms += s->table_ms;
            kernel_ms += s->kernel_ms;
            executed += s->executed / N_LAYERS;
            const bool grow = s->asked <= s->q_union && s->q_union <= s->g_union && s->g_union <= 1.0;
            if (!grow || s->asked <= 0.0 || s->executed > 1.0)
                fail_msg("%s: %g asked, unions %g and %g, executed %g", ca_selector_name(selector), s->asked, s->q_union,
                         s->g_union, s->executed);
            switch (executor) {
            case CA_EXEC_DENSE:
                assert_true(s->asked == 1.0 && s->g_union == 1.0 && s->row_heads == 0.0 && s->dense_rows == 0.0);
                assert_true(selector == CA_SELECT_NONE ? s->executed == 1.0 : s->executed > 0.0 && s->executed < 0.7);
                break;
            case CA_EXEC_BLOCK_SPARSE:
                assert_true(s->asked < 1.0 && s->executed < 1.0 && s->row_heads == 1.0 && s->row_qblocks == 1.0);
                assert_true(fabs(s->executed - s->asked) < 1e-12);
                break;
            case CA_EXEC_COMPACT:
                assert_true(s->row_heads == 2.0 && s->row_qblocks > 2.0 && s->dense_rows == 0.0);
                assert_true(s->executed >= s->g_union);
                break;
            case CA_EXEC_AUTO:
                assert_true(s->executed >= s->asked && s->dense_rows >= 0.0 && s->dense_rows <= 1.0);
                assert_true(s->row_heads <= 2.0 && (s->dense_rows == 1.0) == (s->row_heads == 0.0));
            }
        }
        assert_true(fabs(select_ms - stats.select_ms) <= 1e-9 * select_ms && fabs(table_ms - stats.table_ms) <= 1e-9 * table_ms);
        assert_true(fabs(kernel_ms - stats.kernel_ms) <= 1e-9 * kernel_ms);
        assert_true(fabs(executed - stats.kept_fraction) < 1e-12); /* every layer has the same pairs of dense */

        for (uint32_t t = 0; t < 3; t++) assert_int_equal(ca_session_decode(session, f->tokens[t]), CA_OK);
        for (uint32_t l = 0; l < N_LAYERS; l++) {
            assert_int_equal(ca_session_get_layer_stats(session, l, &after), CA_OK);
            assert_memory_equal(&after, &before[l], sizeof after);
        }
        assert_int_equal(ca_session_get_layer_stats(session, N_LAYERS, &after), CA_E_ARG);
        assert_non_null(strstr(ca_last_error(), "layer 2 of 2"));
        assert_int_equal(ca_session_truncate(session, 0), CA_OK);
        assert_int_equal(ca_session_get_layer_stats(session, 0, &after), CA_OK);
        assert_true(after.asked == 1.0 && after.executed == 1.0 && after.kernel_ms == 0.0);
        ca_session_destroy(session);
    }
}

/* A gate's pools survive a cut and a second call like the pages do: close, and equal when the cut is between pages. */
static void test_gate_after_truncation(void **state)
{
    const fixture *f = *state;
    ca_session_opt opt = options(f, CA_EXEC_COMPACT, CA_SELECT_SEER, 64);
    opt.select.seer.threshold = 0.15F;
    ca_session *straight = create(f, &opt), *cut = create(f, &opt);
    assert_int_equal(ca_session_prefill(straight, f->tokens, 160, NULL), CA_OK);
    assert_int_equal(ca_session_prefill(straight, f->tokens + 160, N - 160, NULL), CA_OK);
    assert_int_equal(ca_session_prefill(cut, f->tokens, 160, NULL), CA_OK);
    assert_int_equal(ca_session_prefill(cut, f->tokens, 70, NULL), CA_OK); /* other tokens */
    assert_int_equal(ca_session_truncate(cut, 160), CA_OK);
    assert_int_equal(ca_session_prefill(cut, f->tokens + 160, N - 160, NULL), CA_OK);
    assert_memory_equal(ca_session_logits(cut), ca_session_logits(straight), TINY_VOCAB * sizeof(float));
    ca_session_destroy(straight);
    ca_session_destroy(cut);
}

static void test_bad_methods(void **state)
{
    const fixture *f = *state;
    ca_session_opt bad[8];
    static const char *const says[] = { "quoka",       "none",     "last_mute",    "use pages of 32",
                                        "no function", "stride 3", "needs a gate", "gate" };
    bad[0] = options(f, CA_EXEC_COMPACT, CA_SELECT_QUOKA, 64);
    bad[1] = options(f, CA_EXEC_AUTO, CA_SELECT_NONE, 64);
    bad[2] = options(f, CA_EXEC_BLOCK_SPARSE, CA_SELECT_FLASHPREFILL, 64);
    bad[2].select.flashprefill.last_mute = 1;
    bad[3] = options(f, CA_EXEC_COMPACT, CA_SELECT_SEER, 64); /* the gate has blocks of 32 */
    bad[3].page_tokens = 64;
    bad[4] = options(f, CA_EXEC_COMPACT, CA_SELECT_USER, 64);
    bad[5] = options(f, CA_EXEC_COMPACT, CA_SELECT_XATTENTION, 64);
    bad[5].select.xattention.stride = 3;
    bad[6] = options(f, CA_EXEC_COMPACT, CA_SELECT_TRISHAPE, 64);
    bad[6].summaries = CA_SUMMARY_GATE;
    bad[7] = options(f, CA_EXEC_COMPACT, CA_SELECT_SEER, 64);
    bad[7].select.seer.gate = NULL;
    for (size_t i = 0; i < 8; i++) {
        ca_session *session = NULL;
        const ca_status st = ca_session_create(f->model, &bad[i], &session);
        if ((st != CA_E_ARG && st != CA_E_SHAPE) || session || !strstr(ca_last_error(), says[i]))
            fail_msg("case %zu ('%s'): '%s'", i, says[i], ca_last_error());
    }
}

/* Attention of integers where it runs: other logits, but near. Where it does not, the session says why. */
static void integer_attention(void **state)
{
    const fixture *f = *state;
    ca_session_opt opt = options(f, CA_EXEC_DENSE, CA_SELECT_NONE, 100);
    ca_session *session = NULL;
    float logits[2][TINY_VOCAB];
    opt.attention = CA_ATTENTION_INT8;
    assert_int_equal(opt.page_tokens, 32);
    if (!ca_kern_int8_attention_name(ca_model_kern(f->model), opt.page_tokens)) {
        assert_int_equal(ca_session_create(f->model, &opt, &session), CA_E_UNSUPPORTED);
        assert_non_null(strstr(ca_last_error(), "these are of 32"));
    }
    opt.attention = (ca_attention)7;
    assert_int_equal(ca_session_create(f->model, &opt, &session), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "type 7"));
    opt.page_tokens = 64;
    if (!ca_kern_int8_attention_name(ca_model_kern(f->model), opt.page_tokens)) skip();
    for (int i = 0; i < 2; i++) {
        opt.attention = i == 1 ? CA_ATTENTION_INT8 : CA_ATTENTION_NATIVE;
        assert_int_equal(ca_session_create(f->model, &opt, &session), CA_OK);
        assert_int_equal(ca_session_prefill(session, f->tokens, N, NULL), CA_OK);
        memcpy(logits[i], ca_session_logits(session), sizeof logits[i]);
        ca_session_destroy(session);
    }
    double off = 0, all = 0;
    for (size_t i = 0; i < TINY_VOCAB; i++) {
        off += pow((double)logits[0][i] - (double)logits[1][i], 2);
        all += pow((double)logits[0][i], 2);
    }
    assert_true(off > 0.0 && sqrt(off / all) < 0.03);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selected_tokens),
        cmocka_unit_test(test_user_selector),
        cmocka_unit_test(test_full_selectors_equal_dense),
        cmocka_unit_test(test_last_blocks),
        cmocka_unit_test(test_layer_stats),
        cmocka_unit_test(test_gate_after_truncation),
        cmocka_unit_test(test_bad_methods),
        cmocka_unit_test(integer_attention),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
