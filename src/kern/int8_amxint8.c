/* Integer products on AMX tiles: 16 rows of activations (bytes with a sign) by 16 columns of weights (bytes without one) over 64 inner
 * values. A panel's row holds 4 inner values of 64 columns, so a tile of weights is read as it lies. Sums leave the tiles once per
 * group. Rows behind the last 16, and inner dimensions that are no multiple of 64, go to avx512vnni, whose bits are the same. */
#include "kern/int8.h"
#include "kern/amx_tiles.h"

enum { STEP = 64, BLOCK = 2 * AMX_ROWS };

/* The sums of a block of 32 rows (or 16) and 32 columns: tiles 0 to 3 are sums [rows][columns], 4 and 5 rows, 6 and 7 weights. */
static inline __attribute__((always_inline)) void sum_block(const bool two, const int8_t *a, uint32_t k, const uint8_t *w,
                                                            uint32_t steps, int32_t *sums)
{
    const long a_bytes = (long)k, w_bytes = (long)CA_INT8_PANEL * 4;
    AMX_FENCE();
    _tile_zero(0);
    _tile_zero(1);
    if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (uint32_t s = 0; s < steps; s++, a += STEP, w += STEP * CA_INT8_PANEL) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(6, w, w_bytes);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, w + 64, w_bytes);
        _tile_dpbsud(1, 4, 7);
        if (two) {
            _tile_loadd(5, a + AMX_ROWS * a_bytes, a_bytes);
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    if (two) {
        _tile_stored(2, sums + 32 * AMX_ROWS, 128);
        _tile_stored(3, sums + 32 * AMX_ROWS + 16, 128);
    }
    AMX_FENCE();
}

/* C (+)= the sums of a group, scaled: every step rounded for itself, as int8.h says. */
static inline __attribute__((always_inline)) void scale_block(const ca_int8_job *job, uint32_t row, uint32_t n_rows,
                                                              uint32_t column, uint32_t g, const int32_t *sums)
{
    const uint32_t n_groups = ca_int8_groups(job->k);
    const bool add = g > 0 || job->accumulate;
    for (uint32_t j = 0; j < 2 && column + j * 16 < job->n_cols; j++) {
        const uint32_t at = column + j * 16, n = ca_min_u32(16, job->n_cols - at);
        const __mmask16 some = (__mmask16)((1U << n) - 1U);
        const __m512 w_scale = _mm512_loadu_ps(job->w_scale + (size_t)g * CA_INT8_PANEL + at);
        for (uint32_t r = 0; r < n_rows; r++) {
            const size_t of_row = (size_t)(row + r) * n_groups + g;
            const __m512i sum = _mm512_add_epi32(_mm512_load_si512(sums + (size_t)r * 32 + (size_t)j * 16),
                                                 _mm512_set1_epi32(job->a_offset[of_row]));
            __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(job->a_scale[of_row])), w_scale);
            float *c = job->c + (size_t)(row + r) * job->c_stride + at;
            if (add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(some, c), v);
            _mm512_mask_storeu_ps(c, some, v);
        }
    }
}

static void product(const ca_int8_job *job)
{
    const uint32_t n_groups = ca_int8_groups(job->k), width = ca_int8_group(job->k);
    const uint32_t n_tiled = job->k % STEP == 0 ? job->n_rows / AMX_ROWS * AMX_ROWS : 0;
    int32_t sums[2][BLOCK * 32] __attribute__((aligned(64)));
    if (n_tiled > 0) amx_configure();
    for (uint32_t g = 0; g < n_groups && n_tiled > 0; g++) {
        const uint32_t first = g * width, steps = (ca_min_u32(first + width, job->k) - first) / STEP;
        uint32_t turn = 0;
        for (uint32_t column = 0; column < job->n_cols; column += 32)
            for (uint32_t row = 0; row < n_tiled; row += BLOCK, turn ^= 1) {
                const int8_t *a = job->a + (size_t)row * job->k + first;
                const uint8_t *w = job->w + (size_t)first * CA_INT8_PANEL + (size_t)column * 4;
                if (row + BLOCK <= n_tiled)
                    sum_block(true, a, job->k, w, steps, sums[turn]);
                else
                    sum_block(false, a, job->k, w, steps, sums[turn]);
                scale_block(job, row, ca_min_u32(BLOCK, n_tiled - row), column, g, sums[turn]);
            }
    }
    if (n_tiled > 0) _tile_release();
    if (n_tiled == job->n_rows) return;
    ca_int8_job rest = *job;
    rest.a += (size_t)n_tiled * ca_align_up(job->k, 4);
    rest.a_scale += (size_t)n_tiled * n_groups;
    rest.a_offset += (size_t)n_tiled * n_groups;
    rest.n_rows -= n_tiled;
    rest.c += n_tiled * job->c_stride;
    ca_int8_avx512vnni.product(&rest);
}

const ca_int8 ca_int8_amxint8 = { "amxint8", BLOCK, CA_CPU_AMX_BF16, CA_CPU_AMX_INT8 | CA_CPU_AVX512_VNNI, product };
