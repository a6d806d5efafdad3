/* The cost model's constants of this machine: measured by doctor --tune, kept in the user's cache folder, read by every run. */
#ifndef CLI_TUNE_H
#define CLI_TUNE_H

#include <compactattn/compactattn.h>
#include <stdbool.h>
#include <stddef.h>

/* Where they are kept: $XDG_CACHE_HOME/compactattn/cost.json, or the same under ~/.cache. False when neither variable is set. */
bool tune_path(char *path, size_t cap);

/* Those kept for this CPU, kernel set and type of attention, or else the built-in ones and false. */
bool tune_cost(const ca_kern *kern, ca_attention attention, ca_cost *out);

/* Keeps them, in place of others for the same. Returns an exit code. */
int tune_save(const ca_kern *kern, ca_attention attention, const ca_cost *cost);

#endif
