/* Decoding: token after token out of a session, as text. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include "measure.h"

#include <stdio.h>

/* Writes result->first_token and what follows, up to max_tokens, an end token, a full context or Ctrl-C. The text ends before the first
 * stop string (stops may be NULL). Text goes to stream as it comes (NULL = nowhere) and to result->text; tokens (without the end token)
 * to result->tokens; also sets decode_tok_s and ended. Returns CA_E_CANCELED after Ctrl-C, with all that is finished in the result. */
ca_status generate(const struct engine *engine, ca_session *session, ca_sampler *sampler, size_t max_tokens,
                   const struct texts *stops, FILE *stream, struct result *result);

#endif
