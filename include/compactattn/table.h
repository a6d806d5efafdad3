/* Block mask -> unions -> table of rows. Integers only: this is the paper (section 3; spec/attention.md section 4).
 *
 * A row is one unit of shared work: a run of query heads of one KV head, a run of tokens of the chunk, and the list of KV pages
 * that all of them read. Every executor is a way to build rows; one kernel runs them all. */
#ifndef COMPACTATTN_TABLE_H
#define COMPACTATTN_TABLE_H

#include "base.h"
#include "cache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Memory that the caller lends for masks and tables; a bump allocator, so nothing below allocates. */
typedef struct ca_workspace {
    unsigned char *base; /* 64-byte aligned; borrowed */
    size_t size, used;
} ca_workspace;

/* The chunk of queries that a mask or table speaks of. Positions are absolute: the chunk may start and end anywhere. */
typedef struct ca_chunk {
    uint32_t seq; /* sequence in the cache */
    uint32_t layer;
    uint32_t pos;      /* absolute position of the chunk's first token */
    uint32_t n_tokens; /* tokens in the chunk, all of them already appended to the cache */
    uint32_t n_heads;  /* query heads; a multiple of the cache's KV heads */
} ca_chunk;

/* Q block i of a chunk covers absolute positions [(first_qblock+i)*page_tokens, +page_tokens) cut to the chunk; K block j covers
 * [j*page_tokens, (j+1)*page_tokens). */
typedef struct ca_mask {
    uint64_t *bits; /* [n_heads][n_qblocks][words], bit j of a row = K block j is read, LSB first; causal inside */
    uint32_t n_heads, n_qblocks, n_kblocks;
    uint32_t words;                 /* ceil(n_kblocks / 64) */
    uint32_t first_qblock;          /* absolute index of Q block 0 = chunk.pos / page_tokens */
    uint32_t first_token, n_tokens; /* absolute positions of the queries the mask covers: [first_token, +n_tokens) */
} ca_mask;

/* One row. heads are contiguous and belong to one KV head; tokens are counted from the chunk's first. */
typedef struct ca_row {
    uint32_t kv_head, head, n_heads;
    uint32_t token, n_tokens;
    uint32_t first_page, n_pages; /* into ca_table.pages */
} ca_row;

/* rows and pages live in the workspace it was built in. Page ids of a row ascend by position. */
typedef struct ca_table {
    ca_chunk chunk;
    ca_row *rows;
    uint32_t *pages;
    uint32_t n_rows, max_rows;
    size_t n_pages, max_pages;
} ca_table;

typedef struct ca_table_opt {
    uint32_t heads_per_row; /* compactattn: query heads that share a row; divides n_heads/n_kv_heads; 0 = all of the KV head */
} ca_table_opt;

/* Workspace bytes that any table (and the largest mask) of a chunk of up to n_tokens tokens can need, with kv_tokens tokens held
 * in all. */
CA_API size_t ca_table_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens);

/* An all-zero mask for tokens [first, first+n) of the chunk. CA_E_WORKSPACE when ws is too small. */
CA_API ca_status ca_mask_create(const ca_cache *cache, const ca_chunk *chunk, uint32_t first, uint32_t n, ca_workspace *ws,
                                ca_mask *out);

/* An empty table for the chunk, able to take every builder below once. */
CA_API ca_status ca_table_create(const ca_cache *cache, const ca_chunk *chunk, ca_workspace *ws, ca_table *out);

/* dense: one row per KV head for tokens [first, first+n) of the chunk (counted from its start), every page up to the last of
 * those tokens. Builders append to the table, so a dense tail is one more call. */
CA_API ca_status ca_table_add_dense(const ca_cache *cache, uint32_t first, uint32_t n, ca_table *table);

/* block_sparse: one row per (query head, Q block) with that head's own mask row (spec/attention.md 5.2). */
CA_API ca_status ca_table_add_block_sparse(const ca_cache *cache, const ca_mask *mask, ca_table *table);

/* compactattn: Q-block union, union over the heads of a row, current chunk always in (spec/attention.md 4.1): one row per group
 * of heads_per_row query heads. Always a superset of block_sparse's keys for the same mask. */
CA_API ca_status ca_table_add_compact(const ca_cache *cache, const ca_mask *mask, const ca_table_opt *opt, ca_table *table);

/* The two unions by themselves, for pictures and tests.
 * q_union  bits [n_heads][words]: OR over Q blocks, current chunk's blocks set.
 * g_union  bits [n_heads/heads_per_row][words]: OR of q_union over the heads of a row.                       caller's memory */
CA_API void ca_mask_union(const ca_mask *mask, uint32_t heads_per_row, uint64_t *q_union, uint64_t *g_union);

/* (query, key-page) pairs that a table executes and those of dense attention, over pages that hold past tokens only
 * (positions before the chunk) and over all: the kept fractions are their ratios. */
typedef struct ca_table_count {
    uint64_t past_pairs, past_pairs_dense;
    uint64_t pairs, pairs_dense; /* (query, visible key token) pairs: 4*head_dim FLOP each */
} ca_table_count;
CA_API void ca_table_measure(const ca_cache *cache, const ca_table *table, ca_table_count *out);

#ifdef __cplusplus
}
#endif
#endif
