/* A selector of the caller's: any rule that can fill a mask. */
#include "select/select.h"

static ca_status check(const ca_select_opt *opt)
{
    return opt->user.select ? CA_OK : ca_fail(CA_E_ARG, "select: the user's selector has no function");
}

/* Drops what lies behind the diagonal of each row. */
static void drop_future(const ca_mask *mask)
{
    for (uint32_t h = 0; h < mask->n_heads; h++)
        for (uint32_t i = 0; i < mask->n_qblocks; i++) {
            uint64_t *row = ca_mask_row(mask, h, i);
            const uint32_t end = mask->first_qblock + i + 1;
            for (uint32_t w = end / 64; w < mask->words; w++) row[w] &= w == end / 64 ? (UINT64_C(1) << (end % 64)) - 1 : 0;
        }
}

static ca_status run(const ca_select_job *job)
{
    const ca_mask shape = *job->mask;
    CA_TRY(job->opt->user.select(job->opt->user.user, job->cache, job->chunk, job->q, job->mask));
    const bool same = shape.bits == job->mask->bits && shape.n_heads == job->mask->n_heads && shape.words == job->mask->words &&
                      shape.n_qblocks == job->mask->n_qblocks && shape.n_kblocks == job->mask->n_kblocks;
    *job->mask = shape;
    if (!same) return ca_fail(CA_E_SHAPE, "select: the user's selector changed the shape of its mask");
    drop_future(job->mask);
    return CA_OK;
}

const ca_selector_vt ca_select_user = {
    .name = "user",
    .check = check,
    .run = run,
};
