#!/usr/bin/env python3
"""Writes the checkpoints of tests/golden/gate and the pickles of tests/fuzz/corpus/fuzz_torch_zip. Standard library only.

    python3 tests/unit/make_pth.py tests/golden/gate tests/fuzz/corpus/fuzz_torch_zip

Good pickles come from Python's own pickler, which is given objects of the names that torch.save writes. Element e of every storage is
((e mod 251) - 125) / 64, exact in each type.
"""
import collections
import io
import pathlib
import pickle
import struct
import sys
import types
import zipfile

STAMP = (2025, 1, 1, 0, 0, 0)
NAME = "model.layers.%d.self_attn.attn_gate.mask_linear_k.weight"


def fake_torch():
    """Modules with the names that a pickle of torch refers to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = types.FunctionType((lambda: None).__code__, {}, "_rebuild_tensor_v2")
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    utils._rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    sys.modules.update({"torch": torch, "torch._utils": utils})
    return torch, utils


torch, utils = fake_torch()


class Storage:
    def __init__(self, key, kind, numel, stored=None):
        self.key, self.kind, self.numel = key, kind, numel
        self.stored = numel if stored is None else stored  # elements that the file really holds

    def data(self):
        values = [((e % 251) - 125) / 64 for e in range(self.stored)]
        if self.kind == "BFloat16Storage":
            return b"".join(struct.pack("<f", v)[2:] for v in values)
        return struct.pack("<%d%s" % (self.stored, {"FloatStorage": "f", "HalfStorage": "e", "LongStorage": "q"}[self.kind]),
                           *(values if self.kind != "LongStorage" else [0] * self.stored))


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def __reduce_ex__(self, protocol):
        return utils._rebuild_tensor_v2, (self.storage, self.offset, self.shape, self.strides, False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        return "storage", getattr(torch, obj.kind), obj.key, "cuda:0", obj.numel


def pickled(obj):
    out = io.BytesIO()
    Pickler(out, protocol=2).dump(obj)
    return out.getvalue()


def write(path, pkl, storages=(), order=b"little", method=zipfile.ZIP_STORED, root="attn_gate_weights"):
    with zipfile.ZipFile(path, "w", method) as z:
        def add(name, data):
            info = zipfile.ZipInfo(root + "/" + name, STAMP)
            info.compress_type = method
            z.writestr(info, data)
        if pkl is not None:
            add("data.pkl", pkl)
        if order is not None:
            add("byteorder", order)
        for storage in storages:
            add("data/" + storage.key, storage.data())
        add("version", b"3\n")


def main(folder, corpus):
    good_storage = Storage("0", "BFloat16Storage", 2 * 4 * 16 * 16 + 7)
    good = {NAME % 0: Tensor(good_storage, 7, (4, 16, 16), (256, 16, 1)),
            NAME % 1: Tensor(good_storage, 7 + 1024, (4, 16, 16), (256, 1, 16))}  # layer 1 is stored transposed
    pickles = {"good": pickled(good)}
    write(folder / "good.pth", pickles["good"], [good_storage])

    f32, f16 = Storage("0", "FloatStorage", 12), Storage("1", "HalfStorage", 5)
    several = collections.OrderedDict()
    several["a"] = Tensor(f32, 0, (3, 4), (4, 1))
    several["b"] = Tensor(f32, 1, (3,), (4,))   # a column of a
    several["c"] = Tensor(f16, 4, (2, 3), (0, 0))  # one element, expanded
    several["d"] = Tensor(f16, 5, (0,), (1,))
    several["e"] = Tensor(f16, 2, (), ())
    pickles["types"] = pickled(several)
    write(folder / "types.pth", pickles["types"], [f32, f16], order=None, method=zipfile.ZIP_DEFLATED, root="archive")

    def bad(name, tensor=None, pkl=None, storages=None, **more):
        pickles[name] = pkl if tensor is None else pickled({NAME % 0: tensor})
        write(folder / (name + ".pth"), pickles[name], [tensor.storage] if storages is None else storages, **more)

    small = Storage("0", "FloatStorage", 16)
    whole = Tensor(small, 0, (4, 4), (4, 1))
    bad("bad_global", pkl=b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.", storages=[])
    bad("bad_opcode", pkl=b"\x80\x02}q\x00X\x01\x00\x00\x00aG?\xf0\x00\x00\x00\x00\x00\x00s.", storages=[])
    bad("bad_offset", Tensor(small, 1, (4, 4), (4, 1)))
    bad("bad_stride", Tensor(small, 0, (4, 4), (2**62, 1)))
    bad("bad_dtype", Tensor(Storage("0", "LongStorage", 16), 0, (4, 4), (4, 1)))
    bad("bad_missing", whole, storages=[])
    bad("bad_short", Tensor(Storage("0", "FloatStorage", 16, stored=15), 0, (4, 4), (4, 1)))
    bad("bad_order", whole, order=b"big")
    bad("bad_entry", pkl=pickled({"a": 3}), storages=[])
    bad("bad_cut", pkl=pickled({"a": whole})[:-8], storages=[small])
    bad("bad_decode", pkl=pickled({"model.layers.0.self_attn.attn_gate.attngate_linear_k.weight": whole}), storages=[small])
    bad("bad_shape", whole)
    bad("bad_empty", pkl=pickled({}), storages=[])
    bad("bad_other", pkl=pickled({"model.embed_tokens.weight": whole}), storages=[small])
    write(folder / "bad_nopickle.pth", None, [small])

    data = bytearray((folder / "good.pth").read_bytes())
    (folder / "bad_zip.pth").write_bytes(data[:len(data) // 2])
    at = data.index(good_storage.data()[:64])
    data[at] ^= 1
    (folder / "bad_crc.pth").write_bytes(data)

    # A deflated storage of 64 bytes whose directory entry says 3 GiB.
    huge = Storage("0", "FloatStorage", 3 << 28, stored=16)
    bad("bad_bomb", Tensor(huge, 0, (3 << 28,), (1,)), method=zipfile.ZIP_DEFLATED)
    data = bytearray((folder / "bad_bomb.pth").read_bytes())
    at = data.index(b"PK\x01\x02", data.index(b"attn_gate_weights/byteorder", data.index(b"PK\x01\x02")))
    struct.pack_into("<I", data, at + 24, 3 << 30)
    (folder / "bad_bomb.pth").write_bytes(data)

    for name, pkl in pickles.items():
        (corpus / name).write_bytes(pkl)


main(*(pathlib.Path(p) for p in sys.argv[1:3]))
