/* compactattn doctor: what this machine offers, which kernels run and why not better ones, library versions. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "commands.h"
#include "measure.h"
#include "message.h"
#include "method.h"
#include "tune.h"

#include <cairo.h>
#include <dnnl.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Library, version it was compiled against, version that is loaded. */
static void add_library(json_t *list, const char *name, const char *compiled, const char *loaded)
{
    json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", name, "compiled", compiled, "loaded", loaded));
}

#define QUOTED(x) #x
#define NUMBER(x) QUOTED(x)

static json_t *list_libraries(void)
{
    json_t *list = json_array();
    char loaded[64] = "";
    const dnnl_version_t *dnnl = dnnl_version();
    snprintf(loaded, sizeof loaded, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    add_library(list, "oneDNN", NUMBER(DNNL_VERSION_MAJOR) "." NUMBER(DNNL_VERSION_MINOR) "." NUMBER(DNNL_VERSION_PATCH), loaded);
    pcre2_config(PCRE2_CONFIG_VERSION, loaded);
    add_library(list, "pcre2", NUMBER(PCRE2_MAJOR) "." NUMBER(PCRE2_MINOR), loaded);
    add_library(list, "jansson", JANSSON_VERSION, jansson_version_str());
    add_library(list, "utf8proc",
                NUMBER(UTF8PROC_VERSION_MAJOR) "." NUMBER(UTF8PROC_VERSION_MINOR) "." NUMBER(UTF8PROC_VERSION_PATCH),
                utf8proc_version());
    add_library(list, "cairo", CAIRO_VERSION_STRING, cairo_version_string());
    return list;
}

static json_t *list_kernels(const char *isa)
{
    ca_kern_report reports[CA_KERN_REPORTS];
    json_t *list = json_array();
    const size_t n = ca_kern_reports(isa, reports, CA_KERN_REPORTS);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s}", "name", reports[i].name, "usable", reports[i].usable,
                                              "chosen", reports[i].chosen, "why", reports[i].why));
    return list;
}

/* A line of /proc/meminfo in bytes; -1 when it is not there. */
static json_int_t memory_bytes(const char *key)
{
    FILE *in = fopen("/proc/meminfo", "r");
    char line[128];
    const size_t length = strlen(key);
    json_int_t bytes = -1;
    while (in && bytes < 0 && fgets(line, sizeof line, in)) {
        if (strncmp(line, key, length) == 0 && line[length] == ':')
            bytes = strtoll(line + length + 1, NULL, 10) * 1024; /* the file counts KiB */
    }
    if (in) fclose(in);
    return bytes;
}

/* What --model would take with its whole context. */
static int forecast_model(const struct options *options, json_t *report)
{
    struct engine engine;
    ca_session_opt opt;
    ca_session_memory memory;
    int code = engine_open(options, &engine);
    if (code != EXIT_DONE) return code;
    static const struct method method = { CA_SELECT_FLASHPREFILL, CA_EXEC_AUTO, "flashprefill+auto" };
    (void)method_session_opt(options, &method, NULL, &opt);
    const ca_status status = ca_session_forecast(engine.model, &opt, &memory);
    if (status == CA_OK)
        json_object_set_new(report, "model",
                            json_pack("{s:o, s:I, s:I, s:I, s:I}", "file", json_text(options->model), "context",
                                      (json_int_t)engine.info.max_context, "weights_bytes", (json_int_t)engine.info.packed_bytes,
                                      "kv_bytes", (json_int_t)memory.kv_bytes, "workspace_bytes",
                                      (json_int_t)memory.workspace_bytes));
    else
        code = fail_library(status);
    engine_close(&engine);
    return code;
}

/* The cost model's constants for one type of attention, measured first and kept with --tune; reports those that runs will use. */
static int add_cost(const struct options *options, const ca_kern *kern, ca_attention attention, int n_threads, const char *name,
                    json_t *report)
{
    char path[1024] = "";
    ca_cost cost;
    if (options->tune) {
        const ca_status status = ca_cost_measure(kern, attention, n_threads, &cost);
        const int code = status == CA_OK ? tune_save(kern, attention, &cost) : fail_library(status);
        if (code != EXIT_DONE) return code;
    }
    const bool measured = tune_cost(kern, attention, &cost);
    (void)tune_path(path, sizeof path);
    json_object_set_new(report, name,
                        json_pack("{s:s?, s:o, s:f, s:f}", "measured_in", measured ? path : NULL, "gflops_per_thread",
                                  measured ? json_real(1e-9 / cost.flop) : json_null(), "flop_per_page_byte",
                                  cost.page_byte / cost.flop, "flop_per_job", cost.job / cost.flop));
    return EXIT_DONE;
}

static int add_costs(const struct options *options, const ca_kern *kern, int n_threads, json_t *report)
{
    const int code = add_cost(options, kern, CA_ATTENTION_NATIVE, n_threads, "cost", report);
    if (code != EXIT_DONE || !json_is_string(json_object_get(report, "int8_attention"))) return code;
    return add_cost(options, kern, CA_ATTENTION_INT8, n_threads, "cost_int8_attention", report);
}

static const char *text_at(const json_t *entry, const char *key)
{
    return json_string_value(json_object_get(entry, key));
}

static double gib_at(const json_t *entry, const char *key)
{
    return (double)json_integer_value(json_object_get(entry, key)) / (1 << 30);
}

static void print_cost(const json_t *cost, const char *of)
{
    if (!cost) return;
    const char *path = text_at(cost, "measured_in");
    printf("\nCost model of auto %s: %s%s\n  a byte of a page costs as much as %.2f operations, a job as much as %.0f\n", of,
           path ? "measured, " : "built-in (doctor --tune measures it)", path ? path : "",
           json_number_value(json_object_get(cost, "flop_per_page_byte")),
           json_number_value(json_object_get(cost, "flop_per_job")));
}

static void print_report(const json_t *report)
{
    size_t index;
    json_t *entry;
    char available[32] = "unknown how much";
    const double gib = gib_at(report, "memory_available_bytes");
    if (gib >= 0) snprintf(available, sizeof available, "%.1f GiB", gib);
    printf("compactattn %s\n\nCPU        %s\nflags      %s\nthreads    %lld\nmemory     %.1f GiB, %s available\n"
           "peak       %.0f GFLOP/s measured\n\nKernels, best first\n",
           text_at(report, "version"), text_at(report, "cpu"), text_at(report, "flags"),
           (long long)json_integer_value(json_object_get(report, "threads")), gib_at(report, "memory_total_bytes"), available,
           json_number_value(json_object_get(report, "peak_gflops")));
    json_array_foreach(json_object_get(report, "kernels"), index, entry)
    {
        const bool chosen = json_is_true(json_object_get(entry, "chosen"));
        printf("  %-12s %s%s\n", text_at(entry, "name"), chosen ? "chosen" : "not used: ", text_at(entry, "why"));
    }
    printf("  %-12s %s runs --matmul int8\n", "", text_at(report, "int8"));
    const char *attention = text_at(report, "int8_attention");
    printf("  %-12s %s runs --attention int8\n", "", attention ? attention : "nothing here");
    puts("\nLibraries");
    json_array_foreach(json_object_get(report, "libraries"), index, entry)
    {
        printf("  %-12s %s (compiled against %s)\n", text_at(entry, "name"), text_at(entry, "loaded"), text_at(entry, "compiled"));
    }
    print_cost(json_object_get(report, "cost"), "rows");
    print_cost(json_object_get(report, "cost_int8_attention"), "rows with --attention int8");
    const json_t *model = json_object_get(report, "model");
    if (model)
        printf("\nModel %s\n  whole context of %lld tokens: weights %.2f GiB, KV pages %.2f GiB, workspace %.2f GiB\n",
               text_at(model, "file"), (long long)json_integer_value(json_object_get(model, "context")),
               gib_at(model, "weights_bytes"), gib_at(model, "kv_bytes"), gib_at(model, "workspace_bytes"));
}

static int run(const struct options *options)
{
    enum { ROUNDS = 100, PAGE = 128 /* the default */ };
    const ca_kern *kern;
    char cpu[128], flags[512];
    const ca_status status = ca_kern_choose(options->isa, &kern);
    if (status != CA_OK) return fail_library(status);
    ca_cpu_name(cpu, sizeof cpu);
    ca_cpu_flags(flags, sizeof flags);
    const int n_threads = engine_threads(options);
    json_t *report = json_pack(
        "{s:s, s:o, s:o, s:i, s:I, s:I, s:o, s:o, s:s, s:s?, s:o}", "version", ca_version(), "cpu", json_text(cpu), "flags",
        json_text(flags), "threads", n_threads, "memory_total_bytes", memory_bytes("MemTotal"), "memory_available_bytes",
        (json_int_t)ca_memory_available() /* -1: unknown, too */, "peak_gflops",
        json_number(ca_kern_peak_gflops(kern, n_threads, ROUNDS)), "kernels", list_kernels(options->isa), "int8",
        ca_kern_int8_name(kern), "int8_attention", ca_kern_int8_attention_name(kern, PAGE), "libraries", list_libraries());
    if (!report) return fail("no memory for the report");
    int code = add_costs(options, kern, n_threads, report);
    if (code == EXIT_DONE && options->model) code = forecast_model(options, report);
    if (code == EXIT_DONE && options->json) return json_print(report);
    if (code == EXIT_DONE) print_report(report);
    json_decref(report);
    return code;
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "Show CPU, kernels, memory and library versions",
    .synopsis = "[-m MODEL] [--tune] [--json]",
    .details = "Says which kernels this machine runs and why better ones were refused; with a model, the memory it would take.\n"
               "--tune measures what reading a page and computing with it cost here, and keeps that in the user's cache folder:\n"
               "the auto executor chooses its rows by it. Run it while nothing else does.\n\n"
               "Examples:\n"
               "  compactattn doctor -m model.gguf\n"
               "  compactattn doctor --tune",
    .bit = CMD_DOCTOR,
    .run = run,
};
