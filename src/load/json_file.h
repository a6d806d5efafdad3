/* Small JSON files beside weights: configurations and indexes. */
#ifndef CA_LOAD_JSON_FILE_H
#define CA_LOAD_JSON_FILE_H

#include <jansson.h>

#include "base/error.h"

/* The object that a file holds; the caller gives it back with json_decref. NULL after a failure: CA_E_FORMAT says what is wrong with
 * the file, also when it is larger than any of its kind, CA_E_MEMORY that it cannot be kept. */
ca_status ca_json_file_read(const char *path, json_t **out);

#endif
