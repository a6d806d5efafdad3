"""Writes steps.jsonl: small tokenizers that try every step of tokenizer.json, with the ids and texts of Hugging Face's library.
Needs the Python package tokenizers (made with 0.23.3)."""
import itertools
import json
import sys

from tokenizers import Tokenizer

MARK = "\u2581"
LETTERS = "abcdeilnorstABI 0123456789.'!\n" + MARK + "\u00e9\u0301"
WORDS = ["in", "on", "ing", "tion", "re", "st", "est", MARK + "t", MARK + "a", MARK * 2, MARK * 4, "12", "..", " t", " a", "nt", "e\u0301",
         "<s>x", "A.", "'s", "\n\n", "cab", "ab"]
TEXTS = ["", " ", "a", "cabin", " a cabin", "a  cabin\n\n on  it ", "12 cabins, 345 on 6", "the <t> rest<t>ing", "<s>a</s> b", "<s>x <s> x",
         "  <l>  a <r>  b", "<l><r><l>  <r>", "\u4e2d\u6587 a \u4e2d", "e\u0301te\u0301 \u00e9t\u00e9", MARK + "a" + MARK, "x<n> y <n>", "a<N>b", "I'll don't 'S it's",
         "AaBb.cab..AB!", "\u0bd0\u00a0\u3000a\u2003\u180e b", "\t\ta\r\n\r\n  b", "no 1\u00bd2 \u2167 3", "tionnnn    tionn"]


def vocabulary(byte_level, fallback):
    names = ["<s>", "</s>", "<unk>"]
    if fallback:
        names += ["<0x%02X>" % b for b in range(256)]
    if byte_level:
        letters, extra = [], 256
        for b in range(256):
            printable = 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE
            letters.append(chr(b if printable else extra))
            extra += not printable
        names += letters
        words = ["".join(letters[b] for b in w.encode()) for w in WORDS]
    else:
        names += list(LETTERS)
        words = WORDS
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    merges = []
    for word in words:  # left to right, every prefix becomes a token
        for i in range(1, len(word)):
            left, right, both = word[:i], word[i], word[: i + 1]
            if left in vocab and right in vocab and [left, right] not in merges:
                merges.append([left, right])
                vocab.setdefault(both, len(vocab))
    return vocab, merges


def tokenizer(normalizer=None, pre=None, decoder=None, post=None, byte_level=True, fallback=False, model=None, normalized=False):
    vocab, merges = vocabulary(byte_level, fallback)
    ids = itertools.count(len(vocab))
    added = []
    for name, special, flags in [("<s>", True, {}), ("</s>", True, {}), ("<unk>", True, {}), ("<t>", False, {}), ("<l>", True, {"lstrip": True}),
                                 ("<r>", False, {"rstrip": True}), ("<n>", False, {"normalized": True}), ("<N>", True, {"normalized": normalized})]:
        token = {"id": vocab.get(name), "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        if token["id"] is None:
            token["id"] = next(ids)
        added.append({**token, **flags})
    added.sort(key=lambda t: t["id"])
    base = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": fallback, "ignore_merges": False}
    if decoder is None:
        decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True} if byte_level else {"type": "Fuse"}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": {**base, **(model or {}), "vocab": vocab, "merges": merges}}


def sequence(kind, *items):
    return {"type": "Sequence", kind: list(items)}


def byte_level(prefix=False, words=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": words}


def split(pattern, behavior="Isolated", invert=False, regex=True):
    return {"type": "Split", "pattern": {"Regex" if regex else "String": pattern}, "behavior": behavior, "invert": invert}


def pre(*items):
    return sequence("pretokenizers", *items)


def replace(old, new):
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def template(*parts):
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}


SENTENCE = sequence("decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
PLAIN = sequence("decoders", replace(MARK, " "), {"type": "Fuse"})
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])

VARIANTS = {
    "bytes": dict(pre=byte_level()),
    "bytes, prefix": dict(pre=byte_level(True), post=template()),
    "bytes, words": dict(pre=byte_level(False, True), post=sequence("processors", byte_level(), template())),
    "bytes, prefix and words": dict(pre=byte_level(True, True)),
    "bytes, ignore_merges": dict(pre=byte_level(False, True), model={"ignore_merges": True}),
    "digits": dict(pre=pre({"type": "Digits", "individual_digits": False}, byte_level(False, True))),
    "digits, each": dict(pre=pre({"type": "Digits", "individual_digits": True}, byte_level(False, True))),
    "o200k": dict(pre=pre(split(O200K), byte_level())),
    "three splits": dict(pre=pre(split(r"[\r\n]"), split(r"\s?[A-Za-z\u00e9]+"), split(r"\s?[!-/:-~]+"), split(r"\s+$"), split(r"[\u4e00-\u9fa5]+"), byte_level())),
    "numbers from the end": dict(pre=pre(split(r"\d{1,3}(?=(?:\d{3})*(?!\d))"), byte_level())),
    "nfc": dict(normalizer={"type": "NFC"}, pre=byte_level(False, True), normalized=True),
    "nfc and replace": dict(normalizer=sequence("normalizers", {"type": "NFC"}, replace("..", "!"), replace("a", "in")), pre=byte_level(), normalized=True),
    "characters, no unknown": dict(byte_level=False),
    "characters, unknown": dict(byte_level=False, model={"unk_token": "<unk>"}),
    "characters, unknown fused": dict(byte_level=False, model={"unk_token": "<unk>", "fuse_unk": True}),
    "characters, ignore_merges": dict(byte_level=False, pre=split(" ", regex=False), model={"ignore_merges": True, "unk_token": "<unk>"}),
    "sentencepiece": dict(byte_level=False, fallback=True, normalizer=sequence("normalizers", {"type": "Prepend", "prepend": MARK}, replace(" ", MARK)),
                          decoder=SENTENCE, post=template(), model={"unk_token": "<unk>", "fuse_unk": True}, normalized=True),
    "gemma": dict(byte_level=False, fallback=True, normalizer=replace(" ", MARK), pre=split(" ", "MergedWithPrevious", regex=False),
                  decoder=sequence("decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}),
                  model={"unk_token": "<unk>", "fuse_unk": True}),
}
for scheme, cut in itertools.product(["always", "first", "never"], [True, False]):
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": cut}
    VARIANTS[f"metaspace {scheme} {cut}"] = dict(byte_level=False, pre=metaspace, decoder=PLAIN, model={"unk_token": "<unk>"})
for behavior, invert in itertools.product(["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"], [False, True]):
    VARIANTS[f"{behavior} {invert}"] = dict(pre=pre(split(r"\s|[a-c]{2}", behavior, invert), byte_level()))
VARIANTS["literal removed"] = dict(pre=pre(split(" ", "Removed", regex=False), byte_level()))


def write(value):
    json.dump(value, sys.stdout, separators=(",", ":"))
    print()


def main():
    """First line: the vocabularies, by name; then one tokenizer a line, whose model lacks them."""
    kinds = {"bytes": (True, False), "characters": (False, False), "fallback": (False, True)}
    write({name: dict(zip(["vocab", "merges"], vocabulary(*kind))) for name, kind in kinds.items()})
    for name, options in VARIANTS.items():
        kind = "fallback" if options.get("fallback") else "bytes" if options.get("byte_level", True) else "characters"
        spec = tokenizer(**options)
        hf = Tokenizer.from_str(json.dumps(spec))
        del spec["model"]["vocab"], spec["model"]["merges"]
        cases = []
        for text in TEXTS:
            ids = hf.encode(text).ids
            case = {"text": text, "ids": ids}
            if name != "sentencepiece" or "<n>" not in text:  # a version of the library shows such a token by its normalized name
                case["shown"] = hf.decode(ids, skip_special_tokens=False)
            hf.encode_special_tokens = True
            plain = hf.encode(text).ids
            hf.encode_special_tokens = False
            if plain != ids:
                case["plain"] = plain
            cases.append(case)
        write({"name": name, "vocabulary": kind, "tokenizer": spec, "cases": cases})


main()
