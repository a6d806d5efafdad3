/* The choice among the integer products, and the one in plain C that runs anywhere. */
#include "kern/int8.h"

static void product(const ca_int8_job *job)
{
    const uint32_t n_groups = ca_int8_groups(job->k), width = ca_int8_group(job->k), k4 = (uint32_t)ca_align_up(job->k, 4);
    for (uint32_t g = 0; g < n_groups; g++) {
        const uint32_t first = g * width, end = ca_min_u32(first + width, k4);
        const float *w_scale = job->w_scale + (size_t)g * CA_INT8_PANEL;
        for (uint32_t r = 0; r < job->n_rows; r++) {
            const int8_t *a = job->a + (size_t)r * k4;
            int32_t sum[CA_INT8_PANEL];
            for (uint32_t j = 0; j < CA_INT8_PANEL; j++) sum[j] = job->a_offset[(size_t)r * n_groups + g];
            for (uint32_t p = first; p < end; p += 4) {
                const uint8_t *w = job->w + (size_t)p * CA_INT8_PANEL;
                for (uint32_t j = 0; j < CA_INT8_PANEL; j++)
                    sum[j] += a[p] * w[j * 4] + a[p + 1] * w[j * 4 + 1] + a[p + 2] * w[j * 4 + 2] + a[p + 3] * w[j * 4 + 3];
            }
            const float a_scale = job->a_scale[(size_t)r * n_groups + g];
            float *c = job->c + r * job->c_stride;
            const bool add = g > 0 || job->accumulate;
            for (uint32_t j = 0; j < job->n_cols; j++) {
                const float v = (float)sum[j] * a_scale * w_scale[j];
                c[j] = add ? c[j] + v : v;
            }
        }
    }
}

const ca_int8 ca_int8_portable = { "portable", 1, 0, 0, product };

static const ca_int8 *const all[] = {
#if defined(__x86_64__)
    &ca_int8_amxint8,  &ca_int8_avx512vnni, &ca_int8_avxvnni, &ca_int8_avx2,
#elif defined(__aarch64__)
    &ca_int8_neondot,
#endif
    &ca_int8_portable,
};

const ca_int8 *ca_int8_at(size_t i)
{
    const uint32_t features = ca_cpu_features();
    for (size_t at = 0; at < sizeof all / sizeof *all; at++)
        if ((all[at]->cpu_flags & ~features) == 0 && i-- == 0) return all[at];
    return NULL;
}

const ca_int8 *ca_int8_choose(const ca_kern *kern)
{
    const ca_int8 *one = NULL;
    for (size_t i = 0; (one = ca_int8_at(i)) != NULL; i++)
        if (one->sets == 0 || (one->sets & kern->cpu_flags) != 0) return one;
    return &ca_int8_portable;
}

const char *ca_kern_int8_name(const ca_kern *kern)
{
    return ca_int8_choose(kern)->name;
}
