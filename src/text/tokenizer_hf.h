/* The tokenizer of Hugging Face files: tokenizer.json alone, or a model's folder. */
#ifndef CA_TEXT_TOKENIZER_HF_H
#define CA_TEXT_TOKENIZER_HF_H

#include <compactattn/tokenizer.h>

/* A bare tokenizer.json. Without the files beside it, BOS is what its post-processor puts first, there is no chat template, and
 * generation ends at the end-of-turn tokens known by name. The caller owns *out and closes it with ca_tokenizer_close. */
ca_status ca_tokenizer_from_json(const char *path, ca_tokenizer **out);
/* The same on bytes; name is for messages. */
ca_status ca_tokenizer_from_json_memory(const void *data, size_t size, const char *name, ca_tokenizer **out);

/* A folder with tokenizer.json and, when they are there, tokenizer_config.json (BOS, EOS, whether BOS is added, the chat template),
 * generation_config.json (the tokens that end generation) and chat_template.jinja (goes before the template of the config). */
ca_status ca_tokenizer_from_folder(const char *folder, ca_tokenizer **out);

#endif
