/* A method = what chooses the KV pages and how attention reads them: "dense", "flashprefill+auto", "quoka", "seer+compactattn".. */
#ifndef CLI_METHOD_H
#define CLI_METHOD_H

#include "options.h"

#include <compactattn/compactattn.h>
#include <stddef.h>

enum { METHOD_MAX = 16 }; /* methods that are compared in one run */

struct method {
    ca_selector selector;
    ca_executor executor;
    char name[48]; /* as it is printed */
};

/* The method that --selector and --executor ask for; fallback ("dense", "flashprefill+auto") when neither is given. Returns an exit
 * code. */
int method_from_options(const struct options *options, const char *fallback, struct method *out);

/* The methods to compare: those of --methods (names separated by commas), else what --selector and --executor ask for, else the
 * fallback list. out[METHOD_MAX], each once. Returns an exit code. */
int method_choose_list(const struct options *options, const char *fallback, struct method *out, size_t *n);

/* What --attention asks for. */
ca_attention method_attention(const struct options *options);

/* What the name of the kernels gets for it: "+int8-attention", or nothing. */
const char *method_attention_label(const struct options *options);

/* The library's defaults for the method with what the command line says put over them. gate may be NULL unless the selector is seer.
 * Returns an exit code. */
int method_session_opt(const struct options *options, const struct method *method, const ca_gate *gate, ca_session_opt *out);

/* The other way round, for --help: fills the fields that are not given with the library's defaults. */
void method_show_defaults(struct options *options);

#endif
