#include "model/weights.h"

#include <stdlib.h>

#include "base/arith.h"

enum { MAX_PARTS = 3 };

void ca_tensor_rows(const ca_tensor *tensor, uint32_t first, uint32_t count, float *out)
{
    const ca_block_format *format = ca_block_format_of(tensor->type);
    const size_t n_blocks = (size_t)tensor->dims[0] / format->n_elems;
    const unsigned char *data = tensor->data;
    for (uint32_t r = 0; r < count; r++)
        format->dequant(data + (size_t)(first + r) * n_blocks * format->n_bytes, n_blocks, out + r * (size_t)tensor->dims[0]);
}

ca_status ca_weight_vector(const ca_model *model, const char *name, uint32_t n, float **out)
{
    const uint64_t dims[] = { n };
    const ca_tensor *tensor = NULL;
    CA_TRY(ca_gguf_tensor(model->gguf, name, 1, dims, &tensor));
    *out = malloc(n * sizeof **out);
    if (*out == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory for tensor '%s'", ca_gguf_path(model->gguf), name);
    ca_tensor_rows(tensor, 0, 1, *out);
    return CA_OK;
}

typedef struct matrix_parts {
    const ca_tensor *tensors[MAX_PARTS];
    const ca_weight_part *parts;
} matrix_parts;

/* Row of the file that holds row r of the form that rotates halves. */
static uint32_t stored_row(uint32_t r, uint32_t head_dim)
{
    if (head_dim == 0) return r;
    const uint32_t d = r % head_dim;
    const uint32_t half = head_dim / 2;
    return r - d + 2 * (d % half) + d / half;
}

static void give_rows(const void *user, uint32_t first, uint32_t count, float *out)
{
    const matrix_parts *m = user;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = first + i;
        size_t p = 0;
        while (row >= m->parts[p].rows) row -= m->parts[p++].rows;
        ca_tensor_rows(m->tensors[p], stored_row(row, m->parts[p].interleaved), 1, out + i * (size_t)m->tensors[p]->dims[0]);
    }
}

ca_status ca_weight_matrix(const ca_model *model, uint32_t k, const ca_weight_part *parts, size_t n_parts, ca_gemm_weight **out)
{
    if (n_parts > MAX_PARTS) return ca_fail(CA_E_ARG, "model: %zu matrices in one weight, at most %d", n_parts, MAX_PARTS);
    matrix_parts m = { .parts = parts };
    uint32_t n = 0;
    for (size_t i = 0; i < n_parts; i++) {
        const uint64_t dims[] = { k, parts[i].rows };
        CA_TRY(ca_gguf_tensor(model->gguf, parts[i].name, 2, dims, &m.tensors[i]));
        n += parts[i].rows;
    }
    const ca_gemm_source source = { &m, give_rows };
    return ca_gemm_pack(model->engine, k, n, &source, out);
}
