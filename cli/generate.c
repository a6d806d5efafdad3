#include "generate.h"

#include "interrupt.h"

#include <stdlib.h>
#include <string.h>

struct writer {
    ca_detokenizer decoder;
    char *piece; /* room for the text of one token */
    size_t cap;
    const struct texts *stops;
    char *held; /* text that may be the start of a stop string, terminated */
    size_t n_held, held_cap;
    FILE *copy, *stream;
};

static void write_out(const struct writer *writer, const char *text, size_t length)
{
    fwrite(text, 1, length, writer->copy);
    if (writer->stream && length) {
        fwrite(text, 1, length, writer->stream);
        fflush(writer->stream);
    }
}

/* Bytes at the end of text that a stop string may start with. */
static size_t undecided(const struct texts *stops, const char *text, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < stops->n; i++)
        for (size_t k = strlen(stops->items[i]); k > most; k--)
            if (k <= n && memcmp(text + n - k, stops->items[i], k) == 0) most = k;
    return most;
}

/* Writes the piece, or holds it back while a stop string may be coming. *stopped when one came: what is before it is written. */
static ca_status write_piece(struct writer *writer, size_t length, bool *stopped)
{
    const struct texts *stops = writer->stops;
    *stopped = false;
    if (!stops || stops->n == 0) {
        write_out(writer, writer->piece, length);
        return CA_OK;
    }
    if (writer->n_held + length + 1 > writer->held_cap) {
        const size_t cap = 2 * (writer->n_held + length + 1);
        char *more = realloc(writer->held, cap);
        if (!more) return CA_E_MEMORY;
        writer->held = more;
        writer->held_cap = cap;
    }
    memcpy(writer->held + writer->n_held, writer->piece, length);
    writer->n_held += length;
    writer->held[writer->n_held] = '\0';
    size_t first = writer->n_held;
    for (size_t i = 0; i < stops->n; i++) {
        const char *found = *stops->items[i] ? strstr(writer->held, stops->items[i]) : NULL;
        if (found && (size_t)(found - writer->held) < first) first = (size_t)(found - writer->held), *stopped = true;
    }
    const size_t ready = *stopped ? first : writer->n_held - undecided(stops, writer->held, writer->n_held);
    write_out(writer, writer->held, ready);
    writer->n_held = *stopped ? 0 : writer->n_held - ready;
    memmove(writer->held, writer->held + ready, writer->n_held);
    return CA_OK;
}

static ca_status decode_tokens(const struct engine *engine, ca_session *session, ca_sampler *sampler, size_t max_tokens,
                               struct writer *writer, struct result *result)
{
    uint32_t token = result->first_token;
    size_t length;
    ca_status status = CA_OK;
    result->ended = ENDED_LENGTH;
    while (status == CA_OK && result->n_tokens < max_tokens) {
        if (ca_tokenizer_is_end(engine->tokenizer, token)) result->ended = ENDED_STOP;
        if (result->ended == ENDED_STOP) break;
        status = ca_detokenize(engine->tokenizer, &writer->decoder, token, false, writer->piece, writer->cap, &length);
        if (status != CA_OK) break;
        bool stopped;
        status = write_piece(writer, length, &stopped);
        if (stopped) result->ended = ENDED_STOP;
        if (status != CA_OK || stopped) break;
        result->tokens[result->n_tokens++] = token;
        if (interrupt_flag) {
            result->ended = ENDED_INTERRUPTED;
            return CA_E_CANCELED;
        }
        if (result->n_tokens == max_tokens || ca_session_len(session) == ca_session_context(session)) break;
        status = ca_session_decode(session, token);
        if (status == CA_OK) status = ca_sample(sampler, ca_session_logits(session), engine->info.vocab, &token);
    }
    return status;
}

ca_status generate(const struct engine *engine, ca_session *session, ca_sampler *sampler, size_t max_tokens,
                   const struct texts *stops, FILE *stream, struct result *result)
{
    struct writer writer = {
        .decoder.started = true, .cap = ca_tokenizer_max_piece(engine->tokenizer) + 8, .stops = stops, .stream = stream
    };
    const size_t room = ca_session_context(session) - ca_session_len(session) + 1;
    size_t text_size = 0, length = 0;
    ca_status status = CA_E_MEMORY;

    const bool cut = max_tokens > room;
    if (cut) max_tokens = room;
    result->tokens = calloc(max_tokens + 1, sizeof *result->tokens);
    writer.piece = malloc(writer.cap);
    writer.copy = open_memstream(&result->text, &text_size);
    if (result->tokens && writer.piece && writer.copy) {
        status = decode_tokens(engine, session, sampler, max_tokens, &writer, result);
        if (cut && result->ended == ENDED_LENGTH) result->ended = ENDED_CONTEXT;
        bool stopped;
        if (ca_detokenize_end(&writer.decoder, writer.piece, writer.cap, &length) == CA_OK)
            (void)write_piece(&writer, length, &stopped);
        if (writer.held) write_out(&writer, writer.held, writer.n_held); /* no stop string came of it */
    }
    if (writer.copy) fclose(writer.copy);
    free(writer.piece);
    free(writer.held);

    ca_session_stats stats;
    ca_session_get_stats(session, &stats);
    if (stats.decode_ms > 0) result->decode_tok_s = stats.decode_tokens / (stats.decode_ms / 1e3);
    return status;
}
