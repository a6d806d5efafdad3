/* The definition in double precision: spec/attention.md section 12, one (token, head) at a time. */
#include <compactattn/attend.h>

#include <math.h>

#include "base/arith.h"
#include "cache/cache.h"

static void attend_one(const ca_cache *cache, const ca_table *table, const ca_row *row, uint32_t pos, double scale, const float *q,
                       float *o)
{
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim;
    const ca_kern *kern = cache->opt.kern;
    double top = -INFINITY, sum = 0.0, acc[256] = { 0 };
    for (uint32_t i = 0; i < row->n_pages; i++) {
        const uint32_t page = table->pages[row->first_page + i];
        const unsigned char *data = ca_page_data(cache, page);
        for (uint32_t t = 0; t < cache->info[page].len && cache->info[page].pos + t <= pos; t++) {
            if (row->window > 0 && (uint64_t)cache->info[page].pos + t + row->window <= pos) continue;
            double s = 0.0;
            for (uint32_t d = 0; d < dim; d++)
                s += (double)q[d] * (double)ca_page_element(kern, data, ca_page_k_index(kern, bs, dim, t, d));
            s *= scale;
            if (s > top) {
                const double f = exp(top - s);
                for (uint32_t d = 0; d < dim; d++) acc[d] *= f;
                sum *= f;
                top = s;
            }
            const double e = exp(s - top);
            sum += e;
            for (uint32_t d = 0; d < dim; d++)
                acc[d] += e * (double)ca_page_element(kern, data, ca_page_v_index(kern, bs, dim, t, d));
        }
    }
    for (uint32_t d = 0; d < dim; d++) o[d] = sum > 0.0 ? (float)(acc[d] / sum) : 0.0F;
}

ca_status ca_attend_oracle(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride, float *o,
                           size_t o_stride)
{
    const uint32_t dim = cache->opt.head_dim;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
#pragma omp parallel for schedule(dynamic)
        for (uint32_t i = 0; i < row->n_tokens * row->n_heads; i++) {
            const size_t token = row->token + i / row->n_heads, head = row->head + i % row->n_heads;
            attend_one(cache, table, row, row->pos + i / row->n_heads, (double)scale, q + token * q_stride + head * dim,
                       o + token * o_stride + head * dim);
        }
    }
    return CA_OK;
}
