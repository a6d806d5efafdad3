#include "model/model.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/weights.h"
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_hf.h"

enum { MAX_THREADS = 1024 };

/* general.name of GGUF; a folder's own name. */
static ca_status read_name(const ca_store *store, char *name, size_t cap)
{
    const ca_gguf *gguf = ca_store_gguf(store);
    ca_str text = { "", 0 };
    if (gguf != NULL) {
        CA_TRY(ca_gguf_str_or(gguf, "general.name", text, &text));
    } else {
        const char *path = ca_store_path(store), *slash = strrchr(path, '/');
        text.data = slash != NULL ? slash + 1 : path;
        text.len = strlen(text.data);
    }
    ca_str_text(text, name, cap);
    return CA_OK;
}

static ca_status fill_info(ca_model *model)
{
    const ca_config *c = &model->config;
    ca_model_info *info = &model->info;
    *info = (ca_model_info){ .n_layers = c->n_layers,
                             .n_layers_whole = info->n_layers_whole,
                             .hidden = c->hidden,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .ffn = c->ffn,
                             .vocab = c->vocab != 0 ? c->vocab : ca_tokenizer_size(model->tokenizer),
                             .max_context = c->max_context,
                             .rope_theta = c->rope[0].theta,
                             .rope_factor = c->rope[0].factor,
                             .rms_eps = c->rms_eps,
                             .attn_scale = c->attn_scale,
                             .n_experts = c->n_experts,
                             .experts_per_token = c->top_k,
                             .expert_ffn = c->expert_ffn,
                             .file_bytes = ca_store_file_bytes(model->store) };
    (void)snprintf(info->architecture, sizeof info->architecture, "%s", model->family->architecture);
    (void)snprintf(info->rope_scaling, sizeof info->rope_scaling, "%s", ca_rope_name(c->rope[0].kind));
    for (uint32_t l = 0; l < c->n_layers; l++) info->n_sliding += c->sliding[l];
    info->window = info->n_sliding > 0 ? c->window : 0;
    model->n_rotations = info->n_sliding > 0 ? 2 : 1;
    return read_name(model->store, info->name, sizeof info->name);
}

/* Options that change the configuration of the file. */
static ca_status extend(ca_model *model, const ca_model_opt *opt)
{
    ca_config *c = &model->config;
    const char *path = ca_store_path(model->store);
    if (opt->extend == CA_EXTEND_NONE) return CA_OK;
    if (opt->extend != CA_EXTEND_LINEAR && opt->extend != CA_EXTEND_YARN)
        return ca_fail(CA_E_ARG, "model: extension %d is unknown", (int)opt->extend);
    if (!(opt->extend_factor >= 1.0F && opt->extend_factor <= 1e3F))
        return ca_fail(CA_E_ARG, "model: the context can be extended by 1 to 1000, not by %g", (double)opt->extend_factor);
    if (c->rope[0].kind != CA_ROPE_PLAIN || ca_store_find(model->store, "rope_freqs.weight") != NULL)
        return ca_fail(CA_E_UNSUPPORTED, "%s: the model scales its RoPE already (%s): its context cannot be extended", path,
                       c->rope[0].kind != CA_ROPE_PLAIN ? ca_rope_name(c->rope[0].kind) : "rope_freqs.weight");
    const double context = (double)c->max_context * (double)opt->extend_factor;
    if (context > CA_MAX_CONTEXT) return ca_fail(CA_E_ARG, "model: a context of %.0f tokens is above %d", context, CA_MAX_CONTEXT);
    ca_rope_extend(&c->rope[0], opt->extend == CA_EXTEND_YARN ? CA_ROPE_YARN : CA_ROPE_LINEAR, opt->extend_factor, c->max_context);
    c->max_context = (uint32_t)context;
    return CA_OK;
}

/* Where the weights come from. */
typedef struct origin {
    const char *path;
    bool drawn; /* path is a config.json */
    uint64_t seed;
    uint32_t n_layers; /* 0 = all */
} origin;

/* Drops the layers behind the first n. */
static ca_status cut_layers(ca_model *model, uint32_t n)
{
    ca_config *c = &model->config;
    model->info.n_layers_whole = c->n_layers;
    if (n > c->n_layers)
        return ca_fail(CA_E_ARG, "%s: %u layers are asked for, the model has %u", ca_store_meta_path(model->store), n, c->n_layers);
    if (n > 0) c->n_layers = n;
    return CA_OK;
}

static ca_status open_tokenizer(ca_model *model)
{
    const ca_gguf *gguf = ca_store_gguf(model->store);
    if (model->drawn) return CA_OK;
    return gguf != NULL ? ca_tokenizer_from_gguf(gguf, &model->tokenizer)
                        : ca_tokenizer_from_folder(ca_store_path(model->store), &model->tokenizer);
}

/* Matrix products of the kernel set's type. Where oneDNN has none (2.6 lacks bf16 on ARM) and no set is named, the best set of fp32
 * takes over. */
static ca_status open_engine(ca_model *model, const char *isa)
{
    const ca_status st = ca_gemm_engine_create(model->kern, &model->engine);
    if (st != CA_E_UNSUPPORTED || (isa != NULL && strcmp(isa, "auto") != 0)) return st;
    ca_kern_report sets[CA_KERN_REPORTS];
    const size_t n = ca_kern_reports(isa, sets, CA_KERN_REPORTS);
    for (size_t i = 0; i < n; i++) {
        if (!sets[i].usable) continue;
        CA_TRY(ca_kern_choose(sets[i].name, &model->kern));
        if (ca_kern_flow_dtype(model->kern) == CA_F32) return ca_gemm_engine_create(model->kern, &model->engine);
    }
    return st;
}

static ca_status load(ca_model *model, const origin *from, const ca_model_opt *opt)
{
    model->drawn = from->drawn;
    model->seed = from->seed;
    CA_TRY(ca_kern_choose(opt->isa, &model->kern));
    CA_TRY(from->drawn ? ca_store_open_config(from->path, &model->store) : ca_store_open(from->path, &model->store));
    CA_TRY(ca_config_read(model->store, &model->family, &model->config));
    CA_TRY(cut_layers(model, from->n_layers));
    CA_TRY(extend(model, opt));
    CA_TRY(open_tokenizer(model));
    CA_TRY(open_engine(model, opt->isa));
    CA_TRY(fill_info(model));
    model->info.matmul = opt->matmul;
    return ca_weights_load(model, opt->forecast_only);
}

static ca_status open_model(const origin *from, const ca_model_opt *opt, ca_model **out)
{
    static const ca_model_opt no_opt = { 0 };
    *out = NULL;
    if (opt == NULL) opt = &no_opt;
    if (opt->n_threads < 0 || opt->n_threads > MAX_THREADS)
        return ca_fail(CA_E_ARG, "model: %d threads: give 0 (all) or 1 to %d", opt->n_threads, MAX_THREADS);
    if (opt->matmul != CA_MATMUL_NATIVE && opt->matmul != CA_MATMUL_INT8)
        return ca_fail(CA_E_ARG, "model: type %d of matrix products is unknown", (int)opt->matmul);
    ca_model *model = calloc(1, sizeof *model);
    if (model == NULL) return ca_fail(CA_E_MEMORY, "model: no memory to open %s", from->path);
    model->n_threads = opt->n_threads > 0 ? opt->n_threads : omp_get_num_procs();

    const int callers_threads = omp_get_max_threads();
    omp_set_num_threads(model->n_threads);
    const ca_status st = load(model, from, opt);
    omp_set_num_threads(callers_threads);
    if (st != CA_OK) {
        ca_model_close(model);
        return st;
    }
    *out = model;
    return CA_OK;
}

const char *ca_matmul_name(ca_matmul matmul)
{
    return matmul == CA_MATMUL_INT8 ? "int8" : "native";
}

ca_status ca_model_open(const char *path, const ca_model_opt *opt, ca_model **out)
{
    return open_model(&(origin){ .path = path }, opt, out);
}

ca_status ca_model_open_random(const char *config_path, uint64_t seed, uint32_t n_layers, const ca_model_opt *opt, ca_model **out)
{
    return open_model(&(origin){ .path = config_path, .drawn = true, .seed = seed, .n_layers = n_layers }, opt, out);
}

void ca_model_close(ca_model *model)
{
    if (model == NULL) return;
    ca_weights_free(model);
    ca_gemm_engine_destroy(model->engine);
    ca_tokenizer_close(model->tokenizer);
    ca_store_close(model->store);
    free(model);
}

void ca_model_get_info(const ca_model *model, ca_model_info *out)
{
    *out = model->info;
}

const ca_tokenizer *ca_model_tokenizer(const ca_model *model)
{
    return model->tokenizer;
}

const ca_kern *ca_model_kern(const ca_model *model)
{
    return model->kern;
}
