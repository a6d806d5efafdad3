#include "model/gemm_coded.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "kern/kern.h"
#include "load/quant.h"

enum { ALIGNMENT = 64 };

/* What a row of a format is kept as; false: floats, which have no smaller form. */
static bool code_of(const ca_block_format *format, ca_code *out)
{
    if (format->codes != NULL)
        *out = format->code_bits <= 4 ? CA_CODE_4 : CA_CODE_8;
    else
        *out = format->type == CA_BLOCK_BF16 ? CA_CODE_BF16 : CA_CODE_F16;
    return format->codes != NULL || format->type == CA_BLOCK_BF16 || format->type == CA_BLOCK_F16;
}

/* Integers of all kinds go together, numbers only with their like. */
bool ca_coded_fits(const ca_kern *kern, uint32_t k, uint32_t n, const ca_gemm_source *source)
{
    if (kern->coded == NULL || source->blocks == NULL || k % CA_CODED_GROUP != 0) return false;
    ca_code first = CA_CODE_4, code = CA_CODE_4;
    for (uint32_t row = 0; row < n; row++) {
        const ca_block_format *format = NULL;
        if (source->blocks(source->user, row, &format) == NULL || !code_of(format, &code)) return false;
        if (row == 0) first = code;
        if (code != first && !(ca_code_is_integer(code) && ca_code_is_integer(first))) return false;
    }
    return true;
}

/* What holds the codes of all columns of a panel, without data. */
static ca_coded_panel panel_of(uint32_t n, const ca_gemm_source *source, uint32_t first)
{
    ca_coded_panel p = { .code = CA_CODE_4, .group = CA_CODED_GROUP };
    const uint32_t count = ca_min_u32(n - first, CA_CODED_PANEL);
    for (uint32_t i = 0; i < count; i++) {
        const ca_block_format *format = NULL;
        ca_code code = CA_CODE_4;
        (void)source->blocks(source->user, first + i, &format);
        (void)code_of(format, &code);
        if (code != CA_CODE_4) p.code = code;
        if (!ca_code_is_integer(code)) break;
        p.group = ca_min_u32(p.group, format->group);
        if (i == 0) p.zero = (float)format->zero;
        if (format->has_offsets || (float)format->zero != p.zero) p.has_offsets = true;
    }
    return p;
}

static size_t panel_bytes(uint32_t k, const ca_coded_panel *p)
{
    return ca_coded_bytes(p->code, k) + ca_coded_scales(p, k) * sizeof(float);
}

size_t ca_coded_weight_bytes(uint32_t k, uint32_t n, const ca_gemm_source *source)
{
    size_t bytes = 0;
    for (uint32_t first = 0; first < n; first += CA_CODED_PANEL) {
        const ca_coded_panel p = panel_of(n, source, first);
        bytes += panel_bytes(k, &p);
    }
    return bytes;
}

/* One block to its places in the panel; a number is a block. */
static void put_block(const ca_coded_panel *p, uint8_t *codes, float *scales, uint32_t column, uint32_t first,
                      const ca_block_format *format, const void *block)
{
    if (format->codes == NULL) {
        memcpy(codes + ca_coded_bytes(p->code, first) + 2 * (size_t)column, block, 2);
        return;
    }
    ca_block_codes b;
    format->codes(block, &b);
    for (uint32_t i = 0; i < format->n_elems; i++) {
        const size_t at = first + i;
        if (p->code == CA_CODE_8)
            codes[at * CA_CODED_PANEL + column] = b.q[i];
        else
            codes[at / 2 * CA_CODED_PANEL + column] |= (uint8_t)(b.q[i] << at % 2 * 4);
    }
    for (uint32_t i = 0; i < format->n_elems; i += p->group) {
        const uint32_t g = i / format->group;
        float *at = scales + (first + i) / p->group * (size_t)(p->has_offsets ? 2 : 1) * CA_CODED_PANEL + column;
        at[0] = b.scale[g];
        if (p->has_offsets) at[CA_CODED_PANEL] = format->has_offsets ? b.offset[g] : -(float)format->zero * b.scale[g];
    }
}

static void pack_panel(const ca_coded_weight *weight, const ca_gemm_source *source, uint32_t panel, uint8_t *codes, float *scales)
{
    const uint32_t first = panel * CA_CODED_PANEL;
    for (uint32_t column = 0; column < ca_min_u32(weight->n - first, CA_CODED_PANEL); column++) {
        const ca_block_format *format = NULL;
        const uint8_t *block = source->blocks(source->user, first + column, &format);
        for (uint32_t i = 0; i < weight->k; i += format->n_elems, block += format->n_bytes)
            put_block(&weight->panels[panel], codes, scales, column, i, format, block);
    }
}

ca_status ca_coded_weight_pack(uint32_t k, uint32_t n, const ca_gemm_source *source, ca_coded_weight *out)
{
    const uint32_t n_panels = ca_ceil_div(n, CA_CODED_PANEL);
    *out = (ca_coded_weight){ .k = k, .n = n, .bytes = ca_coded_weight_bytes(k, n, source) };
    out->panels = calloc(n_panels, sizeof *out->panels);
    out->data = aligned_alloc(ALIGNMENT, out->bytes); /* whole lines */
    if (out->panels == NULL || out->data == NULL) {
        const ca_status st = ca_fail(CA_E_MEMORY, "matrix product: no memory for %zu bytes of weights in codes", out->bytes);
        ca_coded_weight_destroy(out);
        return st;
    }
    unsigned char *at = out->data;
    for (uint32_t i = 0; i < n_panels; i++) {
        ca_coded_panel *p = &out->panels[i];
        *p = panel_of(n, source, i * CA_CODED_PANEL);
        p->codes = at;
        p->scales = (const float *)(const void *)(at + ca_coded_bytes(p->code, k));
        at += panel_bytes(k, p);
    }
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n_panels; i++) {
        const ca_coded_panel *p = &out->panels[i];
        unsigned char *codes = (unsigned char *)out->data + (p->codes - (const unsigned char *)out->data);
        memset(codes, 0, panel_bytes(k, p)); /* columns that pad the last panel: scales of zero */
        pack_panel(out, source, i, codes, (float *)(void *)(codes + ca_coded_bytes(p->code, k)));
    }
    return CA_OK;
}

void ca_coded_weight_destroy(ca_coded_weight *weight)
{
    free(weight->panels);
    free(weight->data);
    *weight = (ca_coded_weight){ 0 };
}

/* First row of a block of whole tiles; blocks differ by a tile at most. */
static uint32_t block_start(uint32_t block, uint32_t n_blocks, uint32_t n_tiles)
{
    return (uint32_t)((uint64_t)n_tiles * block / n_blocks) * CA_CODED_TILE;
}

void ca_coded_weight_run(const ca_kern *kern, const ca_coded_weight *weight, const void *a, uint32_t m, float *c, bool accumulate)
{
    const uint32_t k = weight->k, n = weight->n, threads = (uint32_t)omp_get_max_threads();
    const uint32_t n_tiles = ca_ceil_div(m, CA_CODED_TILE), n_panels = ca_ceil_div(n, CA_CODED_PANEL);
    const uint32_t n_blocks = ca_min_u32(n_tiles, threads * ca_ceil_div(m, threads * CA_CODED_ROWS));
#pragma omp parallel for schedule(static)
    for (uint32_t u = 0; u < n_blocks * n_panels; u++) {
        const uint32_t block = u / n_panels, panel = u % n_panels;
        const uint32_t row = block_start(block, n_blocks, n_tiles), end = block_start(block + 1, n_blocks, n_tiles);
        kern->coded(&(ca_coded_job){ .a = (const char *)a + (size_t)row * k * ca_flow_bytes(kern),
                                     .n_rows = ca_min_u32(m, end) - row,
                                     .k = k,
                                     .panel = &weight->panels[panel],
                                     .c = c + (size_t)row * n + (size_t)panel * CA_CODED_PANEL,
                                     .c_stride = n,
                                     .n_cols = ca_min_u32(n - panel * CA_CODED_PANEL, CA_CODED_PANEL),
                                     .accumulate = accumulate });
    }
}
