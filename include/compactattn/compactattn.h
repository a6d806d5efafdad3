/* libcompactattn: chunked prefill with block-sparse attention. This header includes all others.
 *
 * Two ways in:
 *   a whole model   ca_model_open -> ca_session_create -> ca_session_prefill -> ca_sample / ca_session_decode
 *   attention only  ca_cache_create -> per layer: ca_cache_append, ca_select, ca_table_add_*, ca_attend
 *
 * Rules for all functions: sizes are in elements unless a name says bytes; every fallible function returns ca_status and leaves
 * the message in ca_last_error(); nothing prints, exits or aborts; destroy and close functions take NULL. */
#ifndef COMPACTATTN_H
#define COMPACTATTN_H

#include "attend.h"
#include "base.h"
#include "cache.h"
#include "cpu.h"
#include "gate.h"
#include "select.h"
#include "table.h"
#ifndef CA_NO_MODELS
#include "model.h"
#include "session.h"
#include "tokenizer.h"
#endif

#endif
