/* The random streams of Python and NumPy, draw for draw (spec: evaluation, B5). */
#ifndef EVAL_RANDOM_H
#define EVAL_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MT19937. */
struct random {
    uint32_t state[624];
    unsigned next;
};

void random_seed_python(struct random *random, uint32_t seed); /* random.Random(seed) */
void random_seed_numpy(struct random *random, uint32_t seed);  /* numpy.random.RandomState(seed) */

uint32_t random_u32(struct random *random);
double random_real(struct random *random);                                   /* random() */
void random_bits128(struct random *random, uint32_t words[4]);               /* getrandbits(128), least significant word first */
uint32_t random_below(struct random *random, uint32_t n);                    /* randrange(n), n > 0 */
void random_letters(struct random *random, char first, size_t n, char *out); /* ''.join(choices(alphabet, k=n)), terminated */
uint32_t random_numpy_range(struct random *random, uint32_t low, uint32_t high); /* numpy's randint(low, high) */

/* sample(range(n), k): k <= n indices in the order drawn. False when there is no memory. */
bool random_sample(struct random *random, size_t n, size_t k, size_t *out);

/* Random(seed).shuffle(items): a stream of its own, so the same n is always permuted alike. size: of an item, at most 16 bytes. */
void random_shuffle(uint32_t seed, void *items, size_t n, size_t size);

#endif
