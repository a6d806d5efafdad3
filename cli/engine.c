#include "engine.h"

#include "file.h"
#include "message.h"
#include "npy.h"
#include "tune.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int engine_threads(const struct options *options)
{
    return options->threads > 0 ? (int)options->threads : omp_get_num_procs();
}

ca_thinking engine_thinking(const struct options *options)
{
    if (!options->thinking) return CA_THINKING_DEFAULT;
    return strcmp(options->thinking, "on") == 0 ? CA_THINKING_ON : CA_THINKING_OFF;
}

int engine_read_text(const char *path, char **text, size_t *size)
{
    char why[FILE_WHY];
    return file_read(path, text, size, why) ? EXIT_DONE : fail("%s: %s", path ? path : "standard input", why);
}

int engine_read_ids(const char *path, uint32_t **ids, size_t *n_ids)
{
    char *bytes = NULL, why[NPY_WHY];
    size_t size = 0;
    const int code = engine_read_text(path, &bytes, &size);
    if (code != EXIT_DONE) return code;
    const bool known = npy_parse_ids((const unsigned char *)bytes, size, ids, n_ids, why);
    free(bytes);
    return known ? EXIT_DONE : fail("%s: %s", path, why);
}

/* --isa holds for oneDNN's products, too, in the whole process, which opens one model. scalar is the reference of our kernels, not of
 * oneDNN's. */
static void cap_products(const char *isa)
{
    static const struct {
        const char *isa;
        dnnl_cpu_isa_t most;
    } caps[] = { { "avx512bf16", dnnl_cpu_isa_avx512_core_bf16 },
                 { "avx512mixed", dnnl_cpu_isa_avx512_core_vnni },
                 { "avx512", dnnl_cpu_isa_avx512_core_vnni },
                 { "avx2mixed", dnnl_cpu_isa_avx2 },
                 { "avx2", dnnl_cpu_isa_avx2 },
                 { "scalar", dnnl_cpu_isa_avx2 } };
    for (size_t i = 0; isa && i < sizeof caps / sizeof *caps; i++)
        if (strcmp(isa, caps[i].isa) == 0) (void)dnnl_set_max_cpu_isa(caps[i].most);
}

static int model_opt(const struct options *options, const struct engine *engine, ca_model_opt *out)
{
    ca_model_opt opt = { .isa = options->isa,
                         .n_threads = engine->n_threads,
                         .forecast_only = options->dry_run,
                         .matmul = options->matmul && strcmp(options->matmul, "int8") == 0 ? CA_MATMUL_INT8 : CA_MATMUL_NATIVE };
    if (options->extend) {
        char none[] = "", *end = none;
        const size_t kind = strcspn(options->extend, ":");
        opt.extend = strncmp(options->extend, "yarn:", kind + 1) == 0     ? CA_EXTEND_YARN
                     : strncmp(options->extend, "linear:", kind + 1) == 0 ? CA_EXTEND_LINEAR
                                                                          : CA_EXTEND_NONE;
        opt.extend_factor = options->extend[kind] ? strtof(options->extend + kind + 1, &end) : 0;
        if (opt.extend == CA_EXTEND_NONE || !(opt.extend_factor >= 1) || *end)
            return usage_error("--extend %s: expected yarn:F or linear:F, F the factor by which the context grows",
                               options->extend);
    }
    cap_products(options->isa);
    *out = opt;
    return EXIT_DONE;
}

/* Takes over what an opened model says, and opens its gate. */
static int use_model(const struct options *options, ca_status status, struct engine *engine)
{
    if (status != CA_OK) return fail_library(status);
    engine->tokenizer = ca_model_tokenizer(engine->model);
    ca_model_get_info(engine->model, &engine->info);
    snprintf(engine->kernels, sizeof engine->kernels, "%s%s%s", ca_kern_name(ca_model_kern(engine->model)),
             engine->info.matmul == CA_MATMUL_INT8 ? "+int8" : "", method_attention_label(options));
    if (!options->gate) return EXIT_DONE;
    const ca_status opened = ca_gate_open(options->gate, engine->model, &engine->gate);
    return opened == CA_OK ? EXIT_DONE : fail_library(opened);
}

int engine_open(const struct options *options, struct engine *engine)
{
    ca_model_opt opt;
    *engine = (struct engine){ .n_threads = engine_threads(options) };
    const int code = model_opt(options, engine, &opt);
    return code == EXIT_DONE ? use_model(options, ca_model_open(options->model, &opt, &engine->model), engine) : code;
}

int engine_open_shape(const struct options *options, const char *path, uint32_t n_layers, bool forecast, struct engine *engine)
{
    ca_model_opt opt;
    *engine = (struct engine){ .n_threads = engine_threads(options) };
    const int code = model_opt(options, engine, &opt);
    if (code != EXIT_DONE) return code;
    opt.forecast_only = forecast;
    return use_model(options, ca_model_open_random(path, (uint64_t)options->seed, n_layers, &opt, &engine->model), engine);
}

void engine_close(struct engine *engine)
{
    ca_gate_destroy(engine->gate);
    ca_model_close(engine->model);
}

int engine_session_opt(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt,
                       size_t n_more, ca_session_opt *out)
{
    const int code = method_session_opt(options, method, engine->gate, out);
    if (code != EXIT_DONE) return code;
    out->n_threads = engine->n_threads;
    const ca_kern *kern = ca_model_kern(engine->model);
    (void)tune_cost(kern, out->attention, &out->cost);
    const uint32_t model_max = engine->info.max_context;
    const uint32_t limit = out->context > 0 && out->context < model_max ? out->context : model_max;
    if (n_prompt > limit)
        return fail("the prompt has %zu tokens and the context is %u (the model's maximum is %u): shorten the text%s", n_prompt,
                    limit, model_max, n_prompt <= model_max ? " or raise --ctx" : ", or stretch the context with --extend");
    if (out->context == 0) out->context = n_more < limit - n_prompt ? (uint32_t)(n_prompt + n_more) : limit;
    return EXIT_DONE;
}

int engine_session(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt,
                   size_t n_more, ca_session **out)
{
    ca_session_opt opt;
    const int code = engine_session_opt(engine, options, method, n_prompt, n_more, &opt);
    if (code != EXIT_DONE) return code;
    const ca_status status = ca_session_create(engine->model, &opt, out);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

size_t engine_reuse(ca_session *session, const uint32_t *ids, size_t n_ids)
{
    uint32_t shared = ca_session_shared(session, ids, n_ids);
    if (shared == n_ids && shared > 0) shared--;
    if (ca_session_truncate(session, shared) == CA_OK) return shared;
    (void)ca_session_truncate(session, 0); /* layers with a window have forgotten what would be needed */
    return 0;
}

int engine_check_ids(const struct engine *engine, const char *path, const uint32_t *ids, size_t n_ids)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] >= engine->info.vocab)
            return fail("%s: token %zu is %u, but the model's vocabulary has %u tokens", path, i, ids[i], engine->info.vocab);
    }
    return EXIT_DONE;
}

int engine_tokenize(const struct engine *engine, const char *text, size_t size, unsigned flags, uint32_t **ids, size_t *n_ids)
{
    const ca_status status = ca_tokenize(engine->tokenizer, text, size, flags, ids, n_ids);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

double engine_peak(const struct engine *engine)
{
    enum { ROUNDS = 50 };
    return ca_kern_peak_gflops(ca_model_kern(engine->model), engine->n_threads, ROUNDS);
}
