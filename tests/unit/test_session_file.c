/* A session that was saved and loaded goes on as if nothing had happened, and a file that is not whole or not ours is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <compactattn/session.h>

#include "tiny_model.h"

enum { N = 300, MORE = 7, PAGE = 32 };

typedef struct fixture {
    tiny_model *tiny;
    ca_model *model, *other; /* the best kernels, and the scalar ones */
    uint32_t tokens[N + MORE];
    char path[64];
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return 1;
    f->tiny = tiny_new(&tiny_plain);
    const ca_model_opt scalar = { .isa = "scalar", .n_threads = 1 };
    if (ca_model_open(f->tiny->path, NULL, &f->model) != CA_OK) return 1;
    if (ca_model_open(f->tiny->path, &scalar, &f->other) != CA_OK) return 1;
    uint64_t seed = 5;
    for (uint32_t i = 0; i < N + MORE; i++) f->tokens[i] = (uint32_t)(fabsf(tiny_random(&seed)) * 255.0F);
    (void)snprintf(f->path, sizeof f->path, "session-%ld.cache", (long)getpid());
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    (void)remove(f->path);
    ca_model_close(f->model);
    ca_model_close(f->other);
    tiny_free(f->tiny);
    free(f);
    return 0;
}

static void must(ca_status st)
{
    if (st != CA_OK) fail_msg("%s", ca_last_error());
}

static ca_session_opt options(ca_selector selector)
{
    ca_session_opt opt;
    ca_session_defaults(selector == CA_SELECT_NONE || selector == CA_SELECT_QUOKA ? CA_EXEC_DENSE : CA_EXEC_AUTO, &opt);
    ca_select_defaults(selector, &opt.select);
    opt.chunk = 70;
    opt.page_tokens = PAGE;
    opt.context = N + 2 * MORE;
    opt.n_threads = 2;
    return opt;
}

static ca_session *create(const ca_model *model, const ca_session_opt *opt)
{
    ca_session *session = NULL;
    must(ca_session_create(model, opt, &session));
    return session;
}

/* Prefill and decode go on to the same bits, whatever the selector keeps beside its pages. */
static void goes_on(void **state)
{
    const fixture *f = *state;
    static const ca_selector selectors[] = { CA_SELECT_NONE, CA_SELECT_FLASHPREFILL, CA_SELECT_QUOKA };
    for (size_t i = 0; i < sizeof selectors / sizeof *selectors; i++) {
        const ca_session_opt opt = options(selectors[i]);
        ca_session *a = create(f->model, &opt), *b = create(f->model, &opt);
        must(ca_session_prefill(a, f->tokens, N, NULL));
        must(ca_session_save(a, f->path));
        must(ca_session_load(b, f->path));
        assert_int_equal(ca_session_len(b), N);
        assert_int_equal(ca_session_shared(b, f->tokens, N + MORE), N);
        assert_null(ca_session_logits(b));
        must(ca_session_prefill(a, f->tokens + N, MORE, NULL));
        must(ca_session_prefill(b, f->tokens + N, MORE, NULL));
        assert_memory_equal(ca_session_logits(a), ca_session_logits(b), TINY_VOCAB * sizeof(float));
        must(ca_session_decode(a, 3));
        must(ca_session_decode(b, 3));
        assert_memory_equal(ca_session_logits(a), ca_session_logits(b), TINY_VOCAB * sizeof(float));
        must(ca_session_truncate(b, N - PAGE / 2));
        must(ca_session_truncate(a, N - PAGE / 2));
        must(ca_session_prefill(a, f->tokens, MORE, NULL));
        must(ca_session_prefill(b, f->tokens, MORE, NULL));
        assert_memory_equal(ca_session_logits(a), ca_session_logits(b), TINY_VOCAB * sizeof(float));
        ca_session_destroy(a);
        ca_session_destroy(b);
    }
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    (void)fseek(in, 0, SEEK_END);
    *size = (size_t)ftell(in);
    rewind(in);
    unsigned char *content = malloc(*size);
    assert_int_equal(fread(content, 1, *size, in), *size);
    (void)fclose(in);
    return content;
}

static void write_file(const char *path, const unsigned char *content, size_t size)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(content, 1, size, out), size);
    (void)fclose(out);
}

/* Any byte that changed and any end that is missing: refused, and the session is empty and usable. */
static void damaged(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_SELECT_FLASHPREFILL);
    ca_session *a = create(f->model, &opt), *b = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    must(ca_session_save(a, f->path));
    size_t size = 0;
    unsigned char *content = read_file(f->path, &size);
    for (size_t at = 0; at < size; at += 1 + size / 97) {
        content[at] ^= 0x10;
        write_file(f->path, content, size);
        content[at] ^= 0x10;
        assert_int_equal(ca_session_load(b, f->path), CA_E_FORMAT);
        write_file(f->path, content, at);
        assert_int_not_equal(ca_session_load(b, f->path), CA_OK);
        assert_int_equal(ca_session_len(b), 0);
    }
    unsigned char *longer = calloc(size + 4, 1);
    memcpy(longer, content, size);
    write_file(f->path, longer, size + 4);
    free(longer);
    assert_int_equal(ca_session_load(b, f->path), CA_E_FORMAT);
    must(ca_session_prefill(b, f->tokens, N, NULL));
    free(content);
    ca_session_destroy(a);
    ca_session_destroy(b);
}

static void refused(const fixture *f, const ca_model *model, const ca_session_opt *opt, ca_status status, const char *says)
{
    ca_session *session = create(model, opt);
    assert_int_equal(ca_session_load(session, f->path), status);
    if (strstr(ca_last_error(), says) == NULL) fail_msg("\"%s\" does not say \"%s\"", ca_last_error(), says);
    assert_int_equal(ca_session_len(session), 0);
    must(ca_session_prefill(session, f->tokens, MORE, NULL));
    ca_session_destroy(session);
}

static void another_session(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_SELECT_FLASHPREFILL);
    ca_session *a = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    must(ca_session_save(a, f->path));
    assert_int_equal(ca_session_load(a, f->path), CA_E_ARG); /* not empty */
    ca_session_destroy(a);
    ca_session_opt other = opt;
    other.select.flashprefill.alpha = 0.5F;
    refused(f, f->model, &other, CA_E_SHAPE, "alpha 0.5");
    other = opt;
    other.page_tokens = 64;
    refused(f, f->model, &other, CA_E_SHAPE, "pages of 64");
    other = options(CA_SELECT_NONE);
    refused(f, f->model, &other, CA_E_SHAPE, "selector");
    other = opt;
    other.context = N - 1;
    refused(f, f->model, &other, CA_E_FULL, "context");
    refused(f, f->other, &opt, CA_E_SHAPE, "kernels");
    write_file(f->path, (const unsigned char *)"GGUF and more", 13);
    refused(f, f->model, &opt, CA_E_FORMAT, "not a saved session");
    (void)remove(f->path);
    refused(f, f->model, &opt, CA_E_IO, f->path);
    a = create(f->model, &opt);
    assert_int_equal(ca_session_save(a, "no such folder/x"), CA_E_IO);
    ca_session_destroy(a);
}

/* A model that differs in one matrix of its last layer. */
static void other_weights(void **state)
{
    const fixture *f = *state;
    static const char *const names[] = { "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down" };
    const ca_session_opt opt = options(CA_SELECT_FLASHPREFILL);
    ca_session *a = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    must(ca_session_save(a, f->path));
    ca_session_destroy(a);
    for (size_t i = 0; i <= sizeof names / sizeof *names; i++) { /* the last turn: the same weights in another file */
        tiny_model *tiny = calloc(1, sizeof *tiny);
        ca_model *model = NULL;
        char name[TINY_NAME];
        tiny->spec = tiny_plain;
        tiny_fill(tiny);
        const bool same = i == sizeof names / sizeof *names;
        for (size_t t = 0; t < tiny->n_tensors && !same; t++)
            if (strcmp(tiny->tensors[t].name, tiny_name(name, 1, names[i])) == 0)
                for (size_t j = 0; j < tiny->tensors[t].dims[0] * tiny->tensors[t].dims[1]; j++) tiny->tensors[t].data[j] *= 1.25F;
        tiny_write(tiny);
        must(ca_model_open(tiny->path, NULL, &model));
        if (!same) refused(f, model, &opt, CA_E_SHAPE, "weights");
        ca_session *b = create(model, &opt);
        if (same) must(ca_session_load(b, f->path));
        ca_session_destroy(b);
        ca_model_close(model);
        tiny_free(tiny);
    }
}

/* A gate for the tiny model; the seed decides on its weights. */
static ca_gate *make_gate(uint64_t seed)
{
    enum { HEADS = 4, DIM = 16, IN = 3 * DIM };
    double freq[DIM / 2];
    float w[HEADS * IN * DIM];
    ca_gate *gate = NULL;
    for (uint32_t i = 0; i < DIM / 2; i++) freq[i] = pow((double)tiny_theta, -2.0 * i / DIM);
    const ca_gate_opt opt = { .n_layers = tiny_plain.n_layers,
                              .n_heads = HEADS,
                              .n_kv_heads = tiny_plain.n_kv_heads,
                              .head_dim = DIM,
                              .hidden = DIM,
                              .block = PAGE,
                              .q_pool = CA_POOL_AVG,
                              .k_pool = CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG,
                              .layout = CA_GATE_SINGLE,
                              .inv_freq = freq,
                              .rotary = DIM,
                              .rope_scale = 1.0F };
    must(ca_gate_create(&opt, &gate));
    for (uint32_t l = 0; l < opt.n_layers; l++) {
        for (size_t i = 0; i < sizeof w / sizeof *w; i++) w[i] = tiny_random(&seed);
        must(ca_gate_set_layer(gate, l, w, NULL));
    }
    return gate;
}

/* What the learned selector and auto decide by. */
static void other_settings(void **state)
{
    const fixture *f = *state;
    ca_gate *gate = make_gate(1), *another = make_gate(2);
    ca_session_opt opt = options(CA_SELECT_SEER);
    opt.select.seer.gate = gate;
    opt.select.seer.n_steps = 1;
    opt.select.seer.steps[0].max_kv = 4096;
    opt.select.seer.steps[0].threshold = 0.5F;
    opt.cost = (ca_cost){ 1.0, 2.0, 3.0, 0 };
    ca_session *a = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    must(ca_session_save(a, f->path));
    ca_session_destroy(a);
    ca_session_opt other = opt;
    other.select.seer.gate = another;
    refused(f, f->model, &other, CA_E_SHAPE, "gate");
    other = opt;
    other.select.seer.steps[0].threshold = 0.25F;
    refused(f, f->model, &other, CA_E_SHAPE, "4096:0.25");
    other = opt;
    other.cost.job = 4.0;
    refused(f, f->model, &other, CA_E_SHAPE, "cost 1 2 4");
    ca_session *b = create(f->model, &opt);
    must(ca_session_load(b, f->path));
    ca_session_destroy(b);
    opt.page_tokens = 64; /* what integers take */
    opt.select.selector = CA_SELECT_FLASHPREFILL;
    if (ca_kern_int8_attention_name(ca_model_kern(f->model), opt.page_tokens)) {
        a = create(f->model, &opt);
        must(ca_session_prefill(a, f->tokens, N, NULL));
        must(ca_session_save(a, f->path));
        ca_session_destroy(a);
        other = opt;
        other.attention = CA_ATTENTION_INT8;
        refused(f, f->model, &other, CA_E_SHAPE, "int8 attention");
    }
    ca_gate_destroy(gate);
    ca_gate_destroy(another);
}

/* The chunk that counts is the one that was asked for, not what the context left of it. */
static void another_context(void **state)
{
    const fixture *f = *state;
    ca_session_opt opt = options(CA_SELECT_FLASHPREFILL);
    opt.chunk = 1024;
    ca_session *a = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    must(ca_session_save(a, f->path));
    opt.context += PAGE;
    ca_session *b = create(f->model, &opt);
    must(ca_session_load(b, f->path));
    must(ca_session_prefill(a, f->tokens + N, MORE, NULL));
    must(ca_session_prefill(b, f->tokens + N, MORE, NULL));
    assert_memory_equal(ca_session_logits(a), ca_session_logits(b), TINY_VOCAB * sizeof(float));
    opt.chunk = 512;
    refused(f, f->model, &opt, CA_E_SHAPE, "chunk 512");
    ca_session_destroy(a);
    ca_session_destroy(b);
}

/* Nothing but a file of that name is replaced, and no other file is touched. */
static void target(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_SELECT_NONE);
    char beside[sizeof f->path + 8];
    struct stat st;
    ca_session *a = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    (void)remove(f->path);
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(ca_session_save(a, f->path), CA_E_IO);
    assert_int_equal(stat(f->path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(remove(f->path), 0);
    (void)snprintf(beside, sizeof beside, "%s.part", f->path);
    write_file(beside, (const unsigned char *)"another's", 9);
    must(ca_session_save(a, f->path));
    must(ca_session_save(a, f->path));
    size_t size = 0;
    unsigned char *content = read_file(beside, &size);
    assert_int_equal(size, 9);
    free(content);
    assert_int_equal(ca_session_save(a, beside), CA_E_IO);
    assert_non_null(strstr(ca_last_error(), "no saved session"));
    content = read_file(beside, &size);
    assert_memory_equal(content, "another's", 9);
    free(content);
    write_file(beside, (const unsigned char *)"", 0);
    must(ca_session_save(a, beside)); /* an empty file is nobody's */
    assert_int_equal(remove(f->path), 0);
    assert_int_equal(symlink(beside, f->path), 0);
    must(ca_session_save(a, f->path));
    assert_int_equal(lstat(f->path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    (void)remove(f->path);
    (void)remove(beside);
    ca_session_destroy(a);
}

/* A layer without a window that holds no first page, though every length and the checksum fit. */
static void forgotten(void **state)
{
    const fixture *f = *state;
    const ca_session_opt opt = options(CA_SELECT_NONE);
    ca_session *a = create(f->model, &opt);
    must(ca_session_prefill(a, f->tokens, N, NULL));
    must(ca_session_save(a, f->path));
    ca_session_destroy(a);
    size_t size = 0;
    uint32_t text = 0, start = PAGE;
    unsigned char *content = read_file(f->path, &size);
    memcpy(&text, content + 12, sizeof text);
    const size_t layers = 16 + text + 4 + N * sizeof(uint32_t), n_heads = tiny_plain.n_kv_heads;
    const size_t layer = (size - layers - 4) / tiny_plain.n_layers, head = (layer - 8) / n_heads,
                 page = head / ((N + PAGE - 1) / PAGE);
    memcpy(content + layers, &start, sizeof start);
    for (size_t h = n_heads; h-- > 0; size -= page) {
        unsigned char *first = content + layers + 8 + h * head;
        memmove(first, first + page, size - (size_t)(first - content) - page);
    }
    const uint32_t crc = (uint32_t)crc32_z(crc32_z(0, NULL, 0), content, size - 4);
    memcpy(content + size - 4, &crc, sizeof crc);
    write_file(f->path, content, size);
    free(content);
    refused(f, f->model, &opt, CA_E_FORMAT, "do not match");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on),       cmocka_unit_test(damaged),        cmocka_unit_test(another_session),
        cmocka_unit_test(other_weights), cmocka_unit_test(other_settings), cmocka_unit_test(another_context),
        cmocka_unit_test(target),        cmocka_unit_test(forgotten),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
