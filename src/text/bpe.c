#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "text/utf8.h"

enum {
    SHORT_PIECE = 48, /* bytes up to which scanning for the lowest rank beats the heap */
    CACHED_PIECE = 64
};
static const uint32_t no_rank = UINT32_MAX;
static const uint32_t no_node = UINT32_MAX;

/* A symbol of a long piece in a doubly linked list; rank, merged and queued belong to the pair with the next symbol. */
struct ca_bpe_node {
    uint32_t id, prev, next;
    uint32_t rank, merged;
    bool queued;
};

ca_status ca_bpe_reserve(ca_bpe *bpe, size_t n)
{
    size_t need;
    CA_TRY(ca_add_size(bpe->n_ids, n, &need));
    if (need <= bpe->cap_ids) return CA_OK;
    size_t cap = bpe->cap_ids + bpe->cap_ids / 2;
    if (cap < need) cap = need + 64;
    size_t bytes;
    CA_TRY(ca_mul_size(cap, sizeof *bpe->ids, &bytes));
    uint32_t *ids = realloc(bpe->ids, bytes);
    if (!ids) return ca_fail(CA_E_MEMORY, "tokenize: no memory for %zu tokens", cap);
    bpe->ids = ids;
    bpe->cap_ids = cap;
    return CA_OK;
}

void ca_bpe_close(ca_bpe *bpe)
{
    free(bpe->ids);
    free(bpe->nodes);
    free(bpe->heap);
    memset(bpe, 0, sizeof *bpe);
}

/* Tokens of a character that has none itself: its bytes, or the unknown token, or nothing; their number. */
static size_t without_token(const ca_tokenizer *tok, const char *text, size_t n, bool *unknown, uint32_t *ids)
{
    if (tok->chars && tok->fallback[0] >= 0) {
        for (size_t i = 0; i < n; i++) ids[i] = (uint32_t)tok->fallback[(unsigned char)text[i]];
        *unknown = false;
        return n;
    }
    const bool fused = *unknown && tok->fuse_unknown;
    *unknown = true;
    if (tok->unknown < 0 || fused) return 0;
    ids[0] = (uint32_t)tok->unknown;
    return 1;
}

/* Symbols of a piece, at most one per byte. Where one vanishes its neighbors become adjacent. */
static size_t symbols(const ca_tokenizer *tok, const char *text, size_t n, uint32_t *ids)
{
    size_t count = 0;
    bool unknown = false; /* the last one was */
    for (size_t i = 0, step; i < n; i += step) {
        ca_utf8_kind kind;
        step = tok->chars ? ca_utf8_step(text + i, n - i, &kind) : 1;
        const int64_t id = step == 1 ? tok->byte_id[(unsigned char)text[i]] : ca_vocab_piece(tok, text + i, step);
        if (id >= 0) {
            ids[count++] = (uint32_t)id;
            unknown = false;
        } else {
            count += without_token(tok, text + i, step, &unknown, ids + count);
        }
    }
    return count;
}

static void merge_short(ca_bpe *bpe, const char *text, size_t n)
{
    uint32_t *ids = bpe->ids + bpe->n_ids;
    const ca_merge *pair[SHORT_PIECE]; /* of symbols i and i + 1 */
    size_t count = symbols(bpe->tok, text, n, ids);
    for (size_t i = 0; i + 1 < count; i++) pair[i] = ca_vocab_merge(bpe->tok, ids[i], ids[i + 1]);
    for (;;) {
        size_t best = 0;
        uint32_t rank = no_rank;
        for (size_t i = 0; i + 1 < count; i++) {
            if (pair[i] && pair[i]->rank < rank) {
                rank = pair[i]->rank;
                best = i;
            }
        }
        if (rank == no_rank) break;
        ids[best] = pair[best]->id;
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        if (best + 1 < count) {
            memmove(pair + best, pair + best + 1, (count - best - 1) * sizeof *pair);
            pair[best] = ca_vocab_merge(bpe->tok, ids[best], ids[best + 1]);
        }
        if (best > 0) pair[best - 1] = ca_vocab_merge(bpe->tok, ids[best - 1], ids[best]);
    }
    bpe->n_ids += count;
}

/* Min-heap of rank << 32 | position: lowest rank first, leftmost among equals. */
static void sift_down(uint64_t *heap, size_t n, size_t at)
{
    const uint64_t value = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (value <= heap[child]) break;
        heap[at] = heap[child];
    }
    heap[at] = value;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t value)
{
    size_t at = (*n)++;
    for (; at > 0 && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    const uint64_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 0) sift_down(heap, *n, 0);
    return top;
}

static uint64_t heap_key(const ca_bpe *bpe, uint32_t at)
{
    return (uint64_t)bpe->nodes[at].rank << 32 | at;
}

/* Finds the merge of a pair that is new. */
static void look_up(ca_bpe *bpe, uint32_t at)
{
    if (at == no_node) return;
    ca_bpe_node *node = &bpe->nodes[at];
    const ca_merge *merge = node->next == no_node ? NULL : ca_vocab_merge(bpe->tok, node->id, bpe->nodes[node->next].id);
    node->rank = merge ? merge->rank : no_rank;
    node->merged = merge ? merge->id : 0;
    node->queued = false;
}

/* Queues a pair that goes before both its neighbors. The best pair of all is such a pair, so the others can wait until a neighbor
 * changes: on a run of equal letters, where every pair has the same rank, one or two are in the heap instead of all. */
static void offer(ca_bpe *bpe, uint32_t at)
{
    if (at == no_node) return;
    ca_bpe_node *node = &bpe->nodes[at];
    if (node->rank == no_rank || node->queued) return;
    if (node->prev != no_node && bpe->nodes[node->prev].rank <= node->rank) return;
    if (node->next != no_node && bpe->nodes[node->next].rank < node->rank) return;
    node->queued = true;
    heap_push(bpe->heap, &bpe->n_heap, heap_key(bpe, at));
}

/* A pair is queued once, and n bytes make at most n pairs at first and two by each merge: 3 n keys. */
static ca_status reserve_nodes(ca_bpe *bpe, size_t n)
{
    if (n <= bpe->cap_nodes) return CA_OK;
    free(bpe->nodes);
    free(bpe->heap);
    bpe->cap_nodes = 0;
    bpe->nodes = calloc(n, sizeof *bpe->nodes);
    bpe->heap = calloc(n, 3 * sizeof *bpe->heap);
    if (!bpe->nodes || !bpe->heap) return ca_fail(CA_E_MEMORY, "tokenize: no memory for a piece of %zu bytes", n);
    bpe->cap_nodes = n;
    return CA_OK;
}

static ca_status merge_long(ca_bpe *bpe, const char *text, size_t n)
{
    CA_TRY(reserve_nodes(bpe, n));
    uint32_t *ids = bpe->ids + bpe->n_ids;
    ca_bpe_node *nodes = bpe->nodes;
    const uint32_t count = (uint32_t)symbols(bpe->tok, text, n, ids);
    if (count == 0) return CA_OK;
    for (uint32_t i = 0; i < count; i++)
        nodes[i] = (ca_bpe_node){ .id = ids[i], .prev = i ? i - 1 : no_node, .next = i + 1 < count ? i + 1 : no_node };
    for (uint32_t i = 0; i < count; i++) look_up(bpe, i);
    bpe->n_heap = 0;
    for (uint32_t i = 0; i < count; i++) offer(bpe, i);

    while (bpe->n_heap > 0) {
        const uint64_t key = heap_pop(bpe->heap, &bpe->n_heap);
        const uint32_t at = (uint32_t)key;
        ca_bpe_node *node = &nodes[at];
        if (heap_key(bpe, at) != key) continue; /* the pair is gone since */

        ca_bpe_node *gone = &nodes[node->next];
        node->id = node->merged;
        node->next = gone->next;
        gone->rank = no_rank;
        if (node->next != no_node) nodes[node->next].prev = at;
        look_up(bpe, at);
        look_up(bpe, node->prev);
        if (node->prev != no_node) offer(bpe, nodes[node->prev].prev);
        offer(bpe, node->prev);
        offer(bpe, at);
        offer(bpe, node->next);
    }
    for (uint32_t i = 0; i != no_node; i = nodes[i].next) *ids++ = nodes[i].id;
    bpe->n_ids = (size_t)(ids - bpe->ids);
    return CA_OK;
}

/* True when the pieces of the cached ids, one after the other, are this piece. */
static bool cache_holds(const ca_bpe *bpe, size_t slot, const char *text, size_t n)
{
    const uint32_t *ids = bpe->ids + bpe->cache[slot].first;
    for (uint32_t i = 0; i < bpe->cache[slot].n; i++) {
        const ca_str *token = &bpe->tok->piece[ids[i]];
        if (token->len > n || memcmp(token->data, text, token->len) != 0) return false;
        text += token->len;
        n -= token->len;
    }
    return n == 0;
}

static ca_status encode(ca_bpe *bpe, const char *text, size_t n)
{
    const int64_t whole = bpe->tok->ignore_merges ? ca_vocab_piece(bpe->tok, text, n) : -1;
    if (whole >= 0) {
        bpe->ids[bpe->n_ids++] = (uint32_t)whole;
        return CA_OK;
    }
    if (n > SHORT_PIECE) return merge_long(bpe, text, n);
    merge_short(bpe, text, n);
    return CA_OK;
}

ca_status ca_bpe_piece(ca_bpe *bpe, const char *text, size_t n)
{
    CA_TRY(ca_bpe_reserve(bpe, n));
    if (n > CACHED_PIECE) return encode(bpe, text, n);

    const uint64_t hash = ca_text_hash(text, n);
    const size_t slot = (size_t)(hash >> 32) % CA_BPE_CACHE;
    const size_t first = bpe->n_ids;
    if (bpe->cache[slot].hash == hash && bpe->cache[slot].n_bytes == n && cache_holds(bpe, slot, text, n)) {
        const uint32_t count = bpe->cache[slot].n;
        memcpy(bpe->ids + first, bpe->ids + bpe->cache[slot].first, count * sizeof *bpe->ids);
        bpe->n_ids += count;
        return CA_OK;
    }
    CA_TRY(encode(bpe, text, n));
    bpe->cache[slot].hash = hash;
    bpe->cache[slot].first = first;
    bpe->cache[slot].n = (uint32_t)(bpe->n_ids - first);
    bpe->cache[slot].n_bytes = (uint32_t)n;
    return CA_OK;
}
