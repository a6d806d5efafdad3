/* A method = how attention is executed: "dense", "flashprefill+block_sparse" or "flashprefill+compactattn". */
#ifndef CLI_METHOD_H
#define CLI_METHOD_H

#include "options.h"

#include <compactattn/compactattn.h>
#include <stddef.h>

enum { METHOD_COUNT = 3 };

/* Name as it is printed. Static string. */
const char *method_name(ca_executor executor);

/* The method that --selector and --executor ask for; fallback when neither is given. Returns an exit code. */
int method_from_options(const struct options *options, ca_executor fallback, ca_executor *out);

/* The methods to compare: those of --methods (names separated by commas), else what --selector and --executor ask for, else all.
 * out[METHOD_COUNT], each once. Returns an exit code. */
int method_choose_list(const struct options *options, ca_executor *out, size_t *n);

/* The library's defaults for the method with what the command line says put over them. */
void method_session_opt(const struct options *options, ca_executor executor, ca_session_opt *out);

/* The other way round, for --help: fills the fields that are not given with the library's defaults. */
void method_show_defaults(struct options *options);

#endif
