/* compactattn inspect model: what a GGUF file holds, without loading it. */
#include "commands.h"
#include "measure.h"
#include "message.h"
#include "report/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Everything is collected as JSON first; the tables are printed from it. */
struct contents {
    json_t *metadata, *tensors;
    const char *architecture; /* NULL: not given */
    uint64_t n_params, tensor_bytes;
    bool failed; /* memory is short */
};

static void collect_meta(void *user, const char *key, const char *type, const char *value)
{
    struct contents *contents = user;
    json_t *entry = json_pack("{s:o, s:s, s:o}", "key", json_text(key), "type", type, "value", json_text(value));
    if (json_array_append_new(contents->metadata, entry) != 0) contents->failed = true;
}

static void collect_tensor(void *user, const char *name, const char *type, const uint64_t *dims, unsigned n_dims, uint64_t offset,
                           uint64_t bytes)
{
    struct contents *contents = user;
    json_t *shape = json_array();
    uint64_t n = 1;
    for (unsigned i = 0; i < n_dims; i++) {
        n *= dims[i];
        json_array_append_new(shape, json_integer((json_int_t)dims[i]));
    }
    json_t *entry = json_pack("{s:o, s:s, s:o, s:I, s:I}", "name", json_text(name), "type", type, "dims", shape, "offset",
                              (json_int_t)offset, "bytes", (json_int_t)bytes);
    contents->n_params += n;
    contents->tensor_bytes += bytes;
    if (json_array_append_new(contents->tensors, entry) != 0) contents->failed = true;
}

static const char *field(const json_t *entry, const char *key)
{
    return json_string_value(json_object_get(entry, key));
}

static const char *metadata_value(const struct contents *contents, const char *key)
{
    size_t index;
    json_t *entry;
    json_array_foreach(contents->metadata, index, entry)
    {
        if (strcmp(field(entry, "key"), key) == 0) return field(entry, "value");
    }
    return NULL;
}

/* Keys that start with the architecture's name are the model's hyper-parameters. */
static bool is_hyper_parameter(const struct contents *contents, const json_t *entry)
{
    const char *key = field(entry, "key");
    const size_t length = contents->architecture ? strlen(contents->architecture) : 0;
    return length > 0 && strncmp(key, contents->architecture, length) == 0 && key[length] == '.';
}

/* A value cut to what a line can show; whole UTF-8 characters only. */
static const char *shorten(const char *value, char *text, size_t cap)
{
    if (strlen(value) < cap) return value;
    size_t length = cap - 4;
    while (length > 0 && (value[length] & 0xc0) == 0x80) length--;
    snprintf(text, cap, "%.*s...", (int)length, value);
    return text;
}

static bool print_metadata(const struct contents *contents, bool hyper_parameters)
{
    static const struct table_column columns[] = { { "key", "key", -1, NULL },
                                                   { "type", "type", -1, NULL },
                                                   { "value", "value", -1, NULL } };
    struct table *table = table_create(columns, 3);
    size_t index;
    json_t *entry;
    bool ok = table != NULL;
    json_array_foreach(contents->metadata, index, entry)
    {
        char text[80];
        const struct table_cell cells[] = {
            { field(entry, "key"), 0 },
            { field(entry, "type"), 0 },
            { shorten(field(entry, "value"), text, sizeof text), 0 },
        };
        if (is_hyper_parameter(contents, entry) == hyper_parameters) ok = ok && table_add(table, cells);
    }
    if (ok) table_write_text(table, stdout);
    table_free(table);
    return ok;
}

static bool print_tensors(const struct contents *contents)
{
    static const struct table_column columns[] = {
        { "tensor", "tensor", -1, NULL }, { "type", "type", -1, NULL },  { "dimensions", "dimensions", -1, NULL },
        { "offset", "offset", 0, NULL },  { "bytes", "bytes", 0, NULL },
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    size_t index, d;
    json_t *entry, *dim;
    bool ok = table != NULL;
    json_array_foreach(contents->tensors, index, entry)
    {
        char dims[128] = "";
        size_t length = 0;
        json_array_foreach(json_object_get(entry, "dims"), d, dim)
        {
            if (length < sizeof dims)
                length += (size_t)snprintf(dims + length, sizeof dims - length, "%s%lld", d ? " x " : "",
                                           (long long)json_integer_value(dim));
        }
        const struct table_cell cells[] = {
            { field(entry, "name"), 0 },
            { field(entry, "type"), 0 },
            { dims, 0 },
            { NULL, (double)json_integer_value(json_object_get(entry, "offset")) },
            { NULL, (double)json_integer_value(json_object_get(entry, "bytes")) },
        };
        ok = ok && table_add(table, cells);
    }
    if (ok) table_write_text(table, stdout);
    table_free(table);
    return ok;
}

static int print_tables(const char *path, const struct contents *contents)
{
    const char *name = metadata_value(contents, "general.name");
    printf("%s\n%s, architecture %s, %zu tensors, %" PRIu64 " parameters, %.1f MiB of tensors\n\nHyper-parameters\n", path,
           name ? name : "no name", contents->architecture ? contents->architecture : "not given",
           json_array_size(contents->tensors), contents->n_params, (double)contents->tensor_bytes / (1 << 20));
    bool ok = print_metadata(contents, true);
    puts("\nMetadata");
    ok = ok && print_metadata(contents, false);
    puts("\nTensors (dimensions: fastest first)");
    ok = ok && print_tensors(contents);
    return ok ? EXIT_DONE : fail("no memory for the tables");
}

static int print_contents_json(const char *path, const struct contents *contents)
{
    json_t *hyper = json_object(), *entry;
    size_t index;
    json_array_foreach(contents->metadata, index, entry)
    {
        if (is_hyper_parameter(contents, entry))
            json_object_set(hyper, strchr(field(entry, "key"), '.') + 1, json_object_get(entry, "value"));
    }
    return json_print(json_pack("{s:o, s:o, s:o, s:I, s:I, s:o, s:O, s:O}", "file", json_text(path), "architecture",
                                json_text(contents->architecture), "name", json_text(metadata_value(contents, "general.name")),
                                "n_params", (json_int_t)contents->n_params, "tensor_bytes", (json_int_t)contents->tensor_bytes,
                                "hyper_parameters", hyper, "metadata", contents->metadata, "tensors", contents->tensors));
}

static int run(const struct options *options)
{
    struct contents contents = { .metadata = json_array(), .tensors = json_array() };
    const ca_file_visitor visitor = { &contents, collect_meta, collect_tensor };
    const ca_status status = ca_model_inspect(options->model, &visitor);
    int code = EXIT_DONE;
    contents.architecture = metadata_value(&contents, "general.architecture");
    if (status != CA_OK)
        code = fail_library(status);
    else if (contents.failed)
        code = fail("no memory for the contents of %s", options->model);
    else
        code = options->json ? print_contents_json(options->model, &contents) : print_tables(options->model, &contents);
    json_decref(contents.metadata);
    json_decref(contents.tensors);
    return code;
}

const struct command command_inspect_model = {
    .name = "inspect model",
    .summary = "Show the hyper-parameters, metadata and tensors of a model file",
    .synopsis = "-m FILE [--json]",
    .details = "Reads the file's tables only, so it also works on models that this program cannot run.\n\n"
               "Example:\n"
               "  compactattn inspect model -m model.gguf",
    .bit = CMD_INSPECT,
    .run = run,
};
