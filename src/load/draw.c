#include "load/draw.h"

/* The output function of SplitMix64 (Steele, Lea, Flood 2014): neighbors in, independent bits out. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

ca_tensor ca_draw_tensor(uint64_t seed, const char *name, uint32_t n_dims, const uint64_t *dims)
{
    ca_tensor t = { .n_dims = n_dims, .dims = { 1, 1, 1, 1 }, .seed = mix(seed + 1) };
    for (uint32_t i = 0; i < n_dims; i++) t.dims[i] = dims[i];
    for (const char *c = name; *c != '\0'; c++) t.seed = mix(t.seed ^ (unsigned char)*c);
    return t;
}

/* The sum of four independent numbers of 16 bits is close to normal, with deviation 2^16 / sqrt(3). */
void ca_draw_rows(const ca_tensor *tensor, uint32_t first, uint32_t count, float *out)
{
    const uint64_t start = first * tensor->dims[0], n = count * tensor->dims[0];
    const float scale = 0.02F * 1.7320508F / 65536.0F;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t bits = mix(tensor->seed + (start + i) * 0x9e3779b97f4a7c15U);
        const int32_t sum = (int32_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
        out[i] = scale * (float)(sum - 2 * 65535);
    }
}
