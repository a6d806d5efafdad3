#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/hash.h"
#include "base/mapfile.h"
#include "load/draw.h"

enum { MAX_PARTS = 3, NAME = 128 };

void ca_tensor_rows(const ca_tensor *tensor, uint32_t first, uint32_t count, float *out)
{
    if (tensor->data == NULL) {
        ca_draw_rows(tensor, first, count, out);
        return;
    }
    const ca_block_format *format = ca_block_format_of(tensor->type);
    const size_t n_blocks = (size_t)tensor->dims[0] / format->n_elems;
    const unsigned char *data = tensor->data;
    for (uint32_t r = 0; r < count; r++)
        ca_block_floats(format, data + (size_t)(first + r) * n_blocks * format->n_bytes, n_blocks,
                        out + r * (size_t)tensor->dims[0]);
}

/* ---- names ---- */

typedef enum role {
    EMBEDDING,
    FINAL_NORM,
    OUTPUT,
    ATTN_NORM, /* from here on: of a layer */
    Q,
    K,
    V,
    O,
    Q_NORM,
    K_NORM,
    POST_ATTN_NORM,
    FFN_NORM,
    FFN_NORM_OF_FOUR, /* Hugging Face calls the norm before the network another name where norms come after, too */
    GATE,
    UP,
    DOWN,
    POST_FFN_NORM,
    ROUTER,
    EXPERT_GATE, /* from here on: of an expert */
    EXPERT_UP,
    EXPERT_DOWN
} role;

/* Without layer, ".weight" and ".bias". GGUF holds a layer's experts in one tensor. */
static const struct {
    const char *gguf, *hf;
} names[] = {
    [EMBEDDING] = { "token_embd", "embed_tokens" },
    [FINAL_NORM] = { "output_norm", "norm" },
    [OUTPUT] = { "output", "lm_head" },
    [ATTN_NORM] = { "attn_norm", "input_layernorm" },
    [Q] = { "attn_q", "self_attn.q_proj" },
    [K] = { "attn_k", "self_attn.k_proj" },
    [V] = { "attn_v", "self_attn.v_proj" },
    [O] = { "attn_output", "self_attn.o_proj" },
    [Q_NORM] = { "attn_q_norm", "self_attn.q_norm" },
    [K_NORM] = { "attn_k_norm", "self_attn.k_norm" },
    [POST_ATTN_NORM] = { "post_attention_norm", "post_attention_layernorm" },
    [FFN_NORM] = { "ffn_norm", "post_attention_layernorm" },
    [FFN_NORM_OF_FOUR] = { "ffn_norm", "pre_feedforward_layernorm" },
    [GATE] = { "ffn_gate", "mlp.gate_proj" },
    [UP] = { "ffn_up", "mlp.up_proj" },
    [DOWN] = { "ffn_down", "mlp.down_proj" },
    [POST_FFN_NORM] = { "post_ffw_norm", "post_feedforward_layernorm" },
    [ROUTER] = { "ffn_gate_inp", "mlp.gate" },
    [EXPERT_GATE] = { "ffn_gate_exps", "gate_proj" },
    [EXPERT_UP] = { "ffn_up_exps", "up_proj" },
    [EXPERT_DOWN] = { "ffn_down_exps", "down_proj" },
};

/* Where folders keep a language model: by itself, or as a part of one that sees, in the order of two generations of transformers. */
static const struct place {
    const char *body, *head;
} places[] = {
    { "model.", "" },
    { "language_model.model.", "language_model." },
    { "model.language_model.", "" },
};

/* A walk over everything that the configuration calls for. The first one only checks, so that a bad model is known before the work. */
typedef struct loader {
    ca_model *model;
    const struct place *place; /* NULL: GGUF */
    bool packs;
    bool *called;            /* [tensors of the store]: the walk asked for it */
    uint64_t bytes, n_drawn; /* of packed weights; elements of drawn tensors */
} loader;

/* One tensor among the model's: which, and of which layer and expert. */
typedef struct tensor_id {
    role role;
    uint32_t layer, expert;
} tensor_id;

static const char *name_of(const loader *l, tensor_id id, const char *what, char buf[NAME])
{
    const char *stem = l->place != NULL ? names[id.role].hf : names[id.role].gguf;
    if (l->place == NULL)
        (void)(id.role < ATTN_NORM ? snprintf(buf, NAME, "%s.%s", stem, what)
                                   : snprintf(buf, NAME, "blk.%u.%s.%s", id.layer, stem, what));
    else if (id.role == OUTPUT)
        (void)snprintf(buf, NAME, "%s%s.%s", l->place->head, stem, what);
    else if (id.role < ATTN_NORM)
        (void)snprintf(buf, NAME, "%s%s.%s", l->place->body, stem, what);
    else if (id.role < EXPERT_GATE)
        (void)snprintf(buf, NAME, "%slayers.%u.%s.%s", l->place->body, id.layer, stem, what);
    else
        (void)snprintf(buf, NAME, "%slayers.%u.mlp.experts.%u.%s.%s", l->place->body, id.layer, id.expert, stem, what);
    return buf;
}

static ca_status find_tensor(loader *l, tensor_id id, const char *what, uint32_t n_dims, const uint64_t *dims, ca_tensor *out)
{
    const ca_tensor *stored = NULL;
    char name[NAME];
    (void)name_of(l, id, what, name);
    if (l->model->drawn) {
        *out = ca_draw_tensor(l->model->seed, name, n_dims, dims);
        l->n_drawn += out->dims[0] * out->dims[1];
        return CA_OK;
    }
    CA_TRY(ca_store_tensor(l->model->store, name, n_dims, dims, &stored));
    l->called[ca_store_index(l->model->store, stored)] = true;
    *out = *stored;
    return CA_OK;
}

static size_t row_bytes(const ca_tensor *tensor)
{
    return tensor->bytes / (size_t)(tensor->dims[1] * tensor->dims[2]);
}

/* Rows [first, +n) of a tensor on the way into the model's fingerprint: their bytes at SAMPLES places from the first to the last. A
 * file of many gigabytes costs a page of it per place, which packing reads anyway. */
static void take_fingerprint(const loader *l, const ca_tensor *t, uint64_t first, uint64_t n)
{
    enum { SAMPLES = 16, SAMPLE_BYTES = 64 };
    const uint64_t id[] = { (uint64_t)t->type, t->dims[0], first, n, t->seed };
    uint64_t hash = ca_hash(l->model->fingerprint, id, sizeof id);
    if (t->data != NULL) {
        const size_t bytes = (size_t)n * row_bytes(t);
        const unsigned char *data = (const unsigned char *)t->data + (size_t)first * row_bytes(t);
        if (bytes <= SAMPLES * SAMPLE_BYTES) hash = ca_hash(hash, data, bytes);
        for (size_t i = 0; i < SAMPLES && bytes > SAMPLES * SAMPLE_BYTES; i++)
            hash = ca_hash(hash, data + (bytes - SAMPLE_BYTES) / (SAMPLES - 1) * i, SAMPLE_BYTES);
    }
    l->model->fingerprint = hash;
}

/* ---- vectors ---- */

static ca_status alloc_vector(const loader *l, uint32_t n, float **out)
{
    *out = malloc(n * sizeof **out);
    return *out != NULL ? CA_OK : ca_fail(CA_E_MEMORY, "%s: no memory for %u weights", ca_store_path(l->model->store), n);
}

/* The weight of a norm, all ones without a file; the caller frees *out. */
static ca_status load_norm(loader *l, role norm, uint32_t layer, uint32_t n, float **out)
{
    const uint64_t dims[] = { n };
    ca_tensor tensor;
    CA_TRY(find_tensor(l, (tensor_id){ .role = norm, .layer = layer }, "weight", 1, dims, &tensor));
    if (!l->packs) return CA_OK;
    take_fingerprint(l, &tensor, 0, 1);
    CA_TRY(alloc_vector(l, n, out));
    if (l->model->drawn)
        memset(*out, 0, n * sizeof **out);
    else
        ca_tensor_rows(&tensor, 0, 1, *out);
    for (uint32_t i = 0; i < n && (l->model->drawn || l->model->config.norm_plus_1); i++) (*out)[i] += 1.0F;
    return CA_OK;
}

/* ---- matrices ---- */

/* One matrix of a packed weight: the tensor's rows become columns of W. */
typedef struct weight_part {
    tensor_id id;
    uint32_t rows;
    /* head_dim when each head's rows are stored for interleaved RoPE: row 2i + j of a head is dim i + j * head_dim/2 of the form
     * that rotates halves. 0 = rows are stored in their own order. */
    uint32_t interleaved;
    ca_tensor tensor;
    uint32_t first; /* row of the tensor */
} weight_part;

typedef struct weight_parts {
    weight_part part[MAX_PARTS];
    uint32_t n_parts, n_rows; /* of all parts */
} weight_parts;

static weight_parts parts_of(const weight_part *part, uint32_t n)
{
    weight_parts p = { .n_parts = n };
    for (uint32_t i = 0; i < n; i++) {
        p.part[i] = part[i];
        p.n_rows += part[i].rows;
    }
    return p;
}

/* Row of the file that holds row r of the form that rotates halves. */
static uint32_t stored_row(uint32_t r, uint32_t head_dim)
{
    if (head_dim == 0) return r;
    const uint32_t d = r % head_dim;
    const uint32_t half = head_dim / 2;
    return r - d + 2 * (d % half) + d / half;
}

/* The part that has a row of the weight, and which of its tensor it is. */
static const weight_part *part_of(const weight_parts *p, uint32_t row, uint32_t *stored)
{
    const weight_part *part = p->part;
    while (row >= part->rows) row -= part++->rows;
    *stored = part->first + stored_row(row, part->interleaved);
    return part;
}

static void give_rows(const void *user, uint32_t first, uint32_t count, float *out)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = 0;
        const weight_part *part = part_of(user, first + i, &row);
        ca_tensor_rows(&part->tensor, row, 1, out + i * (size_t)part->tensor.dims[0]);
    }
}

static const void *give_blocks(const void *user, uint32_t row, const ca_block_format **format)
{
    uint32_t stored = 0;
    const ca_tensor *tensor = &part_of(user, row, &stored)->tensor;
    if (tensor->data == NULL) return NULL;
    *format = ca_block_format_of(tensor->type);
    return (const unsigned char *)tensor->data + (size_t)stored * (tensor->dims[0] / (*format)->n_elems * (*format)->n_bytes);
}

/* The rows are packed: their bytes in the file are not needed again (but for embeddings, which come back by themselves). */
static void release_rows(const weight_part *part)
{
    const ca_tensor *t = &part->tensor;
    if (t->data == NULL) return;
    ca_mapfile_release((const unsigned char *)t->data + part->first * row_bytes(t), part->rows * row_bytes(t));
}

/* Products of the layers may be int8. The router's few columns and the output matrix decide between tokens and experts: they stay. */
static bool is_int8(const loader *l, role of)
{
    return l->model->info.matmul == CA_MATMUL_INT8 && of != OUTPUT && of != EMBEDDING && of != ROUTER;
}

/* Packs the parts side by side: W [k][sum of rows]. */
static ca_status load_matrix(loader *l, uint32_t k, weight_parts p, ca_gemm_weight **out)
{
    size_t bytes = 0;
    const bool int8 = is_int8(l, p.part[0].id.role);
    for (uint32_t i = 0; i < p.n_parts; i++) {
        weight_part *part = &p.part[i];
        const bool stacked = l->place == NULL && part->id.role >= EXPERT_GATE;
        const uint64_t dims[] = { k, part->rows, l->model->config.n_experts };
        CA_TRY(find_tensor(l, part->id, "weight", stacked ? 3 : 2, dims, &part->tensor));
        part->first = stacked ? part->id.expert * part->rows : 0;
    }
    const ca_gemm_source source = { &p, give_rows, give_blocks };
    if (!l->packs) {
        CA_TRY(ca_gemm_packed_bytes(l->model->engine, int8, k, p.n_rows, &source, &bytes));
        l->bytes += bytes;
        return CA_OK;
    }
    for (uint32_t i = 0; i < p.n_parts; i++) take_fingerprint(l, &p.part[i].tensor, p.part[i].first, p.part[i].rows);
    CA_TRY(ca_gemm_pack(l->model->engine, int8, k, p.n_rows, &source, out));
    for (uint32_t i = 0; i < p.n_parts; i++) release_rows(&p.part[i]);
    return CA_OK;
}

/* The biases of the parts, in the order of the matrix's columns; the caller frees *out. */
static ca_status load_biases(loader *l, weight_parts p, float **out)
{
    float stored[CA_MAX_HEAD_DIM];
    if (l->packs) CA_TRY(alloc_vector(l, p.n_rows, out));
    uint32_t at = 0;
    for (uint32_t i = 0; i < p.n_parts; at += p.part[i++].rows) {
        const uint32_t rows = p.part[i].rows, head_dim = p.part[i].interleaved;
        const uint64_t dims[] = { rows };
        ca_tensor tensor;
        CA_TRY(find_tensor(l, p.part[i].id, "bias", 1, dims, &tensor));
        if (!l->packs) continue;
        take_fingerprint(l, &tensor, 0, 1);
        ca_tensor_rows(&tensor, 0, 1, *out + at);
        for (uint32_t head = 0; head_dim > 0 && head < rows; head += head_dim) {
            memcpy(stored, *out + at + head, head_dim * sizeof *stored);
            for (uint32_t d = 0; d < head_dim; d++) (*out)[at + head + d] = stored[stored_row(d, head_dim)];
        }
    }
    return CA_OK;
}

/* ---- layers ---- */

static ca_status load_attention(loader *l, uint32_t i, ca_layer *layer)
{
    const ca_config *c = &l->model->config;
    const uint32_t q_rows = c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim,
                   order = c->interleaved ? c->head_dim : 0;
    const weight_parts qkv = parts_of((weight_part[]){ { .id = { Q, i, 0 }, .rows = q_rows, .interleaved = order },
                                                       { .id = { K, i, 0 }, .rows = kv_rows, .interleaved = order },
                                                       { .id = { V, i, 0 }, .rows = kv_rows } },
                                      3);
    const weight_parts o = parts_of(&(weight_part){ .id = { O, i, 0 }, .rows = c->hidden }, 1);
    CA_TRY(load_norm(l, ATTN_NORM, i, c->hidden, &layer->attn_norm));
    CA_TRY(load_matrix(l, c->hidden, qkv, &layer->qkv));
    CA_TRY(load_matrix(l, q_rows, o, &layer->o));
    if (c->qkv_bias) CA_TRY(load_biases(l, qkv, &layer->qkv_bias));
    if (c->o_bias) CA_TRY(load_biases(l, o, &layer->o_bias));
    if (c->qk_norm) CA_TRY(load_norm(l, Q_NORM, i, c->head_dim, &layer->q_norm));
    if (c->qk_norm) CA_TRY(load_norm(l, K_NORM, i, c->head_dim, &layer->k_norm));
    return c->post_norms ? load_norm(l, POST_ATTN_NORM, i, c->hidden, &layer->post_attn_norm) : CA_OK;
}

static ca_status load_network(loader *l, uint32_t i, ca_layer *layer)
{
    const ca_config *c = &l->model->config;
    const weight_parts gate_up = parts_of(
        (weight_part[]){ { .id = { GATE, i, 0 }, .rows = c->ffn }, { .id = { UP, i, 0 }, .rows = c->ffn } }, 2);
    const weight_parts down = parts_of(&(weight_part){ .id = { DOWN, i, 0 }, .rows = c->hidden }, 1);
    CA_TRY(load_matrix(l, c->hidden, gate_up, &layer->gate_up));
    CA_TRY(load_matrix(l, c->ffn, down, &layer->down));
    if (c->mlp_bias) CA_TRY(load_biases(l, gate_up, &layer->gate_up_bias));
    return c->mlp_bias ? load_biases(l, down, &layer->down_bias) : CA_OK;
}

static ca_status load_experts(loader *l, uint32_t i, ca_layer *layer)
{
    const ca_config *c = &l->model->config;
    const weight_parts router = parts_of(&(weight_part){ .id = { ROUTER, i, 0 }, .rows = c->n_experts }, 1);
    CA_TRY(load_matrix(l, c->hidden, router, &layer->router));
    if (l->packs) layer->experts = calloc(c->n_experts, sizeof *layer->experts);
    if (l->packs && layer->experts == NULL)
        return ca_fail(CA_E_MEMORY, "%s: no memory for %u experts", ca_store_path(l->model->store), c->n_experts);
    for (uint32_t e = 0; e < c->n_experts; e++) {
        ca_expert none = { 0 }, *expert = l->packs ? &layer->experts[e] : &none;
        const weight_parts gate_up = parts_of((weight_part[]){ { .id = { EXPERT_GATE, i, e }, .rows = c->expert_ffn },
                                                               { .id = { EXPERT_UP, i, e }, .rows = c->expert_ffn } },
                                              2);
        const weight_parts down = parts_of(&(weight_part){ .id = { EXPERT_DOWN, i, e }, .rows = c->hidden }, 1);
        CA_TRY(load_matrix(l, c->hidden, gate_up, &expert->gate_up));
        CA_TRY(load_matrix(l, c->expert_ffn, down, &expert->down));
    }
    return CA_OK;
}

static ca_status load_layer(loader *l, uint32_t i, ca_layer *layer)
{
    const ca_config *c = &l->model->config;
    CA_TRY(load_attention(l, i, layer));
    CA_TRY(load_norm(l, c->post_norms ? FFN_NORM_OF_FOUR : FFN_NORM, i, c->hidden, &layer->ffn_norm));
    CA_TRY(c->sparse[i] ? load_experts(l, i, layer) : load_network(l, i, layer));
    return c->post_norms ? load_norm(l, POST_FFN_NORM, i, c->hidden, &layer->post_ffn_norm) : CA_OK;
}

/* ---- the whole model ---- */

/* inv_freq of the rotations in use, divided by rope_freqs.weight where a GGUF file has it. The first walk fills it: gates need it, too. */
static ca_status load_frequencies(loader *l)
{
    ca_model *model = l->model;
    const uint32_t half = model->config.head_dim / 2;
    const ca_tensor *tensor = NULL;
    float divisors[CA_MAX_HEAD_DIM / 2];
    const uint64_t dims[] = { half };
    if (l->packs) return CA_OK;
    if (l->place == NULL && ca_store_find(model->store, "rope_freqs.weight") != NULL) {
        CA_TRY(ca_store_tensor(model->store, "rope_freqs.weight", 1, dims, &tensor));
        l->called[ca_store_index(model->store, tensor)] = true;
        ca_tensor_rows(tensor, 0, 1, divisors);
    }
    for (uint32_t i = 0; tensor != NULL && i < half; i++)
        if (!(divisors[i] > 0.0F && isfinite(divisors[i])))
            return ca_fail(CA_E_FORMAT, "%s: tensor 'rope_freqs.weight' holds %g at %u; it must be positive",
                           ca_store_path(model->store), (double)divisors[i], i);
    for (uint32_t r = 0; r < model->n_rotations; r++) {
        model->inv_freq[r] = calloc(CA_MAX_HEAD_DIM / 2, sizeof *model->inv_freq[r]);
        if (model->inv_freq[r] == NULL)
            return ca_fail(CA_E_MEMORY, "%s: no memory for %u frequencies", ca_store_path(model->store), half);
        ca_rope_frequencies(&model->config.rope[r], model->config.head_dim, model->inv_freq[r]);
        for (uint32_t i = 0; tensor != NULL && i < half; i++) model->inv_freq[r][i] /= (double)divisors[i];
    }
    return CA_OK;
}

static ca_status load_all(loader *l)
{
    ca_model *model = l->model;
    const ca_config *c = &model->config;
    ca_model_info *info = &model->info;
    char name[NAME];
    const uint64_t dims[] = { c->hidden, info->vocab };
    CA_TRY(find_tensor(l, (tensor_id){ .role = EMBEDDING }, "weight", 2, dims, &model->embedding));
    if (l->packs) take_fingerprint(l, &model->embedding, 0, info->vocab);
    CA_TRY(load_frequencies(l));
    CA_TRY(load_norm(l, FINAL_NORM, 0, c->hidden, &model->final_norm));
    info->tied_output = l->place != NULL
                            ? c->tied
                            : ca_store_find(model->store, name_of(l, (tensor_id){ .role = OUTPUT }, "weight", name)) == NULL;
    const weight_part output = { .id.role = info->tied_output ? EMBEDDING : OUTPUT, .rows = info->vocab };
    CA_TRY(load_matrix(l, c->hidden, parts_of(&output, 1), &model->output));
    if (l->packs) model->layers = calloc(c->n_layers, sizeof *model->layers);
    if (l->packs && model->layers == NULL)
        return ca_fail(CA_E_MEMORY, "%s: no memory for %u layers", ca_store_path(model->store), c->n_layers);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        ca_layer none = { 0 };
        CA_TRY(load_layer(l, i, l->packs ? &model->layers[i] : &none));
    }
    return CA_OK;
}

static bool starts_with(ca_str name, const char *start)
{
    return name.len >= strlen(start) && memcmp(name.data, start, strlen(start)) == 0;
}

static bool ends_with(ca_str name, const char *end)
{
    const size_t n = strlen(end);
    return name.len >= n && memcmp(name.data + name.len - n, end, n) == 0;
}

/* Tensors of folders that text does not need: the part that sees, frequencies that old files store, and an output matrix beside the
 * embedding that takes its place. */
static bool is_aside(const loader *l, ca_str name)
{
    static const char *const others[] = { "vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                          "model.multi_modal_projector." };
    if (l->place == NULL) return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (starts_with(name, others[i])) return true;
    return ends_with(name, "rotary_emb.inv_freq") || (l->model->info.tied_output && ends_with(name, "lm_head.weight"));
}

/* A tensor that the walk did not ask for (a bias, an expert, a layer too many) means another computation than this one. */
static ca_status check_called(const loader *l)
{
    ca_model *model = l->model;
    const uint64_t twice = model->info.tied_output ? (uint64_t)model->info.vocab * model->config.hidden : 0; /* asked for twice */
    model->info.n_params = model->drawn ? l->n_drawn - twice : 0;
    for (size_t i = 0; i < ca_store_n_tensors(model->store); i++) {
        const ca_tensor *t = ca_store_tensor_at(model->store, i);
        if (l->called[i])
            model->info.n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        else if (!is_aside(l, t->name))
            return ca_fail(CA_E_UNSUPPORTED, "%s: tensor '%.*s' has no place in a %s of %u layers with this configuration",
                           ca_store_path(model->store), t->name.len < 100 ? (int)t->name.len : 100, t->name.data,
                           model->family->architecture, model->config.n_layers);
    }
    return CA_OK;
}

static ca_status check_memory(const ca_model *model, uint64_t need)
{
    const uint64_t available = ca_memory_available();
    if (need <= available) return CA_OK;
    return ca_fail(CA_E_MEMORY,
                   "%s: its weights take %.1f MiB of memory for this kernel set, %.1f MiB are available: use a smaller model",
                   ca_store_path(model->store), (double)need / 0x1p20, (double)available / 0x1p20);
}

/* What weights are computed with: the numbers of the configuration that no shape shows. */
static uint64_t config_fingerprint(const ca_model *model)
{
    const ca_config *c = &model->config;
    const double numbers[] = { (double)c->rms_eps, (double)c->attn_scale,        (double)c->embed_scale,       c->window,
                               c->top_k,           (double)c->rope[0].magnitude, (double)c->rope[1].magnitude, c->norm_topk,
                               c->activation };
    uint64_t hash = ca_hash(CA_HASH_START, numbers, sizeof numbers);
    hash = ca_hash(hash, c->sliding, c->n_layers * sizeof *c->sliding);
    for (uint32_t r = 0; r < model->n_rotations; r++)
        hash = ca_hash(hash, model->inv_freq[r], c->head_dim / 2 * sizeof *model->inv_freq[r]);
    return hash;
}

static ca_status load(loader *l, bool forecast_only)
{
    ca_model *model = l->model;
    CA_TRY(load_all(l));
    CA_TRY(check_called(l));
    model->info.packed_bytes = l->bytes;
    if (forecast_only) return CA_OK;
    CA_TRY(check_memory(model, l->bytes));
    l->packs = true;
    model->fingerprint = config_fingerprint(model);
    return load_all(l);
}

/* Where the folder keeps the language model. */
static const struct place *place_of(const ca_store *store)
{
    char name[NAME];
    if (ca_store_gguf(store) != NULL) return NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        (void)snprintf(name, sizeof name, "%s%s.weight", places[i].body, names[EMBEDDING].hf);
        if (ca_store_find(store, name) != NULL) return &places[i];
    }
    return &places[0];
}

ca_status ca_weights_load(ca_model *model, bool forecast_only)
{
    loader l = { .model = model, .place = place_of(model->store) };
    const size_t n = ca_store_n_tensors(model->store);
    l.called = calloc(n + 1, sizeof *l.called);
    if (l.called == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu tensors", ca_store_path(model->store), n);
    const ca_status st = load(&l, forecast_only);
    free(l.called);
    return st;
}

static void free_layer(ca_layer *layer, uint32_t n_experts)
{
    float *const vectors[] = { layer->attn_norm, layer->ffn_norm, layer->post_attn_norm, layer->post_ffn_norm, layer->q_norm,
                               layer->k_norm,    layer->qkv_bias, layer->o_bias,         layer->gate_up_bias,  layer->down_bias };
    ca_gemm_weight *const matrices[] = { layer->qkv, layer->o, layer->gate_up, layer->down, layer->router };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) free(vectors[i]);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) ca_gemm_weight_destroy(matrices[i]);
    for (uint32_t e = 0; layer->experts != NULL && e < n_experts; e++) {
        ca_gemm_weight_destroy(layer->experts[e].gate_up);
        ca_gemm_weight_destroy(layer->experts[e].down);
    }
    free(layer->experts);
}

void ca_weights_free(ca_model *model)
{
    for (uint32_t l = 0; model->layers != NULL && l < model->config.n_layers; l++)
        free_layer(&model->layers[l], model->config.n_experts);
    free(model->layers);
    free(model->final_norm);
    free(model->inv_freq[0]);
    free(model->inv_freq[1]);
    ca_gemm_weight_destroy(model->output);
}
