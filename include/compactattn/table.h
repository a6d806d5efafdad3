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
    uint32_t first;    /* index of its first token in the q and o arrays: 0, but when one call runs several chunks */
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

/* One row. heads are contiguous and belong to one KV head. */
typedef struct ca_row {
    uint32_t seq, kv_head, head, n_heads;
    uint32_t token, n_tokens;     /* run of tokens of the q and o arrays */
    uint32_t pos, past;           /* absolute positions of its first token, and of the first token that is not its past */
    uint32_t window;              /* a query at p sees the keys p - window + 1 .. p only; 0 = all up to p */
    uint32_t first_page, n_pages; /* into ca_table.pages */
} ca_row;

/* rows and pages live in the workspace it was built in. Page ids of a row ascend by position. Rows of several sequences of
 * different lengths may share a table: nothing is padded. */
typedef struct ca_table {
    ca_chunk chunk;    /* the chunk that builders add rows of */
    uint32_t n_tokens; /* of the q and o arrays */
    ca_row *rows;
    uint32_t *pages;
    uint32_t n_rows, max_rows;
    size_t n_pages, max_pages;
} ca_table;

typedef struct ca_table_opt {
    uint32_t heads_per_row;   /* compactattn: query heads that share a row; divides n_heads/n_kv_heads; 0 = all of the KV head */
    uint32_t qblocks_per_row; /* compactattn: Q blocks that share a row; 0 = all of the chunk */
} ca_table_opt;

/* What a row costs, in any unit of time: jobs * (job + pages * (page_byte * bytes of a page)) + flop * floating-point operations.
 * A job is up to `vectors` query vectors, which read the list together; (n - 1) / 2 of the row's own n Q blocks count as not
 * reached. Only the ratios matter; `compactattn doctor --tune` measures them. */
typedef struct ca_cost {
    double flop, page_byte, job;
    uint32_t vectors; /* 0: those of the kernel set's native attention */
} ca_cost;

/* Built-in ratios of a kernel set: for tiles a byte of memory costs more operations than for vectors, and for integers, which round
 * it, many more. */
CA_API void ca_cost_defaults(const ca_kern *kern, ca_attention attention, ca_cost *out);

/* What the keys that a coarser row adds are worth: rows of n heads may cost 1 + heads (1 - 1/n) times as much as rows of one head,
 * rows of n Q blocks 1 + qblocks (1 - 1/n) times as much as rows of one. docs/quality.md says where the defaults come from. */
typedef struct ca_worth {
    float heads, qblocks;
    float whole; /* a union of the whole group and chunk that reads at least this share of the past is not split; above 1: any is */
} ca_worth;
CA_API void ca_worth_defaults(ca_worth *out);

/* Workspace bytes that any table (and the largest mask) of a chunk of up to n_tokens tokens can need, with kv_tokens tokens held
 * in all. */
CA_API size_t ca_table_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens);

/* An all-zero mask for tokens [first, first+n) of the chunk. CA_E_WORKSPACE when ws is too small. */
CA_API ca_status ca_mask_create(const ca_cache *cache, const ca_chunk *chunk, uint32_t first, uint32_t n, ca_workspace *ws,
                                ca_mask *out);

/* A mask from memory: blocks u8 [n_heads][n_qblocks][n_kblocks], non-zero = read. Any selector's choice can be executed this way.
 * Blocks in the future of every query of a Q block are dropped. CA_E_SHAPE when the dims are not those of the mask. */
CA_API ca_status ca_mask_set(ca_mask *mask, const uint8_t *blocks, uint32_t n_heads, uint32_t n_qblocks, uint32_t n_kblocks);

/* An empty table for the chunk. There is room for one builder that cuts tokens at Q blocks (window, block_sparse, auto, compactattn of
 * any shape) and two that do not (dense, gathered, compactattn with all Q blocks in a row): a selector's tokens between dense ones. More
 * is CA_E_WORKSPACE, more than 2^32 pages in all lists CA_E_UNSUPPORTED. */
CA_API ca_status ca_table_create(const ca_cache *cache, const ca_chunk *chunk, ca_workspace *ws, ca_table *out);

/* The same for a batch: chunks of one layer and one number of heads, whose tokens lie in the q and o arrays where chunk.first says,
 * without overlap. Builders add rows of chunks[0] until ca_table_next_chunk. Needs the ca_table_ws_bytes of every chunk. */
CA_API ca_status ca_table_create_batch(const ca_cache *cache, const ca_chunk *chunks, uint32_t n_chunks, ca_workspace *ws,
                                       ca_table *out);
CA_API ca_status ca_table_next_chunk(const ca_cache *cache, const ca_chunk *chunk, ca_table *table);

/* dense: one row per KV head for tokens [first, first+n) of the chunk (counted from its start), every page up to the last of
 * those tokens. Builders append to the table, so a dense tail is one more call. */
CA_API ca_status ca_table_add_dense(const ca_cache *cache, uint32_t first, uint32_t n, ca_table *table);

/* Sliding-window layers: rows of some Q blocks, the pages that their windows touch, window >= 1. */
CA_API ca_status ca_table_add_window(const ca_cache *cache, uint32_t first, uint32_t n, uint32_t window, ca_table *table);

/* block_sparse: one row per (query head, Q block) with that head's own mask row (spec/attention.md 5.2). */
CA_API ca_status ca_table_add_block_sparse(const ca_cache *cache, const ca_mask *mask, ca_table *table);

/* compactattn: Q-block union, union over the heads of a row, current chunk always in (spec/attention.md 4.1): one row per group
 * of heads_per_row query heads. Always a superset of block_sparse's keys for the same mask. */
CA_API ca_status ca_table_add_compact(const ca_cache *cache, const ca_mask *mask, const ca_table_opt *opt, ca_table *table);

/* QUOKA: one row per KV head for tokens [first, first+n) of the chunk, which the lists were chosen for: gathered tokens of the past,
 * then every page from the one that holds token `first` on (spec/attention.md 3). pages: as ca_cache_gather gave them, per KV head at
 * pages + kv_head * stride, n_pages[kv_head] of them. */
CA_API ca_status ca_table_add_gathered(const ca_cache *cache, uint32_t first, uint32_t n, const uint32_t *pages, size_t stride,
                                       const uint32_t *n_pages, ca_table *table);

/* auto: per KV head the row shape of the lattice {heads that divide the group} x {all, half, .. 1 Q blocks} with the least modeled cost
 * per worth, or dense when that costs at most 5 % more. Every shape reads the mask's blocks and the chunk's own; a coarser one reads a
 * superset of a finer one's keys. shapes, when not NULL, receives one per KV head. Deterministic. */
typedef struct ca_row_shape {
    uint32_t heads, qblocks; /* 0 heads: dense */
} ca_row_shape;
CA_API ca_status ca_table_add_auto(const ca_cache *cache, const ca_mask *mask, const ca_cost *cost, const ca_worth *worth,
                                   ca_row_shape *shapes, ca_table *table);

/* The two unions by themselves, for pictures and tests.
 * q_union  bits [n_heads][words]: OR over Q blocks, current chunk's blocks set.
 * g_union  bits [n_heads/heads_per_row][words]: OR of q_union over the heads of a row.                       caller's memory */
CA_API void ca_mask_union(const ca_mask *mask, uint32_t heads_per_row, uint64_t *q_union, uint64_t *g_union);

/* (query, key-page) pairs that a table executes and those of dense attention (of the window, in rows that have one), over pages that
 * hold past tokens only (positions before the chunk) and over all: the kept fractions are their ratios. */
typedef struct ca_table_count {
    uint64_t past_pairs, past_pairs_dense;
    uint64_t pairs, pairs_dense; /* (query, visible key token) pairs: 4*head_dim FLOP each */
} ca_table_count;
CA_API void ca_table_measure(const ca_cache *cache, const ca_table *table, ca_table_count *out);

/* (query, past key) pairs of a mask's tokens: as each head and Q block asked, after the Q-block union, after the union over
 * heads_per_row heads, and those of dense attention. Where heads_per_row does not divide the heads, only dense is not 0. */
typedef struct ca_mask_count {
    uint64_t asked, q_union, g_union, dense;
} ca_mask_count;
CA_API void ca_mask_measure(const ca_cache *cache, const ca_chunk *chunk, const ca_mask *mask, uint32_t heads_per_row,
                            ca_mask_count *out);

#ifdef __cplusplus
}
#endif
#endif
