#!/bin/sh
# Gates of torch become safetensors; anything else in a checkpoint is refused by name and leaves nothing behind.
. "$(dirname "$0")/common.inc"
gates=$golden/gate
out=$work/gate.safetensors

refuse 2 "2 more arguments are needed" convert gate
refuse 2 "1 more argument is needed" convert gate in.pth
refuse 2 "unexpected argument c" convert gate a b c
refuse 2 "unknown option --model" convert gate a b --model x
refuse 2 "convert is not a command by itself; known: convert gate" convert model a b

accept convert gate "$gates/good.pth" "$out"
printed "gate.safetensors: 2 tensors, 2 layers, 4 heads, hidden 16, BF16, 4096 bytes$"
[ "$(wc -l <"$work/out")" -eq 1 ] || fail "the summary is not one line"
# u64 length, the header up to a multiple of 8, then 2 * 2048 bytes of data.
length=$(od -An -tu8 -N8 "$out" | tr -d ' ')
[ "$(wc -c <"$out")" -eq $((8 + length + 4096)) ] || fail "size of the file"
head -c $((8 + length)) "$out" | tail -c "$length" >"$work/out"
printed '^{"__metadata__":{"format":"pt"},"model.layers.0.self_attn.attn_gate.mask_linear_k.weight":{"dtype":"BF16","shape":\[4,16,16\],"data_offsets":\[0,2048\]}'
# Element 0 of layer 0 is element 7 of its storage: (7 - 125) / 64 = -1.84375, bf16 0xbfec.
[ "$(tail -c 4096 "$out" | od -An -tx2 -N2 | tr -d ' ')" = bfec ] || fail "the first element"

refuse 1 "$out: is there already" convert gate "$gates/good.pth" "$out"
rm "$out"

cp "$gates/good.pth" "$work/in.pth"
echo '{"seerattn_gate_type": "Qavg_Kmax", "seerattn_gate_block_size": 64}' >"$work/config.json"
accept convert gate "$work/in.pth" "$out" --json
printed '^ *"n_tensors": 2'
printed '^ *"gate_type": "Qavg_Kmax"'
printed '^ *"gate_block_size": 64'
grep -q '"gate_type":"Qavg_Kmax","gate_block_size":"64"' "$out" || fail "the metadata of config.json is not in the file"
rm "$out"
echo '{"seerattn_gate_type": "Qavg"}' >"$work/config.json"
refuse 1 "config.json: gate type 'Qavg'" convert gate "$work/in.pth" "$out"

refuse 1 "cannot be opened" convert gate "$work/none.pth" "$out"
refuse 1 "is no zip" convert gate "$0" "$out"
while read -r file words; do
    refuse 1 "$words" convert gate "$gates/$file.pth" "$out"
done <<'END'
bad_global global 'os.system' is refused
bad_opcode opcode 0x47 (BINFLOAT) is refused
bad_offset needs element 16 of storage '0'
bad_missing data/0' is missing
bad_cut the file ends here
bad_zip is no zip
bad_crc is damaged
bad_decode belongs to a gate made for decoding
bad_other is not part of a gate
END
refuse 1 "cannot be created" convert gate "$gates/good.pth" "$work/none/gate.safetensors"
rm "$work/config.json" "$work/in.pth" "$work/out" "$work/err"
[ -z "$(ls "$work")" ] || fail "files are left: $(ls "$work")"
finish
