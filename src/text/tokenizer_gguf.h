/* The tokenizer of an open GGUF file, for rooms that have the file open already. */
#ifndef CA_TEXT_TOKENIZER_GGUF_H
#define CA_TEXT_TOKENIZER_GGUF_H

#include <compactattn/tokenizer.h>

#include "load/gguf.h"

/* Copies what it needs: the file may be closed afterwards. The caller owns *out and closes it with ca_tokenizer_close. */
ca_status ca_tokenizer_from_gguf(const ca_gguf *gguf, ca_tokenizer **out);

#endif
