/* The kernel set of the ISA whose bodies were included before; included last by kern_<isa>.c, which defines KERN_SYMBOL,
 * KERN_NAME and KERN_FLAGS. */
const ca_kern KERN_SYMBOL = {
    .name = KERN_NAME,
    .cpu_flags = KERN_FLAGS,
    .type = V_TYPE,
    .ks = V_KS,
    .k_panel = V_TILE_NV * VW,
    .v_panel = V_TILE_NV * VW,
    .attn_scratch_bytes = attn_scratch_bytes,
    .attn = attn,
    .score = score,
    .page_put = page_put,
    .rmsnorm = rmsnorm,
    .rope = rope,
    .swiglu = swiglu,
    .convert = convert,
    .peak = peak,
};
