#include "generate.h"

#include "interrupt.h"

#include <stdlib.h>

struct writer {
    ca_detokenizer decoder;
    char *piece; /* room for the text of one token */
    size_t cap;
    FILE *copy, *stream;
};

static void write_piece(const struct writer *writer, size_t length)
{
    fwrite(writer->piece, 1, length, writer->copy);
    if (writer->stream && length) {
        fwrite(writer->piece, 1, length, writer->stream);
        fflush(writer->stream);
    }
}

static ca_status decode_tokens(const struct engine *engine, ca_session *session, ca_sampler *sampler, size_t max_tokens,
                               struct writer *writer, struct result *result)
{
    uint32_t token = result->first_token;
    size_t length;
    ca_status status = CA_OK;
    while (status == CA_OK && result->n_tokens < max_tokens && !ca_tokenizer_is_end(engine->tokenizer, token)) {
        status = ca_detokenize(engine->tokenizer, &writer->decoder, token, false, writer->piece, writer->cap, &length);
        if (status != CA_OK) break;
        write_piece(writer, length);
        result->tokens[result->n_tokens++] = token;
        if (interrupt_flag) return CA_E_CANCELED;
        if (result->n_tokens == max_tokens || ca_session_len(session) == ca_session_context(session)) break;
        status = ca_session_decode(session, token);
        if (status == CA_OK) status = ca_sample(sampler, ca_session_logits(session), engine->info.vocab, &token);
    }
    return status;
}

ca_status generate(const struct engine *engine, ca_session *session, ca_sampler *sampler, size_t max_tokens, FILE *stream,
                   struct result *result)
{
    struct writer writer = { .cap = ca_tokenizer_max_piece(engine->tokenizer) + 8, .stream = stream };
    const size_t room = ca_session_context(session) - ca_session_len(session) + 1;
    size_t text_size = 0, length = 0;
    ca_status status = CA_E_MEMORY;

    if (max_tokens > room) max_tokens = room;
    result->tokens = calloc(max_tokens + 1, sizeof *result->tokens);
    writer.piece = malloc(writer.cap);
    writer.copy = open_memstream(&result->text, &text_size);
    if (result->tokens && writer.piece && writer.copy) {
        status = decode_tokens(engine, session, sampler, max_tokens, &writer, result);
        if (ca_detokenize_end(&writer.decoder, writer.piece, writer.cap, &length) == CA_OK) write_piece(&writer, length);
    }
    if (writer.copy) fclose(writer.copy);
    free(writer.piece);

    ca_session_stats stats;
    ca_session_get_stats(session, &stats);
    if (stats.decode_ms > 0) result->decode_tok_s = stats.decode_tokens / (stats.decode_ms / 1e3);
    return status;
}
