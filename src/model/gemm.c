#include "model/gemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdlib.h>

#include "base/arith.h"
#include "model/gemm_coded.h"
#include "model/gemm_int8.h"

enum {
    ALIGNMENT = 64,
    MODEL_M = 1024,         /* the m for which weights are laid out */
    PANEL_FLOATS = 1 << 18, /* a packing panel holds about this many weights */
    PANEL_MULTIPLE = 192    /* rows of a panel: a multiple of every column block of oneDNN (16, 32, 48, 64) */
};

struct ca_gemm_engine {
    const ca_kern *kern;
    const ca_int8 *int8;
    dnnl_engine_t engine;
    dnnl_data_type_t type;
};

struct ca_gemm_weight {
    uint32_t k, n;
    size_t bytes;
    ca_int8_weight int8;   /* with panels: this is the weight, and the rest is empty */
    ca_coded_weight coded; /* as well */
    dnnl_memory_desc_t md;
    dnnl_memory_t memory;
    void *data;
};

/* A compiled product. memories: A, C and scratch, whose pointers are set before each run. */
typedef struct plan {
    uint32_t k, n, m;
    int n_threads;
    bool accumulate;
    uint64_t last_use;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, c, scratch;
} plan;

struct ca_gemm_runner {
    const ca_gemm_engine *engine;
    dnnl_stream_t stream;
    plan plans[CA_GEMM_PLANS];
    size_t n_plans;
    uint64_t uses;
    void *scratch;
    size_t scratch_bytes;
    ca_gemm_count count;
};

static ca_status check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success) return CA_OK;
    if (status == dnnl_out_of_memory) return ca_fail(CA_E_MEMORY, "matrix product: oneDNN: no memory for %s", what);
    return ca_fail(CA_E_UNSUPPORTED, "matrix product: oneDNN refuses %s: %s", what, dnnl_status2str(status));
}

static ca_status alloc_bytes(size_t bytes, const char *what, void **out)
{
    *out = bytes <= SIZE_MAX - ALIGNMENT ? aligned_alloc(ALIGNMENT, ca_align_up(bytes, ALIGNMENT)) : NULL;
    return *out != NULL ? CA_OK : ca_fail(CA_E_MEMORY, "matrix product: no memory for %zu bytes of %s", bytes, what);
}

/* Descriptor of a row-major (or, transposed, column-major) matrix. */
static ca_status plain_md(uint32_t rows, uint32_t cols, dnnl_data_type_t type, dnnl_format_tag_t tag, dnnl_memory_desc_t *md)
{
    const dnnl_dims_t dims = { rows, cols };
    return check(dnnl_memory_desc_init_by_tag(md, 2, dims, type, tag), "a matrix");
}

/* weights: the packed format, or format any. */
static ca_status product_desc(const ca_gemm_engine *engine, uint32_t m, const dnnl_memory_desc_t *weights, bool accumulate,
                              dnnl_primitive_desc_t *out)
{
    const uint32_t k = (uint32_t)weights->dims[0];
    const uint32_t n = (uint32_t)weights->dims[1];
    dnnl_memory_desc_t a, c;
    CA_TRY(plain_md(m, k, engine->type, dnnl_ab, &a));
    CA_TRY(plain_md(m, n, dnnl_f32, dnnl_ab, &c));
    dnnl_matmul_desc_t desc;
    CA_TRY(check(dnnl_matmul_desc_init(&desc, &a, weights, NULL, &c), "a product's shape"));

    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post_ops = NULL;
    ca_status st = CA_OK;
    CA_TRY_GOTO(check(dnnl_primitive_attr_create(&attr), "attributes"), done);
    CA_TRY_GOTO(check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratch mode"), done);
    if (accumulate) {
        CA_TRY_GOTO(check(dnnl_post_ops_create(&post_ops), "post operations"), done);
        CA_TRY_GOTO(check(dnnl_post_ops_append_sum(post_ops, 1.0F), "a sum"), done);
        CA_TRY_GOTO(check(dnnl_primitive_attr_set_post_ops(attr, post_ops), "post operations"), done);
    }
    CA_TRY_GOTO(check(dnnl_primitive_desc_create(out, &desc, attr, engine->engine, NULL), "a product of this type"), done);
done:
    dnnl_post_ops_destroy(post_ops);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

static ca_status packed_md(const ca_gemm_engine *engine, uint32_t k, uint32_t n, dnnl_memory_desc_t *md)
{
    dnnl_memory_desc_t any;
    CA_TRY(plain_md(k, n, engine->type, dnnl_format_tag_any, &any));
    dnnl_primitive_desc_t pd;
    CA_TRY(product_desc(engine, MODEL_M, &any, false, &pd));
    *md = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(pd);
    return CA_OK;
}

ca_status ca_gemm_engine_create(const ca_kern *kern, ca_gemm_engine **out)
{
    *out = NULL;
    ca_gemm_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return ca_fail(CA_E_MEMORY, "matrix product: no memory for an engine");
    engine->kern = kern;
    engine->int8 = ca_int8_choose(kern);
    engine->type = kern->flow == CA_BF16 ? dnnl_bf16 : dnnl_f32;
    ca_status st;
    dnnl_memory_desc_t probe;
    CA_TRY_GOTO(check(dnnl_engine_create(&engine->engine, dnnl_cpu, 0), "a CPU engine"), failed);
    CA_TRY_GOTO(packed_md(engine, MODEL_M, MODEL_M, &probe), failed);
    *out = engine;
    return CA_OK;
failed:
    ca_gemm_engine_destroy(engine);
    return st;
}

void ca_gemm_engine_destroy(ca_gemm_engine *engine)
{
    if (engine == NULL) return;
    dnnl_engine_destroy(engine->engine);
    free(engine);
}

/* Reorders f32 rows [first, first + count) of the source into their place in the packed weight. */
static ca_status pack_panel(const ca_gemm_engine *engine, dnnl_stream_t stream, const ca_gemm_weight *weight, uint32_t first,
                            uint32_t count, float *rows)
{
    dnnl_memory_desc_t from, to;
    CA_TRY(plain_md(weight->k, count, dnnl_f32, dnnl_ba, &from));
    const dnnl_dims_t dims = { weight->k, count };
    const dnnl_dims_t offsets = { 0, first };
    CA_TRY(check(dnnl_memory_desc_init_submemory(&to, &weight->md, dims, offsets), "a panel of a weight"));

    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t src = NULL;
    dnnl_memory_t dst = NULL;
    ca_status st = CA_OK;
    CA_TRY_GOTO(check(dnnl_reorder_primitive_desc_create(&pd, &from, engine->engine, &to, engine->engine, NULL), "packing"), done);
    CA_TRY_GOTO(check(dnnl_primitive_create(&reorder, pd), "packing"), done);
    CA_TRY_GOTO(check(dnnl_memory_create(&src, &from, engine->engine, rows), "a panel"), done);
    CA_TRY_GOTO(check(dnnl_memory_create(&dst, &to, engine->engine, weight->data), "a panel"), done);
    const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, src }, { DNNL_ARG_TO, dst } };
    CA_TRY_GOTO(check(dnnl_primitive_execute(reorder, stream, 2, args), "packing"), done);
    CA_TRY_GOTO(check(dnnl_stream_wait(stream), "packing"), done);
done:
    dnnl_memory_destroy(dst);
    dnnl_memory_destroy(src);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(pd);
    return st;
}

ca_status ca_gemm_packed_bytes(const ca_gemm_engine *engine, bool int8, uint32_t k, uint32_t n, const ca_gemm_source *source,
                               size_t *out)
{
    dnnl_memory_desc_t md;
    if (int8) {
        *out = ca_int8_weight_bytes(k, n);
    } else if (ca_coded_fits(engine->kern, k, n, source)) {
        *out = ca_coded_weight_bytes(k, n, source);
    } else {
        CA_TRY(packed_md(engine, k, n, &md));
        *out = dnnl_memory_desc_get_size(&md);
    }
    return CA_OK;
}

/* Memory for a weight, which pack_panel fills. */
static ca_status reserve_weight(const ca_gemm_engine *engine, bool int8, const ca_gemm_source *source, ca_gemm_weight *weight)
{
    CA_TRY(ca_gemm_packed_bytes(engine, int8, weight->k, weight->n, source, &weight->bytes));
    if (int8) return ca_int8_weight_create(weight->k, weight->n, &weight->int8);
    CA_TRY(packed_md(engine, weight->k, weight->n, &weight->md));
    CA_TRY(alloc_bytes(weight->bytes, "packed weights", &weight->data));
    return check(dnnl_memory_create(&weight->memory, &weight->md, engine->engine, weight->data), "a weight");
}

ca_status ca_gemm_pack(const ca_gemm_engine *engine, bool int8, uint32_t k, uint32_t n, const ca_gemm_source *source,
                       ca_gemm_weight **out)
{
    *out = NULL;
    if (k == 0 || n == 0 || k > INT32_MAX || n > INT32_MAX)
        return ca_fail(CA_E_ARG, "matrix product: a weight of %u x %u cannot be packed", k, n);
    const uint32_t wanted = ca_max_u32(PANEL_FLOATS / k / PANEL_MULTIPLE, 1) * PANEL_MULTIPLE;
    const uint32_t panel = ca_min_u32(wanted, n);
    size_t panel_bytes = 0;
    CA_TRY(ca_mul_size((size_t)panel * k, sizeof(float), &panel_bytes));

    ca_gemm_weight *weight = calloc(1, sizeof *weight);
    if (weight == NULL) return ca_fail(CA_E_MEMORY, "matrix product: no memory for a weight");
    weight->k = k;
    weight->n = n;
    void *rows = NULL;
    dnnl_stream_t stream = NULL;
    ca_status st = CA_OK;
    if (!int8 && ca_coded_fits(engine->kern, k, n, source)) {
        CA_TRY_GOTO(ca_coded_weight_pack(k, n, source, &weight->coded), failed);
        weight->bytes = weight->coded.bytes;
        *out = weight;
        return CA_OK;
    }
    CA_TRY_GOTO(reserve_weight(engine, int8, source, weight), failed);
    CA_TRY_GOTO(alloc_bytes(panel_bytes, "a packing panel", &rows), failed);
    CA_TRY_GOTO(check(dnnl_stream_create(&stream, engine->engine, dnnl_stream_default_flags), "a stream"), failed);
    for (uint32_t first = 0; first < n; first += ca_min_u32(panel, n - first)) {
        const uint32_t count = ca_min_u32(panel, n - first);
        source->rows(source->user, first, count, rows);
        if (int8)
            ca_int8_weight_pack(&weight->int8, first, count, rows);
        else
            CA_TRY_GOTO(pack_panel(engine, stream, weight, first, count, rows), failed);
    }
    *out = weight;
    weight = NULL;
failed:
    dnnl_stream_destroy(stream);
    free(rows);
    ca_gemm_weight_destroy(weight);
    return st;
}

void ca_gemm_weight_destroy(ca_gemm_weight *weight)
{
    if (weight == NULL) return;
    ca_int8_weight_destroy(&weight->int8);
    ca_coded_weight_destroy(&weight->coded);
    dnnl_memory_destroy(weight->memory);
    free(weight->data);
    free(weight);
}

size_t ca_gemm_weight_bytes(const ca_gemm_weight *weight)
{
    return weight->bytes;
}

uint32_t ca_gemm_weight_n(const ca_gemm_weight *weight)
{
    return weight->n;
}

ca_status ca_gemm_runner_create(const ca_gemm_engine *engine, ca_gemm_runner **out)
{
    *out = NULL;
    ca_gemm_runner *runner = calloc(1, sizeof *runner);
    if (runner == NULL) return ca_fail(CA_E_MEMORY, "matrix product: no memory for a runner");
    runner->engine = engine;
    const ca_status st = check(dnnl_stream_create(&runner->stream, engine->engine, dnnl_stream_default_flags), "a stream");
    if (st != CA_OK) {
        free(runner);
        return st;
    }
    *out = runner;
    return CA_OK;
}

static void plan_clear(plan *p)
{
    dnnl_primitive_destroy(p->primitive);
    dnnl_memory_destroy(p->a);
    dnnl_memory_destroy(p->c);
    dnnl_memory_destroy(p->scratch);
    *p = (plan){ 0 };
}

void ca_gemm_runner_destroy(ca_gemm_runner *runner)
{
    if (runner == NULL) return;
    for (size_t i = 0; i < runner->n_plans; i++) plan_clear(&runner->plans[i]);
    dnnl_stream_destroy(runner->stream);
    free(runner->scratch);
    free(runner);
}

static ca_status reserve_scratch(ca_gemm_runner *runner, size_t bytes)
{
    if (bytes <= runner->scratch_bytes) return CA_OK;
    void *grown = NULL;
    CA_TRY(alloc_bytes(bytes, "scratch", &grown));
    free(runner->scratch);
    runner->scratch = grown;
    runner->scratch_bytes = bytes;
    return CA_OK;
}

static ca_status plan_compile(ca_gemm_runner *runner, const ca_gemm_weight *weight, plan *p)
{
    const dnnl_engine_t engine = runner->engine->engine;
    dnnl_primitive_desc_t pd = NULL;
    CA_TRY(product_desc(runner->engine, p->m, &weight->md, p->accumulate, &pd));
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    ca_status st = CA_OK;
    CA_TRY_GOTO(reserve_scratch(runner, dnnl_memory_desc_get_size(scratch)), done);
    CA_TRY_GOTO(check(dnnl_primitive_create(&p->primitive, pd), "a product"), done);
    CA_TRY_GOTO(check(dnnl_memory_create(&p->a, dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0), engine, NULL), "A"), done);
    CA_TRY_GOTO(check(dnnl_memory_create(&p->c, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), engine, NULL), "C"), done);
    CA_TRY_GOTO(check(dnnl_memory_create(&p->scratch, scratch, engine, NULL), "scratch"), done);
done:
    dnnl_primitive_desc_destroy(pd);
    return st;
}

/* The compiled product for this shape; the one unused for longest makes room. */
static ca_status find_plan(ca_gemm_runner *runner, const ca_gemm_weight *weight, uint32_t m, bool accumulate, plan **out)
{
    const int n_threads = omp_get_max_threads();
    size_t oldest = 0;
    runner->uses++;
    for (size_t i = 0; i < runner->n_plans; i++) {
        plan *p = &runner->plans[i];
        if (p->k == weight->k && p->n == weight->n && p->m == m && p->accumulate == accumulate && p->n_threads == n_threads) {
            p->last_use = runner->uses;
            *out = p;
            return CA_OK;
        }
        if (p->last_use < runner->plans[oldest].last_use) oldest = i;
    }
    if (runner->n_plans < CA_GEMM_PLANS) oldest = runner->n_plans++;
    plan *p = &runner->plans[oldest];
    plan_clear(p);
    *p = (plan){
        .k = weight->k, .n = weight->n, .m = m, .n_threads = n_threads, .accumulate = accumulate, .last_use = runner->uses
    };
    const ca_status st = plan_compile(runner, weight, p);
    if (st != CA_OK) plan_clear(p); /* a cleared plan matches no shape and is the first to be replaced */
    *out = p;
    return st;
}

static ca_status run_native(ca_gemm_runner *runner, const ca_gemm_weight *weight, const void *a, uint32_t m, float *c,
                            bool accumulate)
{
    plan *p = NULL;
    CA_TRY(find_plan(runner, weight, m, accumulate, &p));
    /* oneDNN takes A through a pointer to non-const but only reads it. */
    CA_TRY(check(dnnl_memory_set_data_handle(p->a, (void *)(uintptr_t)a), "A"));
    CA_TRY(check(dnnl_memory_set_data_handle(p->c, c), "C"));
    CA_TRY(check(dnnl_memory_set_data_handle(p->scratch, runner->scratch), "scratch"));
    const dnnl_exec_arg_t args[] = {
        { DNNL_ARG_SRC, p->a }, { DNNL_ARG_WEIGHTS, weight->memory }, { DNNL_ARG_DST, p->c }, { DNNL_ARG_SCRATCHPAD, p->scratch }
    };
    CA_TRY(check(dnnl_primitive_execute(p->primitive, runner->stream, 4, args), "a product"));
    return check(dnnl_stream_wait(runner->stream), "a product");
}

static ca_status run_int8(ca_gemm_runner *runner, const ca_gemm_weight *weight, const void *a, uint32_t m, float *c,
                          bool accumulate)
{
    const ca_gemm_engine *engine = runner->engine;
    CA_TRY(reserve_scratch(runner, ca_int8_scratch_bytes(weight->k, m)));
    ca_int8_weight_run(engine->kern, engine->int8, &weight->int8, a, m, c, accumulate, runner->scratch);
    return CA_OK;
}

static ca_status run_coded(ca_gemm_runner *runner, const ca_gemm_weight *weight, const void *a, uint32_t m, float *c,
                           bool accumulate)
{
    ca_coded_weight_run(runner->engine->kern, &weight->coded, a, m, c, accumulate);
    return CA_OK;
}

ca_status ca_gemm_run(ca_gemm_runner *runner, const ca_gemm_weight *weight, const void *a, uint32_t m, float *c, bool accumulate)
{
    if (m == 0 || m > INT32_MAX) return ca_fail(CA_E_ARG, "matrix product: %u rows", m);
    const double start = omp_get_wtime();
    const bool int8 = weight->int8.panels != NULL, coded = weight->coded.panels != NULL;
    CA_TRY((int8 ? run_int8 : coded ? run_coded : run_native)(runner, weight, a, m, c, accumulate));
    runner->count.ms += (omp_get_wtime() - start) * 1e3;
    runner->count.flop += 2.0 * m * weight->k * weight->n;
    return CA_OK;
}

ca_gemm_count ca_gemm_counted(const ca_gemm_runner *runner)
{
    return runner->count;
}
