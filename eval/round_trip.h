/* Whether tokens still say what the text says. */
#ifndef EVAL_ROUND_TRIP_H
#define EVAL_ROUND_TRIP_H

#include <compactattn/tokenizer.h>

/* That n_ids ids decode to the n bytes of text. A BOS in front of them, and one space that the tokenizer puts before all text, may come
 * on top. An error of the library, or no memory, is no round trip. */
bool round_trips(const ca_tokenizer *tokenizer, const char *text, size_t n, const uint32_t *ids, size_t n_ids);

/* Tells in one line that a row of a file, such as "index 3", does not. */
void round_trip_tell(const char *path, const char *row);

#endif
