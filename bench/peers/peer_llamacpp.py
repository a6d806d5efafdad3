"""llama.cpp as llama-cpp-python builds it: ggml's flash attention through its C API, and the whole model."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import llama_cpp
import numpy as np
from case import Inputs, Route, Shape

F32, F16 = 0, 1  # enum ggml_type
SLACK = 1 << 20  # bytes for tensor headers, alignment and the graph


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def version() -> str:
    return f"llama-cpp-python {llama_cpp.__version__}"


@cache
def ggml() -> dict[str, Callable]:
    """The functions of ggml used here, with their types."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    base, cpu = (ctypes.CDLL(str(folder / f"libggml-{name}.so")) for name in ("base", "cpu"))
    pointer, size, number, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    signatures = {
        "ggml_init": (base, pointer, [InitParams]),
        "ggml_free": (base, None, [pointer]),
        "ggml_new_tensor_4d": (base, pointer, [pointer, integer, size, size, size, size]),
        "ggml_get_data": (base, pointer, [pointer]),
        "ggml_flash_attn_ext": (base, pointer, [pointer] * 5 + [number] * 3),
        "ggml_new_graph": (base, pointer, [pointer]),
        "ggml_build_forward_expand": (base, None, [pointer, pointer]),
        "ggml_backend_graph_compute": (base, integer, [pointer, pointer]),
        "ggml_backend_cpu_init": (cpu, pointer, []),
        "ggml_backend_cpu_set_n_threads": (cpu, None, [pointer, integer]),
        "ggml_backend_free": (base, None, [pointer]),
    }
    functions = {}
    for name, (library, result, arguments) in signatures.items():
        functions[name] = getattr(library, name)
        functions[name].restype, functions[name].argtypes = result, arguments
    return functions


class FlashAttention:
    """A graph of one flash attention node; q, k and v as [heads, tokens, dim]."""

    def __init__(self, shape: Shape, inputs: Inputs, threads: int):
        self.shape, self.call = shape, ggml()
        past = shape.kv - shape.q
        hidden = np.arange(shape.kv)[None, :] > past + np.arange(shape.q)[:, None]
        arrays = [
            (F32, inputs.q.transpose(1, 0, 2)),
            (F16, inputs.k.transpose(1, 0, 2).astype(np.float16)),
            (F16, inputs.v.transpose(1, 0, 2).astype(np.float16)),
            (F16, np.where(hidden, -np.inf, 0).astype(np.float16)[None]),
        ]
        n_bytes = sum(array.nbytes for _, array in arrays) + inputs.q.nbytes + SLACK
        self.context = self.call["ggml_init"](InitParams(n_bytes, None, False))
        self.backend = self.call["ggml_backend_cpu_init"]()
        self.call["ggml_backend_cpu_set_n_threads"](self.backend, threads)
        tensors = [self.tensor(kind, np.ascontiguousarray(array)) for kind, array in arrays]
        self.result = self.call["ggml_flash_attn_ext"](self.context, *tensors, shape.dim**-0.5, 0, 0)
        self.graph = self.call["ggml_new_graph"](self.context)
        self.call["ggml_build_forward_expand"](self.graph, self.result)

    def __del__(self):
        self.call["ggml_backend_free"](self.backend)
        self.call["ggml_free"](self.context)

    def tensor(self, kind: int, array: np.ndarray) -> int:
        heads, tokens, width = array.shape
        tensor = self.call["ggml_new_tensor_4d"](self.context, kind, width, tokens, heads, 1)
        ctypes.memmove(self.call["ggml_get_data"](tensor), array.ctypes.data, array.nbytes)
        return tensor

    def run(self) -> None:
        status = self.call["ggml_backend_graph_compute"](self.backend, self.graph)
        if status != 0:
            raise RuntimeError(f"ggml_backend_graph_compute returned {status}")

    def output(self) -> np.ndarray:
        shape = self.shape
        data = ctypes.cast(self.call["ggml_get_data"](self.result), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(data, (shape.q, shape.heads, shape.dim)).copy()


def flash_attention(shape: Shape, inputs: Inputs, threads: int) -> Route:
    attention = FlashAttention(shape, inputs, threads)
    return Route("f16", attention.run, attention.output)


def prefill(n_batch: int) -> Callable[[str, int, int], Callable[[Sequence[int]], int]]:
    def build(model: str, longest: int, threads: int) -> Callable[[Sequence[int]], int]:
        llama = llama_cpp.Llama(
            model,
            n_ctx=longest + 1,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )

        def first_token(ids: Sequence[int]) -> int:
            llama.reset()
            llama.eval(ids)
            logits = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
            return int(np.ctypeslib.as_array(logits, (llama.n_vocab(),)).argmax())

        return first_token

    return build


ATTENTION = {"dense, flash attention": flash_attention}
PREFILL = {f"dense, batches of {n}": prefill(n) for n in (512, 1024)}
