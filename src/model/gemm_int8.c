#include "model/gemm_int8.h"

#include <omp.h>
#include <stdlib.h>

#include "base/arith.h"
#include "kern/int8_round.h"

enum {
    ALIGNMENT = 64,
    ROWS = 192 /* of a unit of work at most: they stay in L2 while the panels pass by */
};

static uint32_t padded(uint32_t k)
{
    return (uint32_t)ca_align_up(k, 4);
}

static size_t panel_bytes(uint32_t k)
{
    return (size_t)padded(k) * CA_INT8_PANEL;
}

static size_t panel_scales(uint32_t k)
{
    return (size_t)ca_int8_groups(k) * CA_INT8_PANEL;
}

size_t ca_int8_weight_bytes(uint32_t k, uint32_t n)
{
    return ca_ceil_div(n, CA_INT8_PANEL) * (panel_bytes(k) + panel_scales(k) * sizeof(float));
}

ca_status ca_int8_weight_create(uint32_t k, uint32_t n, ca_int8_weight *out)
{
    const size_t n_panels = ca_ceil_div(n, CA_INT8_PANEL);
    *out = (ca_int8_weight){ .k = k, .n = n };
    out->panels = aligned_alloc(ALIGNMENT, n_panels * panel_bytes(k));
    out->scales = aligned_alloc(ALIGNMENT, n_panels * panel_scales(k) * sizeof(float));
    if (out->panels != NULL && out->scales != NULL) {
        /* what pads the last panel: zeros, and scales of zero */
        const size_t last = n_panels - 1;
        memset(out->panels + last * panel_bytes(k), 128, panel_bytes(k));
        memset(out->scales + last * panel_scales(k), 0, panel_scales(k) * sizeof(float));
        return CA_OK;
    }
    ca_int8_weight_destroy(out);
    return ca_fail(CA_E_MEMORY, "matrix product: no memory for %zu bytes of int8 weights", ca_int8_weight_bytes(k, n));
}

void ca_int8_weight_destroy(ca_int8_weight *weight)
{
    free(weight->panels);
    free(weight->scales);
    *weight = (ca_int8_weight){ 0 };
}

/* One group of a column. to: its first byte in the panel, where 4 members lie together and then come those of the other columns. */
static float round_group(const float *w, uint32_t n, uint8_t *to)
{
    float x[CA_INT8_GROUP];
    int8_t q[CA_INT8_GROUP] = { 0 };
    int32_t sum;
    memcpy(x, w, n * sizeof *x);
    const float scale = ca_int8_round(x, n, q, &sum);
    for (uint32_t p = 0; p < padded(n); p++) to[(size_t)p / 4 * 4 * CA_INT8_PANEL + p % 4] = (uint8_t)(q[p] + 128);
    return scale;
}

void ca_int8_weight_pack(ca_int8_weight *weight, uint32_t first, uint32_t count, const float *rows)
{
    const uint32_t k = weight->k, width = ca_int8_group(k);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < count; i++) {
        const size_t panel = (first + i) / CA_INT8_PANEL, column = (first + i) % CA_INT8_PANEL;
        uint8_t *bytes = weight->panels + panel * panel_bytes(k) + column * 4;
        float *scales = weight->scales + panel * panel_scales(k) + column;
        for (uint32_t g = 0; g < ca_int8_groups(k); g++)
            scales[(size_t)g * CA_INT8_PANEL] = round_group(rows + (size_t)i * k + g * width, ca_min_u32(width, k - g * width),
                                                            bytes + (size_t)g * width * CA_INT8_PANEL);
    }
}

/* A as integers. */
typedef struct rounded {
    int8_t *bytes;
    float *scales;
    int32_t *offsets;
    size_t total;
} rounded;

static rounded lay_out(uint32_t k, uint32_t m, unsigned char *base)
{
    const size_t bytes = ca_align_up((size_t)m * padded(k), ALIGNMENT);
    const size_t groups = ca_align_up((size_t)m * ca_int8_groups(k) * 4, ALIGNMENT);
    rounded r = { .total = bytes + 2 * groups };
    if (base == NULL) return r;
    r.bytes = (int8_t *)base;
    r.scales = (float *)(void *)(base + bytes);
    r.offsets = (int32_t *)(void *)(base + bytes + groups);
    return r;
}

size_t ca_int8_scratch_bytes(uint32_t k, uint32_t m)
{
    return lay_out(k, m, NULL).total;
}

/* Rows of a unit of work: blocks of about one size, as many for each thread. */
static uint32_t unit_rows(const ca_int8 *int8, uint32_t m)
{
    const uint32_t threads = (uint32_t)omp_get_max_threads();
    return (uint32_t)ca_align_up(ca_ceil_div(m, threads * ca_ceil_div(m, threads * ROWS)), int8->unit);
}

void ca_int8_weight_run(const ca_kern *kern, const ca_int8 *int8, const ca_int8_weight *weight, const void *a, uint32_t m, float *c,
                        bool accumulate, void *scratch)
{
    const uint32_t k = weight->k, n = weight->n, n_groups = ca_int8_groups(k);
    const uint32_t rows = unit_rows(int8, m), n_blocks = ca_ceil_div(m, rows), n_panels = ca_ceil_div(n, CA_INT8_PANEL);
    const size_t row_bytes = k * ca_flow_bytes(kern);
    const rounded r = lay_out(k, m, scratch);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (uint32_t i = 0; i < m; i++)
            kern->quantize((const unsigned char *)a + i * row_bytes, k, r.bytes + (size_t)i * padded(k),
                           r.scales + (size_t)i * n_groups, r.offsets + (size_t)i * n_groups);
#pragma omp for schedule(static) nowait
        for (uint32_t u = 0; u < n_blocks * n_panels; u++) {
            const uint32_t row = u / n_panels * rows, panel = u % n_panels, next = (u + 1) % n_panels;
            int8->product(&(ca_int8_job){ .a = r.bytes + (size_t)row * padded(k),
                                          .a_scale = r.scales + (size_t)row * n_groups,
                                          .a_offset = r.offsets + (size_t)row * n_groups,
                                          .n_rows = ca_min_u32(m - row, rows),
                                          .k = k,
                                          .w = weight->panels + panel * panel_bytes(k),
                                          .ahead = weight->panels + next * panel_bytes(k),
                                          .w_scale = weight->scales + panel * panel_scales(k),
                                          .c = c + (size_t)row * n + (size_t)panel * CA_INT8_PANEL,
                                          .c_stride = n,
                                          .n_cols = ca_min_u32(n - panel * CA_INT8_PANEL, CA_INT8_PANEL),
                                          .accumulate = accumulate });
        }
    }
}
