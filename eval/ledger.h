/* A folder of results that can be left at any moment and taken up again.
 *
 * FOLDER/manifest.json says what was asked (settings). FOLDER/NAME.jsonl files get one JSON object a line, each on disk before the next
 * one is begun. A line that a killed run left unfinished is cut off when the file is opened. */
#ifndef EVAL_LEDGER_H
#define EVAL_LEDGER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Makes the folder. When it has a manifest, its settings must equal the ones given; else the message names the first key that differs,
 * with both values, and says to use another folder. Two keys grow: what "note" and "inputs" say is added, key by key, to what they said
 * before; a note is not compared, and an input that both name must be the same. Processes may begin one folder at the same time.
 * settings is borrowed. Returns an exit code. */
int ledger_begin(const char *folder, const json_t *settings);

/* Keeps FOLDER/.NAME.lock, in a folder that is there, for this process until it ends. Fails, and tells, where another process has it. Returns
 * an exit code. */
int ledger_lock(const char *folder, const char *name);

/* The rows of one file of the folder, in its order; an array, empty when there is no such file. name may lead through folders
 * ("pred/4096/vt"), which ledger_append makes. A broken line in the middle is an error that names file and line. *rows is a new
 * reference. Returns an exit code. */
int ledger_read(const char *folder, const char *name, json_t **rows);

/* Appends a row and puts it on disk. row is stolen, on failure too. Returns an exit code. */
int ledger_append(const char *folder, const char *name, json_t *row);

/* "sha256:..." of a file's bytes; of a folder's: of its files' names and bytes in name order. hex has room for the result. For model
 * files above 64 MiB: of size, the first and the last 32 MiB ("sha256-ends:.."). Returns an exit code. */
enum { LEDGER_HASH = 80 };
int ledger_hash(const char *path, char hex[LEDGER_HASH]);

/* "sha256:..." of bytes in memory. */
void ledger_hash_bytes(const void *bytes, size_t size, char hex[LEDGER_HASH]);

#endif
