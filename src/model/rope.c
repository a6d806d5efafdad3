#include "model/rope.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/arith.h"

enum { MAX_ORIGINAL = 1 << 28 };

static const double turn = 6.283185307179586; /* 2 pi */
static const float max_theta = 1e12F, max_factor = 1e6F;

static const char *const names[] = { "none", "linear", "llama3", "yarn" };

const char *ca_rope_name(ca_rope_kind kind)
{
    return names[kind];
}

static float yarn_magnitude(double factor, double m)
{
    return factor > 1.0 ? (float)(0.1 * m * log(factor) + 1.0) : 1.0F;
}

void ca_rope_extend(ca_rope *rope, ca_rope_kind kind, float factor, uint32_t context)
{
    rope->kind = kind;
    rope->factor = factor;
    rope->original = context;
    rope->beta_fast = 32.0F;
    rope->beta_slow = 1.0F;
    rope->whole_dims = true;
    rope->magnitude = kind == CA_ROPE_YARN ? yarn_magnitude((double)factor, 1.0) : 1.0F;
}

static ca_status kind_of(const ca_fields *f, const char *where, const char *name, ca_rope_kind *kind)
{
    *kind = CA_ROPE_PLAIN;
    if (*name == '\0' || strcmp(name, "default") == 0) return CA_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *kind = (ca_rope_kind)i;
        if (strcmp(name, names[i]) == 0) return CA_OK;
    }
    return ca_fail(CA_E_UNSUPPORTED, "%s: RoPE scaling '%.32s' is not supported (%s); default, linear, llama3 and yarn are",
                   f->path, name, where);
}

/* ---- GGUF ---- */

static ca_status read_gguf(const ca_fields *f, float theta, ca_rope *r)
{
    char name[32], key[96];
    float attn_factor = 1.0F, yarn_factor = 1.0F, mix = 1.0F;
    const ca_field scaling = { "rope.scaling.type", NULL }, factor = { "rope.scaling.factor", NULL };
    *r = (ca_rope){ .theta = theta, .factor = 1.0F, .magnitude = 1.0F, .beta_fast = 32.0F, .beta_slow = 1.0F, .whole_dims = true };
    CA_TRY(ca_field_f32(f, (ca_field){ "rope.freq_base", NULL }, 1.0F, max_theta, &r->theta));
    CA_TRY(ca_field_text(f, scaling, name, sizeof name));
    if (*name == '\0' && ca_field_has(f, factor)) memcpy(name, "linear", sizeof "linear");
    CA_TRY(kind_of(f, ca_field_name(f, scaling, key), name, &r->kind));
    if (r->kind == CA_ROPE_LLAMA3) /* GGUF spells it as the tensor rope_freqs.weight */
        return ca_fail(CA_E_UNSUPPORTED, "%s: key '%s' is 'llama3', which no GGUF file has a meaning for", f->path, key);
    if (r->kind == CA_ROPE_PLAIN) return CA_OK;
    r->factor = 0.0F;
    CA_TRY(ca_field_f32(f, factor, 1e-3F, max_factor, &r->factor));
    if (r->kind != CA_ROPE_YARN) return CA_OK;
    CA_TRY(ca_field_u32(f, (ca_field){ "rope.scaling.original_context_length", NULL }, 1, MAX_ORIGINAL, &r->original));
    CA_TRY(ca_field_f32(f, (ca_field){ "rope.scaling.yarn_beta_fast", NULL }, 1e-3F, 1e6F, &r->beta_fast));
    CA_TRY(ca_field_f32(f, (ca_field){ "rope.scaling.yarn_beta_slow", NULL }, 1e-3F, 1e6F, &r->beta_slow));
    CA_TRY(ca_field_f32(f, (ca_field){ "rope.scaling.attn_factor", NULL }, 1e-3F, 1e3F, &attn_factor));
    CA_TRY(ca_field_f32(f, (ca_field){ "rope.scaling.yarn_attn_factor", NULL }, 1e-3F, 1e3F, &yarn_factor));
    CA_TRY(ca_field_f32(f, (ca_field){ "rope.scaling.yarn_ext_factor", NULL }, 1.0F, 1.0F, &mix));
    r->magnitude = yarn_magnitude((double)r->factor, 1.0) * attn_factor * yarn_factor;
    return CA_OK;
}

/* ---- config.json ---- */

static ca_status read_llama3(const ca_fields *f, ca_rope *r)
{
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "low_freq_factor" }, 1e-6F, 1e6F, &r->low_freq));
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "high_freq_factor" }, 1e-6F, 1e6F, &r->high_freq));
    CA_TRY(ca_field_u32(f, (ca_field){ NULL, "original_max_position_embeddings" }, 1, MAX_ORIGINAL, &r->original));
    if (r->high_freq > r->low_freq) return CA_OK;
    return ca_fail(CA_E_FORMAT, "%s: '%shigh_freq_factor' is %g, which must be above 'low_freq_factor', %g", f->path, f->prefix,
                   (double)r->high_freq, (double)r->low_freq);
}

static ca_status read_yarn(const ca_fields *f, uint32_t max_context, ca_rope *r)
{
    float all = 0.0F, m = 0.0F;
    const ca_field has_all = { NULL, "mscale_all_dim" }, has_m = { NULL, "mscale" };
    r->original = max_context;
    CA_TRY(ca_field_u32(f, (ca_field){ NULL, "original_max_position_embeddings" }, 1, MAX_ORIGINAL, &r->original));
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "beta_fast" }, 1e-3F, 1e6F, &r->beta_fast));
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "beta_slow" }, 1e-3F, 1e6F, &r->beta_slow));
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "truncate" }, &r->whole_dims));
    if (ca_field_has(f, has_all)) CA_TRY(ca_field_f32(f, has_all, 0.0F, 1e3F, &all));
    if (ca_field_has(f, has_m)) CA_TRY(ca_field_f32(f, has_m, 0.0F, 1e3F, &m));
    r->magnitude = yarn_magnitude((double)r->factor, 1.0);
    if (m > 0.0F && all > 0.0F)
        r->magnitude = yarn_magnitude((double)r->factor, (double)m) / yarn_magnitude((double)r->factor, (double)all);
    return ca_field_f32(f, (ca_field){ NULL, "attention_factor" }, 1e-3F, 1e3F, &r->magnitude);
}

/* f: the object of the scaling, or one without object. */
static ca_status read_object(const ca_fields *f, float theta, uint32_t max_context, ca_rope *r)
{
    char name[32], where[96];
    float rotated = 1.0F;
    const ca_field type = { NULL, "rope_type" }, old_type = { NULL, "type" };
    const ca_field used = ca_field_has(f, type) ? type : old_type;
    *r = (ca_rope){ .theta = theta, .factor = 1.0F, .magnitude = 1.0F, .beta_fast = 32.0F, .beta_slow = 1.0F, .whole_dims = true };
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "rope_theta" }, 1.0F, max_theta, &r->theta));
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "partial_rotary_factor" }, 1.0F, 1.0F, &rotated));
    CA_TRY(ca_field_text(f, used, name, sizeof name));
    CA_TRY(kind_of(f, ca_field_name(f, used, where), name, &r->kind));
    if (r->kind == CA_ROPE_PLAIN) return CA_OK;
    r->factor = 0.0F;
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "factor" }, 1e-3F, max_factor, &r->factor));
    if (r->kind == CA_ROPE_LLAMA3) return read_llama3(f, r);
    return r->kind == CA_ROPE_YARN ? read_yarn(f, max_context, r) : CA_OK;
}

/* Two generations of names: rope_theta, rope_scaling and rope_local_base_freq; or rope_parameters, with an object for each kind of
 * layer where there are two. */
static ca_status read_json(const ca_fields *f, float theta, float local_theta, uint32_t max_context, ca_rope *full,
                           ca_rope *sliding)
{
    ca_fields both, one;
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "rope_theta" }, 1.0F, max_theta, &theta));
    if (local_theta > 0.0F) CA_TRY(ca_field_f32(f, (ca_field){ NULL, "rope_local_base_freq" }, 1.0F, max_theta, &local_theta));
    CA_TRY(ca_fields_inside(f, "rope_parameters", &both));
    if (both.object == NULL) CA_TRY(ca_fields_inside(f, "rope_scaling", &both));
    CA_TRY(ca_fields_inside(&both, "full_attention", &one));
    CA_TRY(read_object(one.object != NULL ? &one : &both, theta, max_context, full));
    CA_TRY(ca_fields_inside(&both, "sliding_attention", &one));
    if (local_theta <= 0.0F && one.object == NULL) {
        *sliding = *full;
        return CA_OK;
    }
    return read_object(&one, local_theta > 0.0F ? local_theta : theta, max_context, sliding);
}

ca_status ca_rope_read(const ca_fields *f, float theta, float local_theta, uint32_t *max_context, ca_rope *full, ca_rope *sliding)
{
    if (f->gguf != NULL) {
        CA_TRY(read_gguf(f, theta, full));
        *sliding = *full;
        if (local_theta > 0.0F) {
            *sliding = (ca_rope){ .theta = local_theta, .factor = 1.0F, .magnitude = 1.0F };
            CA_TRY(ca_field_f32(f, (ca_field){ "rope.freq_base_swa", NULL }, 1.0F, max_theta, &sliding->theta));
        }
    } else {
        CA_TRY(read_json(f, theta, local_theta, *max_context, full, sliding));
    }
    if (full->kind == CA_ROPE_YARN) {
        const double reach = floor((double)full->original * (double)full->factor);
        *max_context = ca_max_u32(*max_context, reach < (double)MAX_ORIGINAL ? (uint32_t)reach : MAX_ORIGINAL);
    }
    if ((full->kind == CA_ROPE_YARN && full->theta <= 1.0F) || (sliding->kind == CA_ROPE_YARN && sliding->theta <= 1.0F))
        return ca_fail(CA_E_FORMAT, "%s: YaRN needs a RoPE base above 1", f->path);
    return CA_OK;
}

/* ---- frequencies ---- */

static double llama3_scale(const ca_rope *r, double base)
{
    const double turns = (double)r->original * base / turn; /* over the original context */
    if (turns > (double)r->high_freq) return 1.0;
    if (turns < (double)r->low_freq) return 1.0 / (double)r->factor;
    const double t = (turns - (double)r->low_freq) / ((double)r->high_freq - (double)r->low_freq);
    return (1.0 - t) / (double)r->factor + t;
}

/* The fractional dimension that turns this many times over the original context. */
static double yarn_dim(const ca_rope *r, uint32_t head_dim, double turns)
{
    return head_dim * log(r->original / (turns * turn)) / (2.0 * log((double)r->theta));
}

static double yarn_scale(const ca_rope *r, uint32_t head_dim, uint32_t i)
{
    double first = yarn_dim(r, head_dim, (double)r->beta_fast), last = yarn_dim(r, head_dim, (double)r->beta_slow);
    if (r->whole_dims) {
        first = floor(first);
        last = ceil(last);
    }
    first = fmax(first, 0.0);
    last = fmin(last, head_dim - 1.0);
    if (first == last) last += 0.001;
    const double ramp = fmin(fmax((i - first) / (last - first), 0.0), 1.0);
    return ramp / (double)r->factor + 1.0 - ramp;
}

void ca_rope_frequencies(const ca_rope *rope, uint32_t head_dim, double *inv_freq)
{
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        inv_freq[i] = pow((double)rope->theta, -2.0 * i / head_dim);
        switch (rope->kind) {
        case CA_ROPE_LINEAR: inv_freq[i] /= (double)rope->factor; break;
        case CA_ROPE_LLAMA3: inv_freq[i] *= llama3_scale(rope, inv_freq[i]); break;
        case CA_ROPE_YARN: inv_freq[i] *= yarn_scale(rope, head_dim, i); break;
        case CA_ROPE_PLAIN: break;
        }
    }
}
