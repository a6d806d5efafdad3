/* compactattn convert gate: a torch checkpoint of gates as safetensors. */
#include "commands.h"
#include "measure.h"
#include "message.h"

#include <inttypes.h>
#include <stdio.h>

static json_t *summary_json(const char *path, const ca_gate_summary *s)
{
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:s, s:I, s:o, s:o}", "file", json_text(path), "n_tensors",
                     (json_int_t)s->n_tensors, "n_layers", (json_int_t)s->n_layers, "n_heads", (json_int_t)s->n_heads, "hidden",
                     (json_int_t)s->hidden, "dtype", s->dtype, "tensor_bytes", (json_int_t)s->bytes, "gate_type",
                     s->gate_type[0] ? json_text(s->gate_type) : json_null(), "gate_block_size",
                     s->block ? json_integer(s->block) : json_null());
}

static int run(const struct options *options)
{
    const char *from = options->words[0], *to = options->words[1];
    ca_gate_summary s;
    const ca_status status = ca_gate_convert(from, to, &s);
    if (status != CA_OK) return fail_library(status);
    if (options->json) return json_print(summary_json(to, &s));
    printf("%s: %u tensors, %u layers, %u heads, hidden %u, %s, %" PRIu64 " bytes", to, s.n_tensors, s.n_layers, s.n_heads,
           s.hidden, s.dtype, s.bytes);
    if (s.gate_type[0]) printf(", type %s", s.gate_type);
    if (s.block) printf(", block %u", s.block);
    puts("");
    return EXIT_DONE;
}

const struct command command_convert_gate = {
    .name = "convert gate",
    .summary = "Convert a published gate of SeerAttention to safetensors",
    .synopsis = "IN.pth OUT.safetensors [--json]",
    .details =
        "Reads attn_gate_weights.pth without running anything in it: only tensors of f32, f16 and bf16 are accepted. Names and types\n"
        "stay as they are. A config.json beside the input tells the gate's type and block size, which become metadata.\n"
        "An existing output is never overwritten.\n\n"
        "Example:\n"
        "  compactattn convert gate attn_gate_weights.pth gate.safetensors",
    .bit = CMD_CONVERT,
    .n_words = 2,
    .run = run,
};
