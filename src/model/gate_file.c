/* Gates of SeerAttention's prefill in files (spec/selectors-learned.md A.3 to A.5): opened for a model, converted from torch. */
#include <compactattn/gate.h>

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arith.h"
#include "load/json_file.h"
#include "load/safetensors.h"
#include "load/torch_zip.h"
#include "model/model.h"

enum { NAME_LEN = 96, BLOCK_DEFAULT = 64, BLOCK_MAX = 4096, MAX_ROTARY = 256 };

/* Gates for decoding (SeerAttention-R) are other functions under other names. */
static ca_status refuse_decode_gate(const char *path, const char *tensor)
{
    if (!strstr(tensor, "attngate_")) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED,
                   "%s: tensor '%.100s' belongs to a gate made for decoding; a gate for prefill (mask_linear_k) is needed", path,
                   tensor);
}

/* ---- gate types: "Q<pools>_K<pools>", pools in the order max, min, avg ---- */

static const char *parse_pools(const char *at, uint32_t *pools)
{
    static const char *const names[] = { "max", "min", "avg" };
    *pools = 0;
    for (uint32_t i = 0; i < 3; i++) {
        if (strncmp(at, names[i], 3) != 0) continue;
        *pools |= 1U << i; /* CA_POOL_MAX, CA_POOL_MIN, CA_POOL_AVG */
        at += 3;
    }
    return at;
}

static bool parse_type(const char *type, uint32_t *q_pool, uint32_t *k_pool)
{
    if (type[0] != 'Q') return false;
    const char *at = parse_pools(type + 1, q_pool);
    if (strncmp(at, "_K", 2) != 0) return false;
    return *parse_pools(at + 2, k_pool) == '\0' && *q_pool && *k_pool;
}

static ca_status check_type(const char *path, const char *type, uint32_t *q_pool, uint32_t *k_pool)
{
    if (parse_type(type, q_pool, k_pool)) return CA_OK;
    return ca_fail(CA_E_FORMAT,
                   "%s: gate type '%.64s' is not of the form Q<pools>_K<pools>, pools among max, min, avg in this order", path,
                   type);
}

/* ---- opening ---- */

typedef struct gate_file {
    const ca_safetensors *st;
    const char *path;
    ca_gate_opt opt;
    uint64_t k_dims[3], q_dims[3]; /* of every layer */
    double own_freq[MAX_ROTARY / 2];
} gate_file;

static const char *tensor_name(char name[NAME_LEN], uint32_t layer, char which)
{
    (void)snprintf(name, NAME_LEN, "model.layers.%u.self_attn.attn_gate.mask_linear_%c.weight", layer, which);
    return name;
}

/* Number of pools that make up dim channels; 0 when it is not 1, 2 or 3. */
static uint32_t count_pools(uint64_t dim, uint64_t head_dim)
{
    return dim % head_dim == 0 && dim / head_dim <= 3 ? (uint32_t)(dim / head_dim) : 0;
}

/* Layout and number of pools from the shapes of layer 0. */
static ca_status read_layout(gate_file *f, uint32_t *nq, uint32_t *nk)
{
    ca_gate_opt *o = &f->opt;
    char name[NAME_LEN], found[128];
    const ca_st_tensor *k = ca_safetensors_find(f->st, tensor_name(name, 0, 'k'));
    if (!k)
        return ca_fail(CA_E_FORMAT, "%s: tensor '%s' is missing (expected [%u or %u, pools * %u, width])", f->path, name,
                       o->n_heads, o->n_kv_heads, o->head_dim);
    const ca_st_tensor *q = ca_safetensors_find(f->st, tensor_name(name, 0, 'q'));
    const uint32_t heads = q ? o->n_kv_heads : o->n_heads;
    *nk = k->n_dims == 3 ? count_pools(k->dims[1], o->head_dim) : 0;
    if (k->n_dims != 3 || k->dims[0] != heads || *nk == 0 || k->dims[2] > UINT32_MAX || (!q && k->dims[2] != o->head_dim)) {
        char width[16] = "width";
        if (!q) (void)snprintf(width, sizeof width, "%u", o->head_dim);
        return ca_fail(CA_E_FORMAT, "%s: tensor '%s' is %s, expected [%u, 1 to 3 times %u, %s] for this model %s mask_linear_q",
                       f->path, tensor_name(name, 0, 'k'), ca_st_dims_text(k->n_dims, k->dims, found, sizeof found), heads,
                       o->head_dim, width, q ? "and a" : "without a");
    }
    o->hidden = (uint32_t)k->dims[2];
    o->layout = CA_GATE_SINGLE;
    *nq = 1;
    memcpy(f->k_dims, k->dims, sizeof f->k_dims);
    if (!q) return CA_OK;

    const uint64_t group = o->n_heads / o->n_kv_heads;
    const bool per_query_head = q->dims[0] == o->n_heads; /* with as many KV heads as query heads both are the same function */
    o->layout = per_query_head ? CA_GATE_DOUBLE : CA_GATE_GROUP;
    *nq = q->n_dims == 3 ? count_pools(q->dims[1], (per_query_head ? 1 : group) * o->head_dim) : 0;
    if (*nq == 0 || q->dims[2] != o->hidden || (!per_query_head && q->dims[0] != o->n_kv_heads))
        return ca_fail(CA_E_FORMAT,
                       "%s: tensor '%s' is %s, expected [%u, 1 to 3 times %u, %u] or [%u, 1 to 3 times %" PRIu64 ", %u]", f->path,
                       name, ca_st_dims_text(q->n_dims, q->dims, found, sizeof found), o->n_heads, o->head_dim, o->hidden,
                       o->n_kv_heads, group * o->head_dim, o->hidden);
    memcpy(f->q_dims, q->dims, sizeof f->q_dims);
    return CA_OK;
}

/* What the shapes leave open: which one or two pools, and the block. */
static ca_status read_metadata(gate_file *f, uint32_t nq, uint32_t nk)
{
    ca_gate_opt *o = &f->opt;
    const char *type = ca_safetensors_meta(f->st, "gate_type"), *block = ca_safetensors_meta(f->st, "gate_block_size");
    if (type) {
        CA_TRY(check_type(f->path, type, &o->q_pool, &o->k_pool));
        if ((uint32_t)__builtin_popcount(o->q_pool) != nq || (uint32_t)__builtin_popcount(o->k_pool) != nk)
            return ca_fail(CA_E_FORMAT,
                           "%s: gate type '%s' does not fit its tensors, which have %u pools of queries and %u of keys", f->path,
                           type, nq, nk);
    } else {
        if (nq == 2 || nk == 2)
            return ca_fail(CA_E_FORMAT,
                           "%s: the tensors have two pools of %s and no metadata 'gate_type' says which; convert the gate with its "
                           "config.json beside it",
                           f->path, nk == 2 ? "keys" : "queries");
        o->q_pool = nq == 1 ? CA_POOL_AVG : CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG;
        o->k_pool = nk == 1 ? CA_POOL_AVG : CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG;
    }
    o->block = BLOCK_DEFAULT;
    if (!block) return CA_OK;
    char *end;
    const long tokens = strtol(block, &end, 10);
    if (block[0] < '1' || block[0] > '9' || *end != '\0' || tokens > BLOCK_MAX)
        return ca_fail(CA_E_FORMAT, "%s: metadata 'gate_block_size' is '%.32s', expected a number of tokens", f->path, block);
    o->block = (uint32_t)tokens;
    return CA_OK;
}

/* The gate rotates as many channels as the model does, all of a head, with its frequencies. A gate narrower than a head has a table of
 * its own width w from the model's base: inv_freq[i] = theta^(-2i / w). */
static ca_status choose_frequencies(gate_file *f, const ca_model *model)
{
    ca_gate_opt *o = &f->opt;
    const double theta = (double)model->info.rope_theta;
    o->rope_scale = model->config.rope[0].magnitude;
    o->rotary = ca_min_u32(o->head_dim, o->hidden);
    o->inv_freq = o->key_freq = model->inv_freq[0];
    o->key_rotary = o->head_dim;
    if (o->hidden >= o->head_dim) return CA_OK;
    if (o->hidden > MAX_ROTARY || o->hidden % 2 != 0)
        return ca_fail(CA_E_UNSUPPORTED, "%s: gates of width %u are not supported; it must be even", f->path, o->hidden);
    for (uint32_t i = 0; i < o->head_dim / 2; i++)
        if (fabs(model->inv_freq[0][i] / pow(theta, -2.0 * i / o->head_dim) - 1.0) > 1e-5)
            return ca_fail(CA_E_UNSUPPORTED,
                           "%s: the gate's width %u is below the model's head dimension %u, and the model scales its RoPE: the "
                           "frequencies of such a gate are not known",
                           f->path, o->hidden, o->head_dim);
    for (uint32_t i = 0; i < o->hidden / 2; i++) f->own_freq[i] = pow(theta, -2.0 * i / o->hidden);
    o->inv_freq = f->own_freq;
    return CA_OK;
}

/* One tensor as f32; the caller frees *out. */
static ca_status read_weights(const gate_file *f, const char *name, const uint64_t dims[3], float **out)
{
    const ca_st_tensor *t;
    size_t bytes;
    *out = NULL;
    CA_TRY(ca_safetensors_tensor(f->st, name, 3, dims, &t));
    CA_TRY(ca_mul_size(t->n_elems, sizeof **out, &bytes));
    float *w = malloc(bytes > 0 ? bytes : 1);
    if (!w) return ca_fail(CA_E_MEMORY, "%s: no memory for tensor '%s' (%zu bytes)", f->path, name, bytes);
    ca_status st = ca_safetensors_f32(f->st, t, 0, t->n_elems, w);
    for (size_t i = 0; i < t->n_elems && st == CA_OK; i++)
        if (!isfinite(w[i]))
            st = ca_fail(CA_E_FORMAT, "%s: tensor '%s' holds %g at element %zu; weights must be finite", f->path, name,
                         (double)w[i], i);
    if (st != CA_OK) {
        free(w);
        return st;
    }
    *out = w;
    return CA_OK;
}

static ca_status set_layer(const gate_file *f, uint32_t layer, ca_gate *gate)
{
    char name[NAME_LEN];
    float *wk = NULL, *wq = NULL;
    ca_status st = read_weights(f, tensor_name(name, layer, 'k'), f->k_dims, &wk);
    tensor_name(name, layer, 'q');
    if (st == CA_OK && f->opt.layout != CA_GATE_SINGLE) st = read_weights(f, name, f->q_dims, &wq);
    if (st == CA_OK && f->opt.layout == CA_GATE_SINGLE && ca_safetensors_find(f->st, name))
        st = ca_fail(CA_E_FORMAT, "%s: tensor '%s' is there, but layer 0 has no mask_linear_q", f->path, name);
    if (st == CA_OK) st = ca_gate_set_layer(gate, layer, wk, wq);
    free(wk);
    free(wq);
    return st;
}

static ca_status check_names(const gate_file *f)
{
    char name[NAME_LEN];
    for (size_t i = 0; i < ca_safetensors_n_tensors(f->st); i++)
        CA_TRY(refuse_decode_gate(f->path, ca_safetensors_tensor_at(f->st, i)->name));
    if (ca_safetensors_find(f->st, tensor_name(name, f->opt.n_layers, 'k')))
        return ca_fail(CA_E_FORMAT,
                       "%s: tensor '%s' is one layer too many: the gate was made for another model, not one of %u layers", f->path,
                       name, f->opt.n_layers);
    return CA_OK;
}

static ca_status create(gate_file *f, const ca_model *model, ca_gate **out)
{
    uint32_t nq, nk;
    CA_TRY(check_names(f));
    CA_TRY(read_layout(f, &nq, &nk));
    CA_TRY(read_metadata(f, nq, nk));
    CA_TRY(choose_frequencies(f, model));
    const ca_status st = ca_gate_create(&f->opt, out);
    if (st == CA_OK) return CA_OK;
    char why[256];
    (void)snprintf(why, sizeof why, "%s", ca_last_error());
    return ca_fail(st == CA_E_ARG ? CA_E_UNSUPPORTED : st, "%s: %s", f->path, why);
}

ca_status ca_gate_open(const char *path, const struct ca_model *model, ca_gate **out)
{
    *out = NULL;
    if (!path || !model) return ca_fail(CA_E_ARG, "gate: a path and a model are needed");
    ca_safetensors *file;
    ca_gate *gate = NULL;
    CA_TRY(ca_safetensors_open(path, &file));
    const ca_model_info *info = &model->info;
    gate_file f = {
        .st = file,
        .path = path,
        .opt = { .n_layers = info->n_layers, .n_heads = info->n_heads, .n_kv_heads = info->n_kv_heads, .head_dim = info->head_dim }
    };
    ca_status st = create(&f, model, &gate);
    for (uint32_t l = 0; l < info->n_layers && st == CA_OK; l++) st = set_layer(&f, l, gate);
    ca_safetensors_close(file);
    if (st != CA_OK) {
        ca_gate_destroy(gate);
        return st;
    }
    *out = gate;
    return CA_OK;
}

/* ---- conversion ---- */

/* Type and block of the config.json in the folder of the checkpoint, where there is one. */
static ca_status read_config(const char *pth, ca_gate_summary *s)
{
    static const char file[] = "config.json";
    const char *slash = strrchr(pth, '/');
    const size_t folder = slash ? (size_t)(slash - pth) + 1 : 0;
    char *path = malloc(folder + sizeof file);
    if (!path) return ca_fail(CA_E_MEMORY, "%s: no memory to look for its config.json", pth);
    memcpy(path, pth, folder);
    memcpy(path + folder, file, sizeof file);
    json_t *config = NULL;
    ca_status st = CA_OK;
    if (access(path, F_OK) != 0) goto done;
    CA_TRY_GOTO(ca_json_file_read(path, &config), done);
    const json_t *type = json_object_get(config, "seerattn_gate_type"),
                 *block = json_object_get(config, "seerattn_gate_block_size");
    uint32_t q_pool, k_pool;
    if (type) {
        if (!json_is_string(type)) st = ca_fail(CA_E_FORMAT, "%s: 'seerattn_gate_type' is no string", path);
        if (st == CA_OK) st = check_type(path, json_string_value(type), &q_pool, &k_pool);
        if (st == CA_OK) (void)snprintf(s->gate_type, sizeof s->gate_type, "%s", json_string_value(type));
    }
    if (st == CA_OK && block) {
        const int64_t tokens = json_integer_value(block); /* 0 when it is none */
        if (tokens < 1 || tokens > BLOCK_MAX)
            st = ca_fail(CA_E_FORMAT, "%s: 'seerattn_gate_block_size' is no number of tokens from 1 to %d", path, BLOCK_MAX);
        else
            s->block = (uint32_t)tokens;
    }
done:
    json_decref(config);
    free(path);
    return st;
}

static bool ends_with(const char *text, const char *tail)
{
    const size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcmp(text + n - m, tail) == 0;
}

/* Counts what is there; refuses what is not part of a gate. */
static ca_status summarize(const char *pth, const ca_torch *torch, ca_gate_summary *s)
{
    const ca_torch_pickle *p = ca_torch_tensors(torch);
    s->dtype = NULL;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const ca_torch_tensor *t = &p->tensors[i];
        const char *dtype = ca_block_format_of((uint32_t)p->storages[t->storage].type)->name;
        CA_TRY(refuse_decode_gate(pth, t->name));
        if (!strstr(t->name, ".attn_gate."))
            return ca_fail(CA_E_UNSUPPORTED, "%s: tensor '%s' is not part of a gate (attn_gate); give attn_gate_weights.pth", pth,
                           t->name);
        s->dtype = !s->dtype || strcmp(s->dtype, dtype) == 0 ? dtype : "mixed";
        s->bytes += ca_torch_tensor_bytes(torch, i);
        s->n_tensors++;
        if (!ends_with(t->name, ".attn_gate.mask_linear_k.weight")) continue;
        if (t->n_dims != 3 || t->dims[0] > UINT32_MAX || t->dims[2] > UINT32_MAX)
            return ca_fail(CA_E_FORMAT, "%s: tensor '%s' has %u dimensions, expected 3 (heads, channels, width)", pth, t->name,
                           t->n_dims);
        s->n_layers++;
        s->n_heads = (uint32_t)t->dims[0];
        s->hidden = (uint32_t)t->dims[2];
    }
    return s->n_layers > 0 ? CA_OK
                           : ca_fail(CA_E_FORMAT, "%s: holds no gate: no tensor is named ..attn_gate.mask_linear_k.weight", pth);
}

static ca_status fill(void *user, size_t item, void *out)
{
    return ca_torch_read(user, item, out);
}

static ca_status write_gate(const char *path, ca_torch *torch, const ca_gate_summary *s)
{
    const ca_torch_pickle *p = ca_torch_tensors(torch);
    char block[16];
    const char *meta[3][2] = { { "format", "pt" } }; /* Hugging Face's loaders ask for this key */
    size_t n_meta = 1;
    (void)snprintf(block, sizeof block, "%u", s->block);
    if (s->gate_type[0]) meta[n_meta][0] = "gate_type", meta[n_meta++][1] = s->gate_type;
    if (s->block) meta[n_meta][0] = "gate_block_size", meta[n_meta++][1] = block;
    ca_st_item *items = calloc(p->n_tensors, sizeof *items);
    if (!items) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu tensors", path, p->n_tensors);
    for (size_t i = 0; i < p->n_tensors; i++) {
        const ca_torch_tensor *t = &p->tensors[i];
        items[i] = (ca_st_item){ t->name, p->storages[t->storage].type, t->n_dims, t->dims };
    }
    const ca_st_content content = { items, p->n_tensors, (const char *const(*)[2])meta, n_meta, fill, torch };
    const ca_status st = ca_safetensors_write(path, &content);
    free(items);
    return st;
}

ca_status ca_gate_convert(const char *pth, const char *safetensors, ca_gate_summary *out)
{
    if (!pth || !safetensors) return ca_fail(CA_E_ARG, "gate: paths of a checkpoint and of the new file are needed");
    if (access(safetensors, F_OK) == 0)
        return ca_fail(CA_E_IO, "%s: is there already; remove it or give another name", safetensors);
    ca_torch *torch;
    ca_gate_summary s = { 0 };
    CA_TRY(ca_torch_open(pth, &torch));
    ca_status st = read_config(pth, &s);
    if (st == CA_OK) st = summarize(pth, torch, &s);
    if (st == CA_OK) st = write_gate(safetensors, torch, &s);
    ca_torch_close(torch);
    if (st == CA_OK && out) *out = s;
    return st;
}
