/* Block masks, and the checks of a chunk and a mask against the cache that they speak of. */
#ifndef CA_SELECT_MASK_H
#define CA_SELECT_MASK_H

#include "base/workspace.h"
#include "cache/cache.h"

static inline size_t ca_mask_words(uint32_t bits)
{
    return ((size_t)bits + 63) / 64;
}

/* The chunk lies inside the cache and its heads divide. */
ca_status ca_chunk_check(const ca_cache *cache, const ca_chunk *chunk);

/* The mask covers tokens of the chunk and lies on the cache's grid of blocks. */
ca_status ca_mask_check(const ca_cache *cache, const ca_mask *mask, const ca_chunk *chunk);

#endif
