/* Attention with products of 8-bit integers over pages of any type. Q, K and V are rounded as they are read, so the cache and the
 * selectors stay as they are; keys and values once for all query vectors of a job.
 *
 *   q = sq qi                          sq = max |q| / 127 of the vector
 *   k = mu + sk ki                     mu: the mean key of the list's first page, sk = max |k - mu| / 127 of the token. q.mu is the
 *                                      same for all keys and leaves the softmax as it is (SageAttention, arXiv 2410.02367).
 *   s = log2(e) scale sq sk (qi.ki)    log2 units; exact sums of integers
 *   p = 255 2^(s - e), rounded         e: an integer at or above the scores that the group of pages has had so far, panel by panel
 *                                      (those of the page), if these are below 2^24; where it rises, the sums so far are shifted
 *                                      to the right
 *   v = sv vi                          sv = max |v| / 127 of the dimension, over a group of pages
 * At the end of a group its sums, exact integers of p vi and of p, go to those in floats. Both sides of the quotient see the same p, so
 * its weights add up to 1. In 16 bits, with z = round(FINE (e - s)), at most 32767, n = z / FINE and f = the rest in 16 bits (32 z):
 *   p = (510 ((2^14 - (f (C1 - (f C2 >> 16)) >> 16)) >> n) + 2^14) >> 15         relative error of the power: 2e-3
 *
 * A group is CA_ATTN_INT8_GROUP tokens of the row's page list, counted from its start. The result of a query vector depends on its page
 * list and on what these pages hold: not on the tile or job it shares, nor on the threads. */
#ifndef CA_KERN_ATTN_INT8_H
#define CA_KERN_ATTN_INT8_H

#include "kern/kern.h"

enum {
    CA_ATTN_INT8_GROUP = 256, /* tokens */
    CA_ATTN_INT8_FINE = 2048, /* steps of a unit of log2 */
    CA_ATTN_INT8_C1 = 11022,  /* of 2^-f in 14 bits */
    CA_ATTN_INT8_C2 = 2850,
    CA_ATTN_INT8_L = 64 /* of a step of p in the integer sum of p, so that shifts round it finely enough */
};

typedef struct ca_attn_int8 {
    const char *name;
    uint32_t cpu_flags;
    uint32_t panel;     /* k_panel and v_panel of the kernel sets whose pages it reads */
    uint32_t job, unit; /* as attn_job and attn_unit of a kernel set; likewise: */
    double byte_flop, job_flop;
    size_t (*scratch_bytes)(uint32_t head_dim);
    void (*attn)(const ca_attn_job *job, ca_dtype pages); /* job.sums is NULL */
} ca_attn_int8;

/* The one for pages of a kernel set, of page_tokens tokens, on this CPU; NULL: there is none. */
const ca_attn_int8 *ca_attn_int8_choose(const ca_kern *kern, uint32_t page_tokens);

extern const ca_attn_int8 ca_attn_int8_avx512vnni, ca_attn_int8_avxvnni, ca_attn_int8_neoni8mm;

#endif
