/* A small random llama as a GGUF file, and its forward pass in double precision, straight from the formulas. */
#ifndef CA_TEST_TINY_MODEL_H
#define CA_TEST_TINY_MODEL_H

#include <math.h>
#include <unistd.h>

#include "vocab_image.h"

enum { TINY_VOCAB = 256, TINY_MAX_TENSORS = 64, TINY_NAME = 48 };

/* Zero fields of the second block take their plain value: one lets a test damage one thing. */
typedef struct tiny_spec {
    uint32_t hidden, n_layers, n_heads, n_kv_heads, head_dim, ffn, context;
    bool untied, rope_freqs;

    const char *architecture;        /* "llama" */
    const char *skip_key;            /* leave this key out */
    const char *skip_tensor;         /* leave this tensor out */
    const char *extra_tensor;        /* add a vector of this name */
    const char *grow_tensor;         /* one row too many in this tensor */
    const char *str_key, *str_value; /* one more key */
    const char *u32_key;             /* this key gets u32_value in place of its own, or is added */
    uint32_t u32_value;
} tiny_spec;

static const tiny_spec tiny_plain = {
    .hidden = 64, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .ffn = 96, .context = 640
};

typedef struct tiny_tensor {
    char name[TINY_NAME];
    uint32_t n_dims;
    uint64_t dims[2]; /* fastest first */
    float *data;
} tiny_tensor;

typedef struct tiny_model {
    tiny_spec spec;
    tiny_tensor tensors[TINY_MAX_TENSORS];
    size_t n_tensors;
    char path[64];
} tiny_model;

static const float tiny_eps = 1e-5F;
static const float tiny_theta = 10000.0F;

static inline float tiny_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(uint32_t)(*state >> 32) * 0x1p-31F;
}

/* Values around `middle`, `spread` wide. */
static inline void tiny_add(tiny_model *m, const char *name, uint64_t columns, uint64_t rows, float middle, float spread,
                            uint64_t *seed)
{
    tiny_tensor *t = &m->tensors[m->n_tensors];
    if (m->spec.skip_tensor != NULL && strcmp(name, m->spec.skip_tensor) == 0) return;
    if (m->spec.grow_tensor != NULL && strcmp(name, m->spec.grow_tensor) == 0) {
        if (rows > 0)
            rows++;
        else
            columns++;
    }
    if (++m->n_tensors > TINY_MAX_TENSORS) abort();
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n_dims = rows > 0 ? 2 : 1;
    t->dims[0] = columns;
    t->dims[1] = rows > 0 ? rows : 1;
    const size_t n = (size_t)(t->dims[0] * t->dims[1]);
    t->data = malloc(n * sizeof *t->data);
    if (t->data == NULL) abort();
    for (size_t i = 0; i < n; i++) t->data[i] = middle + spread * tiny_random(seed);
}

static inline const float *tiny_data(const tiny_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, name) == 0) return m->tensors[i].data;
    return NULL;
}

static inline const char *tiny_name(char out[TINY_NAME], uint32_t layer, const char *what)
{
    snprintf(out, TINY_NAME, "blk.%u.%s.weight", layer, what);
    return out;
}

/* Queries and keys are large, so that attention is far from uniform. */
static inline void tiny_fill(tiny_model *m)
{
    const tiny_spec *s = &m->spec;
    const uint64_t q = (uint64_t)s->n_heads * s->head_dim;
    const uint64_t kv = (uint64_t)s->n_kv_heads * s->head_dim;
    const float narrow = 1.7F / sqrtf((float)s->hidden);
    uint64_t seed = 1;
    char name[TINY_NAME];
    tiny_add(m, "token_embd.weight", s->hidden, TINY_VOCAB, 0.0F, 1.0F, &seed);
    tiny_add(m, "output_norm.weight", s->hidden, 0, 1.0F, 0.3F, &seed);
    if (s->untied) tiny_add(m, "output.weight", s->hidden, TINY_VOCAB, 0.0F, 3 * narrow, &seed);
    if (s->rope_freqs) tiny_add(m, "rope_freqs.weight", s->head_dim / 2, 0, 2.0F, 1.5F, &seed);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        tiny_add(m, tiny_name(name, l, "attn_norm"), s->hidden, 0, 1.0F, 0.3F, &seed);
        tiny_add(m, tiny_name(name, l, "ffn_norm"), s->hidden, 0, 1.0F, 0.3F, &seed);
        tiny_add(m, tiny_name(name, l, "attn_q"), s->hidden, q, 0.0F, 2 * narrow, &seed);
        tiny_add(m, tiny_name(name, l, "attn_k"), s->hidden, kv, 0.0F, 2 * narrow, &seed);
        tiny_add(m, tiny_name(name, l, "attn_v"), s->hidden, kv, 0.0F, narrow, &seed);
        tiny_add(m, tiny_name(name, l, "attn_output"), q, s->hidden, 0.0F, narrow, &seed);
        tiny_add(m, tiny_name(name, l, "ffn_gate"), s->hidden, s->ffn, 0.0F, narrow, &seed);
        tiny_add(m, tiny_name(name, l, "ffn_up"), s->hidden, s->ffn, 0.0F, narrow, &seed);
        tiny_add(m, tiny_name(name, l, "ffn_down"), s->ffn, s->hidden, 0.0F, narrow, &seed);
    }
    if (s->extra_tensor != NULL) tiny_add(m, s->extra_tensor, s->hidden, 0, 0.0F, 1.0F, &seed);
}

static inline void tiny_key_u32(const tiny_spec *s, bytes *keys, uint64_t *n, const char *key, uint32_t value)
{
    if (s->skip_key != NULL && strcmp(key, s->skip_key) == 0) return;
    if (s->u32_key != NULL && strcmp(key, s->u32_key) == 0) return; /* written once, with the test's value */
    image_id(keys, n, key, value);
}

static inline void tiny_key_f32(const tiny_spec *s, bytes *keys, uint64_t *n, const char *key, float value)
{
    if (s->skip_key != NULL && strcmp(key, s->skip_key) == 0) return;
    image_key(keys, n, key, GGUF_F32);
    bytes_add(keys, &value, sizeof value);
}

static inline void tiny_keys(const tiny_spec *s, bytes *keys, uint64_t *n)
{
    vocab v = vocab_new("gpt-2");
    vocab_bytes(&v);
    image_str(keys, n, "general.architecture", s->architecture != NULL ? s->architecture : "llama");
    image_str(keys, n, "general.name", "tiny");
    tiny_key_u32(s, keys, n, "llama.context_length", s->context);
    tiny_key_u32(s, keys, n, "llama.embedding_length", s->hidden);
    tiny_key_u32(s, keys, n, "llama.block_count", s->n_layers);
    tiny_key_u32(s, keys, n, "llama.feed_forward_length", s->ffn);
    tiny_key_u32(s, keys, n, "llama.attention.head_count", s->n_heads);
    tiny_key_u32(s, keys, n, "llama.attention.head_count_kv", s->n_kv_heads);
    tiny_key_u32(s, keys, n, "llama.attention.key_length", s->head_dim);
    tiny_key_u32(s, keys, n, "llama.rope.dimension_count", s->head_dim);
    tiny_key_f32(s, keys, n, "llama.attention.layer_norm_rms_epsilon", tiny_eps);
    tiny_key_f32(s, keys, n, "llama.rope.freq_base", tiny_theta);
    if (s->u32_key != NULL) image_id(keys, n, s->u32_key, s->u32_value);
    if (s->str_key != NULL) image_str(keys, n, s->str_key, s->str_value);
    image_str(keys, n, "tokenizer.ggml.model", v.model);
    image_str(keys, n, "tokenizer.ggml.pre", v.pre);
    image_array(keys, n, "tokenizer.ggml.tokens", GGUF_STRING, v.n_tokens, &v.tokens);
    image_array(keys, n, "tokenizer.ggml.token_type", GGUF_I32, v.n_types, &v.types);
    image_array(keys, n, "tokenizer.ggml.merges", GGUF_STRING, v.n_merges, &v.merges);
    free(v.tokens.data);
    free(v.types.data);
    free(v.merges.data);
}

static inline void tiny_pad(bytes *b)
{
    while (b->len % 32 != 0) bytes_add(b, "", 1);
}

/* Writes the model to a temporary file; tiny_free removes it. */
static inline void tiny_write(tiny_model *m)
{
    bytes keys = { 0 }, image = { 0 }, data = { 0 };
    uint64_t n_keys = 0;
    tiny_keys(&m->spec, &keys, &n_keys);
    bytes_add(&image, "GGUF", 4);
    bytes_u32(&image, 3);
    bytes_u64(&image, m->n_tensors);
    bytes_u64(&image, n_keys);
    bytes_add(&image, keys.data, keys.len);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const tiny_tensor *t = &m->tensors[i];
        bytes_str(&image, t->name, strlen(t->name));
        bytes_u32(&image, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++) bytes_u64(&image, t->dims[d]);
        bytes_u32(&image, 0); /* F32 */
        bytes_u64(&image, data.len);
        bytes_add(&data, t->data, (size_t)(t->dims[0] * t->dims[1]) * sizeof(float));
        tiny_pad(&data);
    }
    tiny_pad(&image);
    bytes_add(&image, data.data, data.len);
    snprintf(m->path, sizeof m->path, "/tmp/ca-tiny-XXXXXX");
    const int fd = mkstemp(m->path);
    if (fd < 0 || write(fd, image.data, image.len) != (ssize_t)image.len) abort();
    close(fd);
    free(keys.data);
    free(image.data);
    free(data.data);
}

static inline tiny_model *tiny_new(const tiny_spec *spec)
{
    tiny_model *m = calloc(1, sizeof *m);
    if (m == NULL) abort();
    m->spec = *spec;
    tiny_fill(m);
    tiny_write(m);
    return m;
}

static inline void tiny_free(tiny_model *m)
{
    unlink(m->path);
    for (size_t i = 0; i < m->n_tensors; i++) free(m->tensors[i].data);
    free(m);
}

/* y = W x, W stored as rows. */
static inline void tiny_matvec(const float *w, const double *x, uint32_t k, uint32_t n, double *y)
{
    for (uint32_t j = 0; j < n; j++) {
        y[j] = 0.0;
        for (uint32_t i = 0; i < k; i++) y[j] += (double)w[(size_t)j * k + i] * x[i];
    }
}

static inline void tiny_norm(const float *w, const double *x, uint32_t n, double *y)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / n + (double)tiny_eps) * (double)w[i];
}

/* Rotates dims 2i and 2i + 1 of a head, as the rows of the file are ordered. */
static inline void tiny_rotate(const tiny_model *m, double *head, uint32_t pos)
{
    const float *divisors = tiny_data(m, "rope_freqs.weight");
    for (uint32_t i = 0; i < m->spec.head_dim / 2; i++) {
        const double divisor = divisors != NULL ? (double)divisors[i] : 1.0;
        const double angle = pos * pow((double)tiny_theta, -2.0 * i / m->spec.head_dim) / divisor;
        const double a = head[2 * i], b = head[2 * i + 1];
        head[2 * i] = a * cos(angle) - b * sin(angle);
        head[2 * i + 1] = b * cos(angle) + a * sin(angle);
    }
}

/* Dense causal attention of the last of n positions; k and v [n][n_kv_heads][head_dim]. */
static inline void tiny_attend(const tiny_spec *s, const double *q, const double *k, const double *v, uint32_t n, double *out)
{
    const size_t width = (size_t)s->n_kv_heads * s->head_dim;
    for (uint32_t h = 0; h < s->n_heads; h++) {
        const size_t kv = (size_t)(h / (s->n_heads / s->n_kv_heads)) * s->head_dim;
        const double *qh = q + (size_t)h * s->head_dim;
        double *o = out + (size_t)h * s->head_dim;
        double sum = 0.0;
        for (uint32_t d = 0; d < s->head_dim; d++) o[d] = 0.0;
        for (uint32_t t = 0; t < n; t++) {
            double z = 0.0;
            for (uint32_t d = 0; d < s->head_dim; d++) z += qh[d] * k[t * width + kv + d];
            const double p = exp(z / sqrt((double)s->head_dim));
            sum += p;
            for (uint32_t d = 0; d < s->head_dim; d++) o[d] += p * v[t * width + kv + d];
        }
        for (uint32_t d = 0; d < s->head_dim; d++) o[d] /= sum;
    }
}

/* Logits of every position, [n][TINY_VOCAB]; the caller frees them. */
static inline double *tiny_forward(const tiny_model *m, const uint32_t *tokens, uint32_t n)
{
    const tiny_spec *s = &m->spec;
    const uint32_t q_width = s->n_heads * s->head_dim;
    const uint32_t kv_width = s->n_kv_heads * s->head_dim;
    const uint32_t widest = 2 * (s->hidden + q_width + s->ffn);
    double *x = calloc((size_t)n * s->hidden, sizeof *x);
    double *k = calloc((size_t)n * kv_width, sizeof *k);
    double *v = calloc((size_t)n * kv_width, sizeof *v);
    double *h = calloc(widest, sizeof *h);
    double *a = calloc(widest, sizeof *a);
    double *b = calloc(widest, sizeof *b);
    double *logits = calloc((size_t)n * TINY_VOCAB, sizeof *logits);
    if (!x || !k || !v || !h || !a || !b || !logits) abort();
    char name[TINY_NAME];
    for (size_t i = 0; i < (size_t)n * s->hidden; i++)
        x[i] = (double)tiny_data(m, "token_embd.weight")[(size_t)tokens[i / s->hidden] * s->hidden + i % s->hidden];
    for (uint32_t l = 0; l < s->n_layers; l++) {
        for (uint32_t t = 0; t < n; t++) {
            double *xt = x + (size_t)t * s->hidden;
            double *kt = k + (size_t)t * kv_width;
            tiny_norm(tiny_data(m, tiny_name(name, l, "attn_norm")), xt, s->hidden, h);
            tiny_matvec(tiny_data(m, tiny_name(name, l, "attn_q")), h, s->hidden, q_width, a);
            tiny_matvec(tiny_data(m, tiny_name(name, l, "attn_k")), h, s->hidden, kv_width, kt);
            tiny_matvec(tiny_data(m, tiny_name(name, l, "attn_v")), h, s->hidden, kv_width, v + (size_t)t * kv_width);
            for (uint32_t i = 0; i < s->n_heads; i++) tiny_rotate(m, a + (size_t)i * s->head_dim, t);
            for (uint32_t i = 0; i < s->n_kv_heads; i++) tiny_rotate(m, kt + (size_t)i * s->head_dim, t);
            tiny_attend(s, a, k, v, t + 1, b);
            tiny_matvec(tiny_data(m, tiny_name(name, l, "attn_output")), b, q_width, s->hidden, h);
            for (uint32_t i = 0; i < s->hidden; i++) xt[i] += h[i];
            tiny_norm(tiny_data(m, tiny_name(name, l, "ffn_norm")), xt, s->hidden, h);
            tiny_matvec(tiny_data(m, tiny_name(name, l, "ffn_gate")), h, s->hidden, s->ffn, a);
            tiny_matvec(tiny_data(m, tiny_name(name, l, "ffn_up")), h, s->hidden, s->ffn, b);
            for (uint32_t i = 0; i < s->ffn; i++) a[i] = a[i] / (1.0 + exp(-a[i])) * b[i];
            tiny_matvec(tiny_data(m, tiny_name(name, l, "ffn_down")), a, s->ffn, s->hidden, h);
            for (uint32_t i = 0; i < s->hidden; i++) xt[i] += h[i];
        }
    }
    for (uint32_t t = 0; t < n; t++) {
        tiny_norm(tiny_data(m, "output_norm.weight"), x + (size_t)t * s->hidden, s->hidden, h);
        tiny_matvec(tiny_data(m, s->untied ? "output.weight" : "token_embd.weight"), h, s->hidden, TINY_VOCAB,
                    logits + (size_t)t * TINY_VOCAB);
    }
    free(x);
    free(k);
    free(v);
    free(h);
    free(a);
    free(b);
    return logits;
}

#endif
