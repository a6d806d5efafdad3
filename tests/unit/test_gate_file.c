/* Gates in files: every layout that a file can have, opened for a small model; what is wrong, by name; and checkpoints of torch that
 * are converted and opened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <compactattn/model.h>

#include <sys/stat.h>

#include "base/arith.h"
#include "cache/gate.h"
#include "load/safetensors.h"

#include "tiny_model.h"

enum { MAX = CA_POOL_MAX, MIN = CA_POOL_MIN, AVG = CA_POOL_AVG, ALL = MAX | MIN | AVG, N_MODELS = 4, MAX_ITEMS = 8 };

/* 4 query heads of 16 channels and 2 KV heads; 4 and 4; 4 and 2 of 32 channels, without and with scaled RoPE. */
static enum model_kind { PLAIN, EQUAL, WIDE, SCALED } const kinds[N_MODELS] = { PLAIN, EQUAL, WIDE, SCALED };
static tiny_model *tiny[N_MODELS];
static ca_model *models[N_MODELS];
static char folder[] = "/tmp/ca-gate-XXXXXX", path[64];

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        tiny_spec spec = tiny_plain;
        if (kinds[i] == EQUAL) spec.n_kv_heads = spec.n_heads;
        if (kinds[i] == WIDE || kinds[i] == SCALED) spec.head_dim = 32;
        spec.rope_freqs = kinds[i] == SCALED;
        tiny[i] = tiny_new(&spec);
        const ca_model_opt opt = { .isa = "scalar", .n_threads = 1 };
        if (ca_model_open(tiny[i]->path, &opt, &models[i]) != CA_OK) return -1;
    }
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/gate.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        ca_model_close(models[i]);
        tiny_free(tiny[i]);
    }
    return rmdir(folder);
}

/* ---- files ---- */

typedef struct gate_spec {
    uint64_t k[3], q[3]; /* dims of every layer; q[0] = 0: no such tensor */
    ca_block_type type;
    const char *gate_type, *block; /* metadata */
} gate_spec;

/* One thing that is wrong. */
typedef struct damage {
    const char *skip;     /* no tensor with this in its name */
    const char *extra;    /* one more tensor, like the K of layer 0 */
    const char *grow;     /* one more head in this tensor */
    const char *infinite; /* this one holds an infinity at element 5 */
} damage;

/* Exact in every type. */
static float weight(size_t layer, char which, size_t e)
{
    return (float)((int)((7 * e + 3 * layer + (which == 'q')) % 251) - 125) / 64.0F;
}

static uint16_t to_f16(float v)
{
    int exponent;
    const float m = frexpf(fabsf(v), &exponent);
    const uint32_t sign = v < 0.0F ? 0x8000 : 0;
    return v == 0.0F ? 0 : (uint16_t)(sign | (uint32_t)(exponent + 14) << 10 | (uint32_t)(m * 2048.0F - 1024.0F));
}

typedef struct written {
    const gate_spec *spec;
    const damage *harm;
    char names[MAX_ITEMS][80];
    uint64_t dims[MAX_ITEMS][3];
    ca_st_item items[MAX_ITEMS];
    size_t n;
} written;

static ca_status fill(void *user, size_t i, void *out)
{
    const written *w = user;
    const size_t n = (size_t)(w->dims[i][0] * w->dims[i][1] * w->dims[i][2]);
    const char *at = strstr(w->names[i], "mask_linear_");
    const size_t layer = strstr(w->names[i], "layers.1.") != NULL;
    for (size_t e = 0; e < n; e++) {
        float v = weight(layer, at ? at[12] : 'k', e);
        if (w->harm->infinite && strcmp(w->names[i], w->harm->infinite) == 0 && e == 5) v = INFINITY;
        if (w->spec->type == CA_BLOCK_F32) {
            memcpy((float *)out + e, &v, sizeof v);
        } else {
            const uint16_t bits = w->spec->type == CA_BLOCK_BF16 ? ca_f32_to_bf16(v) : to_f16(v);
            memcpy((uint16_t *)out + e, &bits, sizeof bits);
        }
    }
    return CA_OK;
}

static void add_item(written *w, const char *name, const uint64_t dims[3])
{
    if (w->harm->skip && strstr(name, w->harm->skip)) return;
    assert_true(w->n < MAX_ITEMS);
    snprintf(w->names[w->n], sizeof w->names[w->n], "%s", name);
    memcpy(w->dims[w->n], dims, sizeof w->dims[w->n]);
    if (w->harm->grow && strcmp(name, w->harm->grow) == 0) w->dims[w->n][0]++;
    w->items[w->n] = (ca_st_item){ w->names[w->n], w->spec->type, 3, w->dims[w->n] };
    w->n++;
}

static void write_gate(const gate_spec *spec, const damage *harm)
{
    written w = { .spec = spec, .harm = harm };
    const char *meta[2][2];
    size_t n_meta = 0;
    if (spec->gate_type) meta[n_meta][0] = "gate_type", meta[n_meta++][1] = spec->gate_type;
    if (spec->block) meta[n_meta][0] = "gate_block_size", meta[n_meta++][1] = spec->block;
    for (int layer = 0; layer < 2; layer++) {
        char name[80];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.attn_gate.mask_linear_k.weight", layer);
        add_item(&w, name, spec->k);
        snprintf(name, sizeof name, "model.layers.%d.self_attn.attn_gate.mask_linear_q.weight", layer);
        if (spec->q[0]) add_item(&w, name, spec->q);
    }
    if (harm->extra) add_item(&w, harm->extra, spec->k);
    const ca_st_content content = { w.items, w.n, (const char *const(*)[2])meta, n_meta, fill, &w };
    if (ca_safetensors_write(path, &content) != CA_OK) fail_msg("%s", ca_last_error());
}

/* ---- good gates ---- */

static void check_weights(size_t row, const ca_gate *gate, float **layers, char which, const uint64_t dims[3])
{
    const size_t hidden = gate->opt.hidden, in = (size_t)dims[1];
    for (size_t l = 0; l < gate->opt.n_layers; l++)
        for (size_t e = 0; e < dims[0] * in * hidden; e++) {
            const size_t h = e / (in * hidden), i = e / hidden % in, j = e % hidden;
            const float got = layers[l][((h * (hidden / 16) + j / 16) * in + i) * 16 + j % 16];
            if (got != weight(l, which, e)) fail_msg("row %zu: layer %zu %c: weight %zu is %g", row, l, which, e, (double)got);
        }
}

static void opens_every_layout(void **state)
{
    (void)state;
    static const struct {
        enum model_kind model;
        gate_spec spec;
        ca_gate_layout layout;
        uint32_t q_pool, k_pool, hidden, block;
    } cases[] = {
        { PLAIN, { { 4, 48, 16 }, { 0 }, CA_BLOCK_BF16, NULL, NULL }, CA_GATE_SINGLE, AVG, ALL, 16, 64 },
        { PLAIN, { { 4, 48, 16 }, { 0 }, CA_BLOCK_F16, "Qavg_Kmaxminavg", "64" }, CA_GATE_SINGLE, AVG, ALL, 16, 64 },
        { PLAIN, { { 4, 16, 16 }, { 0 }, CA_BLOCK_F32, NULL, "128" }, CA_GATE_SINGLE, AVG, AVG, 16, 128 },
        { PLAIN, { { 4, 16, 16 }, { 0 }, CA_BLOCK_F32, "Qmax_Kmin", "32" }, CA_GATE_SINGLE, MAX, MIN, 16, 32 },
        { PLAIN, { { 4, 32, 16 }, { 0 }, CA_BLOCK_BF16, "Qmin_Kmaxavg", NULL }, CA_GATE_SINGLE, MIN, MAX | AVG, 16, 64 },
        { PLAIN, { { 2, 48, 32 }, { 4, 16, 32 }, CA_BLOCK_F32, NULL, NULL }, CA_GATE_DOUBLE, AVG, ALL, 32, 64 },
        { PLAIN, { { 2, 16, 16 }, { 4, 48, 16 }, CA_BLOCK_F16, NULL, NULL }, CA_GATE_DOUBLE, ALL, AVG, 16, 64 },
        { PLAIN,
          { { 2, 32, 16 }, { 4, 32, 16 }, CA_BLOCK_F16, "Qmaxmin_Kminavg", NULL },
          CA_GATE_DOUBLE,
          MAX | MIN,
          MIN | AVG,
          16,
          64 },
        { PLAIN, { { 2, 48, 16 }, { 2, 32, 16 }, CA_BLOCK_BF16, NULL, NULL }, CA_GATE_GROUP, AVG, ALL, 16, 64 },
        { PLAIN, { { 2, 16, 32 }, { 2, 64, 32 }, CA_BLOCK_F32, "Qmaxavg_Kmax", NULL }, CA_GATE_GROUP, MAX | AVG, MAX, 32, 64 },
        { EQUAL, { { 4, 48, 16 }, { 4, 16, 16 }, CA_BLOCK_BF16, NULL, NULL }, CA_GATE_DOUBLE, AVG, ALL, 16, 64 },
        { EQUAL, { { 4, 48, 16 }, { 0 }, CA_BLOCK_BF16, NULL, NULL }, CA_GATE_SINGLE, AVG, ALL, 16, 64 },
        { WIDE, { { 2, 96, 16 }, { 4, 32, 16 }, CA_BLOCK_F32, NULL, NULL }, CA_GATE_DOUBLE, AVG, ALL, 16, 64 },
        { SCALED, { { 4, 96, 32 }, { 0 }, CA_BLOCK_F32, NULL, NULL }, CA_GATE_SINGLE, AVG, ALL, 32, 64 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tiny_model *t = tiny[cases[i].model];
        const uint32_t dim = t->spec.head_dim, hidden = cases[i].hidden, rotary = dim < hidden ? dim : hidden;
        const float *divisors = tiny_data(t, "rope_freqs.weight");
        ca_gate *gate;
        ca_gate_opt o;
        write_gate(&cases[i].spec, &(damage){ 0 });
        if (ca_gate_open(path, models[cases[i].model], &gate) != CA_OK) fail_msg("row %zu: %s", i, ca_last_error());
        ca_gate_get_opt(gate, &o);
        if (o.layout != cases[i].layout || o.q_pool != cases[i].q_pool || o.k_pool != cases[i].k_pool || o.hidden != hidden ||
            o.block != cases[i].block || o.rotary != rotary)
            fail_msg("row %zu: layout %d, pools %u %u, hidden %u, block %u, rotary %u", i, (int)o.layout, o.q_pool, o.k_pool,
                     o.hidden, o.block, o.rotary);
        assert_true(o.n_layers == 2 && o.n_heads == 4 && o.n_kv_heads == t->spec.n_kv_heads && o.head_dim == dim);
        assert_true(o.rope_scale == 1.0F);
        for (uint32_t c = 0; c < rotary / 2; c++) {
            const double expected = pow((double)tiny_theta, -2.0 * c / rotary) / (divisors ? (double)divisors[c] : 1.0);
            assert_true(fabs(o.inv_freq[c] / expected - 1.0) < 1e-12);
        }
        assert_int_equal(o.key_rotary, dim); /* keys turn as the model's do, however wide the gate is */
        for (uint32_t c = 0; c < dim / 2; c++) {
            const double expected = pow((double)tiny_theta, -2.0 * c / dim) / (divisors ? (double)divisors[c] : 1.0);
            assert_true(fabs(o.key_freq[c] / expected - 1.0) < 1e-12);
        }
        check_weights(i, gate, gate->wk, 'k', cases[i].spec.k);
        if (cases[i].spec.q[0]) check_weights(i, gate, gate->wq, 'q', cases[i].spec.q);
        ca_gate_destroy(gate);
    }
    assert_int_equal(unlink(path), 0);
}

/* ---- bad gates ---- */

#define SINGLE { 4, 48, 16 }, { 0 }, CA_BLOCK_BF16
#define DOUBLE { 2, 48, 16 }, { 4, 16, 16 }, CA_BLOCK_BF16
#define LAYER(l) "model.layers." #l ".self_attn.attn_gate."
#define K(l) LAYER(l) "mask_linear_k.weight"
#define Q(l) LAYER(l) "mask_linear_q.weight"

static void names_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        enum model_kind model;
        gate_spec spec;
        damage harm;
        ca_status status;
        const char *says;
    } cases[] = {
        { PLAIN,
          { SINGLE, NULL, NULL },
          { .skip = "layers.0" },
          CA_E_FORMAT,
          "'" K(0) "' is missing (expected [4 or 2, pools * 16, width])" },
        { PLAIN, { SINGLE, NULL, NULL }, { .skip = "layers.1" }, CA_E_FORMAT, "'" K(1) "' is missing (expected [4, 48, 16])" },
        { PLAIN, { DOUBLE, NULL, NULL }, { .skip = Q(1) }, CA_E_FORMAT, "'" Q(1) "' is missing (expected [4, 16, 16])" },
        { PLAIN,
          { DOUBLE, NULL, NULL },
          { .skip = Q(0) },
          CA_E_FORMAT,
          "'" K(0) "' is [2, 48, 16], expected [4, 1 to 3 times 16, 16] for this model without a mask_linear_q" },
        { PLAIN, { SINGLE, NULL, NULL }, { .extra = Q(1) }, CA_E_FORMAT, "'" Q(1) "' is there, but layer 0 has no mask_linear_q" },
        { PLAIN, { SINGLE, NULL, NULL }, { .extra = K(2) }, CA_E_FORMAT, "'" K(2) "' is one layer too many" },
        { PLAIN, { SINGLE, NULL, NULL }, { .grow = K(1) }, CA_E_FORMAT, "'" K(1) "' is [5, 48, 16], expected [4, 48, 16]" },
        { PLAIN, { DOUBLE, NULL, NULL }, { .grow = Q(1) }, CA_E_FORMAT, "'" Q(1) "' is [5, 16, 16], expected [4, 16, 16]" },
        { PLAIN,
          { DOUBLE, NULL, NULL },
          { .grow = Q(0) },
          CA_E_FORMAT,
          "'" Q(0) "' is [5, 16, 16], expected [4, 1 to 3 times 16, 16] or [2, 1 to 3 times 32, 16]" },
        { PLAIN, { SINGLE, NULL, NULL }, { .infinite = K(1) }, CA_E_FORMAT, "'" K(1) "' holds inf at element 5" },
        { PLAIN, { DOUBLE, NULL, NULL }, { .infinite = Q(0) }, CA_E_FORMAT, "'" Q(0) "' holds inf at element 5" },
        { PLAIN,
          { SINGLE, NULL, NULL },
          { .extra = LAYER(0) "attngate_linear_q.weight" },
          CA_E_UNSUPPORTED,
          "attngate_linear_q.weight' belongs to a gate made for decoding" },
        { PLAIN,
          { SINGLE, NULL, NULL },
          { .extra = LAYER(0) "attngate_qnorm.weight" },
          CA_E_UNSUPPORTED,
          "attngate_qnorm.weight' belongs to a gate made for decoding" },
        { PLAIN,
          { { 4, 64, 16 }, { 0 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_FORMAT,
          "is [4, 64, 16], expected [4, 1 to 3 times 16, 16]" },
        { PLAIN, { { 4, 24, 16 }, { 0 }, CA_BLOCK_F32, NULL, NULL }, { 0 }, CA_E_FORMAT, "is [4, 24, 16], expected" },
        { PLAIN, { { 4, 0, 16 }, { 0 }, CA_BLOCK_F32, NULL, NULL }, { 0 }, CA_E_FORMAT, "is [4, 0, 16], expected" },
        { PLAIN,
          { { 4, 48, 32 }, { 0 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_FORMAT,
          "is [4, 48, 32], expected [4, 1 to 3 times 16, 16]" },
        { PLAIN,
          { { 4, 48, 16 }, { 4, 16, 16 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_FORMAT,
          "is [4, 48, 16], expected [2, 1 to 3 times 16, width] for this model and a mask_linear_q" },
        { PLAIN, { { 2, 48, 16 }, { 4, 16, 32 }, CA_BLOCK_F32, NULL, NULL }, { 0 }, CA_E_FORMAT, "is [4, 16, 32], expected" },
        { PLAIN, { { 2, 48, 16 }, { 2, 16, 16 }, CA_BLOCK_F32, NULL, NULL }, { 0 }, CA_E_FORMAT, "is [2, 16, 16], expected" },
        { PLAIN,
          { { 2, 48, 24 }, { 4, 16, 24 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_UNSUPPORTED,
          "hidden 24 is not a multiple of 16" },
        { PLAIN,
          { { 2, 48, 0 }, { 4, 16, 0 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_UNSUPPORTED,
          "hidden 0 is not a multiple of 16" },
        { PLAIN,
          { { 4, 32, 16 }, { 0 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_FORMAT,
          "two pools of keys and no metadata 'gate_type'" },
        { PLAIN,
          { { 2, 48, 16 }, { 4, 32, 16 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_FORMAT,
          "two pools of queries and no metadata" },
        { PLAIN,
          { SINGLE, "Qavg_Kmaxmin", NULL },
          { 0 },
          CA_E_FORMAT,
          "gate type 'Qavg_Kmaxmin' does not fit its tensors, which have 1 pools of queries and 3 of keys" },
        { PLAIN, { SINGLE, "Qmaxavg_Kmaxminavg", NULL }, { 0 }, CA_E_FORMAT, "does not fit its tensors" },
        { PLAIN, { SINGLE, "Qavg_Kminmaxavg", NULL }, { 0 }, CA_E_FORMAT, "gate type 'Qavg_Kminmaxavg' is not of the form" },
        { PLAIN, { SINGLE, "Qavg_K", NULL }, { 0 }, CA_E_FORMAT, "is not of the form" },
        { PLAIN, { SINGLE, "Q_Kavg", NULL }, { 0 }, CA_E_FORMAT, "is not of the form" },
        { PLAIN, { SINGLE, "", NULL }, { 0 }, CA_E_FORMAT, "is not of the form" },
        { PLAIN, { SINGLE, NULL, "6 4" }, { 0 }, CA_E_FORMAT, "'gate_block_size' is '6 4'" },
        { PLAIN, { SINGLE, NULL, "99999999999999999999" }, { 0 }, CA_E_FORMAT, "'gate_block_size' is" },
        { PLAIN, { SINGLE, NULL, "48" }, { 0 }, CA_E_UNSUPPORTED, "block 48 is not" },
        { EQUAL, { { 2, 48, 16 }, { 4, 16, 16 }, CA_BLOCK_F32, NULL, NULL }, { 0 }, CA_E_FORMAT, "is [2, 48, 16], expected [4," },
        { SCALED,
          { { 2, 96, 16 }, { 4, 32, 16 }, CA_BLOCK_F32, NULL, NULL },
          { 0 },
          CA_E_UNSUPPORTED,
          "the model scales its RoPE" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ca_gate *gate = NULL;
        write_gate(&cases[i].spec, &cases[i].harm);
        const ca_status st = ca_gate_open(path, models[cases[i].model], &gate);
        if (st != cases[i].status || !strstr(ca_last_error(), cases[i].says) || !strstr(ca_last_error(), path))
            fail_msg("row %zu: %d, \"%s\", expected %d, \"%s\"", i, (int)st, ca_last_error(), (int)cases[i].status, cases[i].says);
        assert_null(gate);
    }
    assert_int_equal(unlink(path), 0);
    ca_gate *gate;
    assert_int_equal(ca_gate_open(path, models[PLAIN], &gate), CA_E_IO);
    assert_int_equal(ca_gate_open(NULL, models[PLAIN], &gate), CA_E_ARG);
    assert_int_equal(ca_gate_open(path, NULL, &gate), CA_E_ARG);
}

/* A type that no gate has: named when its values are wanted. */
static void refuses_other_types(void **state)
{
    (void)state;
    char header[256];
    const int n = snprintf(header, sizeof header,
                           "{\"" K(0) "\":{\"dtype\":\"U8\",\"shape\":[4,16,16],\"data_offsets\":[0,1024]},\"" K(
                               1) "\":{\"dtype\":\"U8\",\"shape\":[4,16,16],\"data_offsets\":[1024,2048]}}");
    assert_true(n > 0 && (size_t)n < sizeof header);
    const uint64_t length = (uint64_t)n;
    static const char data[2048];
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&length, sizeof length, 1, file);
    fwrite(header, (size_t)n, 1, file);
    fwrite(data, sizeof data, 1, file);
    assert_int_equal(fclose(file), 0);
    ca_gate *gate;
    assert_int_equal(ca_gate_open(path, models[PLAIN], &gate), CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "tensor '" K(0) "' is of dtype U8"));
    assert_int_equal(unlink(path), 0);
}

/* ---- conversion ---- */

static void copy_file(const char *from, const char *to)
{
    char content[8192];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in && out);
    const size_t n = fread(content, 1, sizeof content, in);
    assert_true(n > 0 && n < sizeof content && fwrite(content, n, 1, out) == 1);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void put_text(const char *to, const char *text)
{
    FILE *out = fopen(to, "wb");
    assert_true(out && fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* good.pth: element e of its storage is ((e mod 251) - 125) / 64; layer 0 starts at 7, layer 1 at 1031 with rows and columns swapped. */
static void check_converted(const ca_gate *gate)
{
    for (size_t l = 0; l < 2; l++)
        for (size_t e = 0; e < 1024; e++) {
            const size_t h = e / 256, i = e / 16 % 16, j = e % 16;
            const size_t from = l == 0 ? 7 + e : 1031 + 256 * h + i + 16 * j;
            assert_true(gate->wk[l][(h * 16 + i) * 16 + j] == (float)((int)(from % 251) - 125) / 64.0F);
        }
}

static void converts_and_opens(void **state)
{
    (void)state;
    static const char config[] = "{\"hidden_size\": 64, \"seerattn_gate_type\": \"Qmax_Kmin\", \"seerattn_gate_block_size\": 128}";
    char pth[64], json[64];
    snprintf(pth, sizeof pth, "%s/in.pth", folder);
    snprintf(json, sizeof json, "%s/config.json", folder);
    copy_file(CA_TEST_DATA "/gate/good.pth", pth);
    for (int with_config = 0; with_config < 2; with_config++) {
        ca_gate_summary s;
        ca_gate *gate;
        ca_gate_opt o;
        if (with_config) put_text(json, config);
        if (ca_gate_convert(pth, path, &s) != CA_OK) fail_msg("%s", ca_last_error());
        assert_true(s.n_tensors == 2 && s.n_layers == 2 && s.n_heads == 4 && s.hidden == 16 && s.bytes == 4096);
        assert_string_equal(s.dtype, "BF16");
        assert_string_equal(s.gate_type, with_config ? "Qmax_Kmin" : "");
        assert_int_equal(s.block, with_config ? 128 : 0);
        if (ca_gate_open(path, models[PLAIN], &gate) != CA_OK) fail_msg("%s", ca_last_error());
        ca_gate_get_opt(gate, &o);
        assert_int_equal(o.q_pool, with_config ? MAX : AVG);
        assert_int_equal(o.k_pool, with_config ? MIN : AVG);
        assert_int_equal(o.block, with_config ? 128 : 64);
        check_converted(gate);
        ca_gate_destroy(gate);

        assert_int_equal(ca_gate_convert(pth, path, NULL), CA_E_IO); /* never overwritten */
        assert_non_null(strstr(ca_last_error(), "is there already"));
        assert_int_equal(unlink(path), 0);
    }
    static const struct {
        const char *config, *says;
    } bad[] = {
        { "{", "config.json: line 1" },
        { "[]", "config.json: is no JSON object" },
        { "{\"seerattn_gate_type\": 3}", "'seerattn_gate_type' is no string" },
        { "{\"seerattn_gate_type\": \"Kavg\"}", "config.json: gate type 'Kavg' is not of the form" },
        { "{\"seerattn_gate_block_size\": 0}", "'seerattn_gate_block_size' is no number" },
        { "{\"seerattn_gate_block_size\": \"64\"}", "'seerattn_gate_block_size' is no number" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text(json, bad[i].config);
        assert_int_equal(ca_gate_convert(pth, path, NULL), CA_E_FORMAT);
        if (!strstr(ca_last_error(), bad[i].says)) fail_msg("row %zu: %s", i, ca_last_error());
        assert_int_equal(access(path, F_OK), -1);
    }
    assert_int_equal(truncate(json, (64 << 20) + 1), 0);
    assert_int_equal(ca_gate_convert(pth, path, NULL), CA_E_FORMAT);
    assert_non_null(strstr(ca_last_error(), "config.json: has 67108865 bytes, at most 67108864 are read"));
    assert_int_equal(unlink(json), 0);
    assert_int_equal(unlink(pth), 0);
}

static void converts_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        ca_status status;
        const char *says;
    } cases[] = {
        { "types.pth", CA_E_UNSUPPORTED, "tensor 'a' is not part of a gate" },
        { "bad_other.pth", CA_E_UNSUPPORTED, "tensor 'model.embed_tokens.weight' is not part of a gate" },
        { "bad_decode.pth", CA_E_UNSUPPORTED, "belongs to a gate made for decoding" },
        { "bad_global.pth", CA_E_UNSUPPORTED, "global 'os.system' is refused" },
        { "bad_crc.pth", CA_E_FORMAT, "is damaged" },
        { "bad_shape.pth", CA_E_FORMAT, "has 2 dimensions, expected 3" },
        { "bad_empty.pth", CA_E_FORMAT, "holds no gate" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char pth[512];
        snprintf(pth, sizeof pth, CA_TEST_DATA "/gate/%s", cases[i].file);
        const ca_status st = ca_gate_convert(pth, path, NULL);
        if (st != cases[i].status || !strstr(ca_last_error(), cases[i].says))
            fail_msg("%s: %d, \"%s\"", cases[i].file, (int)st, ca_last_error());
        assert_int_equal(access(path, F_OK), -1);
    }
    assert_int_equal(ca_gate_convert(NULL, path, NULL), CA_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_every_layout), cmocka_unit_test(names_what_is_wrong),   cmocka_unit_test(refuses_other_types),
        cmocka_unit_test(converts_and_opens), cmocka_unit_test(converts_nothing_else),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
