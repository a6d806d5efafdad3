/* A sequence of the cache as bytes, and back: pages as they lie, and their summaries. */
#ifndef CA_CACHE_CACHE_IO_H
#define CA_CACHE_CACHE_IO_H

#include "cache/cache.h"

/* Moves n bytes: out of data when a sequence is exported, into data when one is imported. A status that is not CA_OK stops. */
typedef ca_status (*ca_cache_move)(void *user, void *data, size_t n);

/* The bytes depend on the cache's options (kernel set, page size, shape, summaries): whoever keeps them keeps those, too. */
ca_status ca_cache_export(const ca_cache *cache, uint32_t seq, ca_cache_move put, void *user);

/* Into a sequence that is empty, of a cache with the same options. Lengths are checked against its capacity; contents are not. After a
 * failure the sequence is empty. */
ca_status ca_cache_import(ca_cache *cache, uint32_t seq, ca_cache_move get, void *user);

#endif
