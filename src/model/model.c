#include "model/model.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_gguf.h"

enum { MAX_THREADS = 1024 };

static const ca_family *const families[] = { &ca_family_llama };

static void copy_str(ca_str from, char *to, size_t cap)
{
    const size_t n = from.len < cap - 1 ? from.len : cap - 1;
    memcpy(to, from.data, n);
    to[n] = '\0';
}

static ca_status load_family(ca_model *model)
{
    enum { N_FAMILIES = sizeof families / sizeof *families };
    ca_str name;
    CA_TRY(ca_gguf_str(model->gguf, "general.architecture", &name));
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (name.len == strlen(families[i]->architecture) && memcmp(name.data, families[i]->architecture, name.len) == 0)
            return families[i]->load(model);
    char known[128] = "";
    for (size_t i = 0, used = 0; i < N_FAMILIES && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", families[i]->architecture);
    return ca_fail(CA_E_UNSUPPORTED, "%s: architecture '%.*s' is not supported; this build knows: %s", ca_gguf_path(model->gguf),
                   (int)(name.len < 64 ? name.len : 64), name.data, known);
}

static ca_status fill_info(ca_model *model)
{
    ca_model_info *info = &model->info;
    ca_str text;
    CA_TRY(ca_gguf_str(model->gguf, "general.architecture", &text));
    copy_str(text, info->architecture, sizeof info->architecture);
    CA_TRY(ca_gguf_str_or(model->gguf, "general.name", (ca_str){ "", 0 }, &text));
    copy_str(text, info->name, sizeof info->name);
    info->file_bytes = ca_gguf_file_bytes(model->gguf);
    for (size_t i = 0; i < ca_gguf_n_tensors(model->gguf); i++) {
        const ca_tensor *t = ca_gguf_tensor_at(model->gguf, i);
        info->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
    info->packed_bytes = ca_gemm_weight_bytes(model->output);
    for (uint32_t l = 0; l < info->n_layers; l++) {
        const ca_layer *layer = &model->layers[l];
        info->packed_bytes += ca_gemm_weight_bytes(layer->qkv) + ca_gemm_weight_bytes(layer->o) +
                              ca_gemm_weight_bytes(layer->gate_up) + ca_gemm_weight_bytes(layer->down);
    }
    return CA_OK;
}

static ca_status load(ca_model *model, const char *path, const char *isa)
{
    CA_TRY(ca_kern_choose(isa, &model->kern));
    CA_TRY(ca_gguf_open(path, &model->gguf));
    CA_TRY(ca_tokenizer_from_gguf(model->gguf, &model->tokenizer));
    CA_TRY(ca_gemm_engine_create(ca_kern_dtype(model->kern), &model->engine));
    CA_TRY(load_family(model));
    return fill_info(model);
}

ca_status ca_model_open(const char *path, const ca_model_opt *opt, ca_model **out)
{
    *out = NULL;
    const int n_threads = opt != NULL ? opt->n_threads : 0;
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return ca_fail(CA_E_ARG, "model: %d threads: give 0 (all) or 1 to %d", n_threads, MAX_THREADS);
    ca_model *model = calloc(1, sizeof *model);
    if (model == NULL) return ca_fail(CA_E_MEMORY, "model: no memory to open %s", path);
    model->n_threads = n_threads > 0 ? n_threads : omp_get_num_procs();

    const int callers_threads = omp_get_max_threads();
    omp_set_num_threads(model->n_threads);
    const ca_status st = load(model, path, opt != NULL ? opt->isa : NULL);
    omp_set_num_threads(callers_threads);
    if (st != CA_OK) {
        ca_model_close(model);
        return st;
    }
    *out = model;
    return CA_OK;
}

void ca_model_close(ca_model *model)
{
    if (model == NULL) return;
    for (uint32_t l = 0; model->layers != NULL && l < model->info.n_layers; l++) {
        ca_layer *layer = &model->layers[l];
        free(layer->attn_norm);
        free(layer->ffn_norm);
        ca_gemm_weight_destroy(layer->qkv);
        ca_gemm_weight_destroy(layer->o);
        ca_gemm_weight_destroy(layer->gate_up);
        ca_gemm_weight_destroy(layer->down);
    }
    free(model->layers);
    free(model->final_norm);
    free(model->inv_freq);
    ca_gemm_weight_destroy(model->output);
    ca_gemm_engine_destroy(model->engine);
    ca_tokenizer_close(model->tokenizer);
    ca_gguf_close(model->gguf);
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
