#include "random.h"

#include <stdlib.h>
#include <string.h>

enum { N = 624, M = 397, MAX_ITEM = 16 };

void random_seed_numpy(struct random *random, uint32_t seed)
{
    random->state[0] = seed;
    for (uint32_t i = 1; i < N; i++) {
        const uint32_t last = random->state[i - 1];
        random->state[i] = 1812433253U * (last ^ (last >> 30)) + i;
    }
    random->next = N;
}

/* init_by_array with the one key seed. */
void random_seed_python(struct random *random, uint32_t seed)
{
    uint32_t *s = random->state, i = 1;
    random_seed_numpy(random, 19650218U);
    for (int k = 0; k < N; k++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525U)) + seed;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    for (int k = 0; k < N - 1; k++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941U)) - i;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000U;
}

static void advance(struct random *random)
{
    uint32_t *s = random->state;
    for (unsigned i = 0; i < N; i++) {
        const uint32_t y = (s[i] & 0x80000000U) | (s[(i + 1) % N] & 0x7FFFFFFFU);
        s[i] = s[(i + M) % N] ^ (y >> 1) ^ (y & 1 ? 0x9908B0DFU : 0);
    }
    random->next = 0;
}

uint32_t random_u32(struct random *random)
{
    if (random->next == N) advance(random);
    uint32_t y = random->state[random->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C5680U;
    y ^= (y << 15) & 0xEFC60000U;
    return y ^ (y >> 18);
}

double random_real(struct random *random)
{
    const uint32_t high = random_u32(random) >> 5, low = random_u32(random) >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;
}

void random_bits128(struct random *random, uint32_t words[4])
{
    for (int i = 0; i < 4; i++) words[i] = random_u32(random);
}

uint32_t random_below(struct random *random, uint32_t n)
{
    unsigned bits = 0;
    while (bits < 32 && n >> bits) bits++;
    uint32_t drawn;
    do drawn = random_u32(random) >> (32 - bits);
    while (drawn >= n);
    return drawn;
}

void random_letters(struct random *random, char first, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (char)(first + (int)(random_real(random) * 26));
    out[n] = '\0';
}

/* Draws under the smallest mask that covers the range, until one is inside. */
uint32_t random_numpy_range(struct random *random, uint32_t low, uint32_t high)
{
    const uint32_t last = high - low - 1;
    uint32_t mask = last, drawn;
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    do drawn = random_u32(random) & mask;
    while (drawn > last);
    return low + drawn;
}

bool random_sample(struct random *random, size_t n, size_t k, size_t *out)
{
    size_t pool_size = 21, power = 1;
    while (power < 3 * k) power *= 4;
    if (k > 5) pool_size += power;
    if (n <= pool_size) {
        size_t *pool = calloc(n + 1, sizeof *pool);
        if (!pool) return false;
        for (size_t i = 0; i < n; i++) pool[i] = i;
        for (size_t i = 0; i < k; i++) {
            const size_t j = random_below(random, (uint32_t)(n - i));
            out[i] = pool[j];
            pool[j] = pool[n - i - 1];
        }
        free(pool);
        return true;
    }
    bool *taken = calloc(n, sizeof *taken);
    if (!taken) return false;
    for (size_t i = 0; i < k; i++) {
        do out[i] = random_below(random, (uint32_t)n);
        while (taken[out[i]]);
        taken[out[i]] = true;
    }
    free(taken);
    return true;
}

void random_shuffle(uint32_t seed, void *items, size_t n, size_t size)
{
    struct random own = { .next = 0 };
    char held[MAX_ITEM] = { 0 }, *bytes = items;
    random_seed_python(&own, seed);
    for (size_t i = n; i-- > 1;) {
        char *a = bytes + i * size, *b = bytes + random_below(&own, (uint32_t)(i + 1)) * size;
        memcpy(held, a, size);
        memmove(a, b, size);
        memcpy(b, held, size);
    }
}
