"""OpenVINO: the PagedAttention operator of the CPU plugin, dense and with its XAttention."""

from collections.abc import Callable

import numpy as np
import openvino as ov
import openvino.opset15 as ops
from case import Inputs, Route, Shape, from_bf16, to_bf16
from openvino.op import _PagedAttentionExtension as PagedAttention

BLOCK = 32  # tokens of a KV block in the CPU plugin
TYPES = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}
PIECE = 1024  # tokens written into the cache at a time


def version() -> str:
    return f"openvino {ov.__version__.split('-')[0]}"


def empty(dtype: type, *shape: int) -> ov.Node:
    return ops.constant(np.empty(shape or (0,), dtype))


def scalar(value: float, dtype: type) -> ov.Node:
    return ops.constant(np.array(value, dtype))


def parameter(name: str, shape: list[int] | ov.PartialShape, kind: ov.Type) -> ov.Node:
    node = ops.parameter(shape, kind, name)
    node.output(0).set_names({name})
    return node


def make_model(shape: Shape, threshold: float | None, kind: ov.Type) -> ov.Model:
    """One PagedAttention node; its 28 inputs in the order of the operator. The plugin chooses type and layout of the caches."""
    query = parameter("query", [-1, shape.heads * shape.dim], kind)
    key, value = (parameter(name, [-1, shape.kv_heads * shape.dim], kind) for name in ("key", "value"))
    caches = [parameter(name, ov.PartialShape.dynamic(4), ov.Type.dynamic) for name in ("key_cache", "value_cache")]
    lists = [
        parameter(name, [-1], ov.Type.i32) for name in ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")
    ]
    longest = parameter("max_context_len", [], ov.Type.i32)
    i32 = np.int32
    rest = [
        empty(i32),  # score_aggregation_window
        empty(i32),  # rotated_block_indices
        empty(i32),  # rotation_deltas
        empty(np.float32),  # rotation_trig_lut
        empty(np.float32) if threshold is None else ops.constant(np.array([threshold], np.float32)),  # xattention_threshold
        scalar(128, i32),  # xattention_block_size
        scalar(16, i32),  # xattention_stride
        empty(np.float32, 0, 0, 0, 0),  # sinks
        scalar(0, i32),  # adaptive_rkv_start_size
        empty(i32),  # adaptive_rkv_evictable_sizes
        empty(i32),  # adaptive_rkv_diversity_block_set_indices
        empty(i32),  # adaptive_rkv_diversity_block_set_indices_begins
        empty(i32),  # token_type_ids
        empty(np.uint8),  # qq_bias
        empty(i32),  # qq_bias_begins
    ]
    scale, window, alibi = scalar(shape.dim**-0.5, np.float32), scalar(0, i32), empty(np.float32)
    inputs = [query, key, value, *caches, *lists, scale, window, alibi, longest, *rest]
    node = PagedAttention([item.output(0) for item in inputs])
    for side in "kv":  # from these the plugin makes the caches
        node.get_rt_info()[f"num_{side}_heads"] = shape.kv_heads
        node.get_rt_info()[f"{side}_head_size"] = shape.dim
    return ov.Model([node.output(0)], [query, key, value, *caches, *lists, longest])


def rows_tensor(rows: np.ndarray, precision: str) -> ov.Tensor:
    """[tokens, heads, dim] as a tensor [tokens, heads * dim]."""
    shape = [rows.shape[0], rows.shape[1] * rows.shape[2]]
    if precision == "f32":
        return ov.Tensor(np.array(rows, np.float32).reshape(shape))
    tensor = ov.Tensor(ov.Type.bf16, shape)
    np.frombuffer(tensor.data, np.uint16)[:] = to_bf16(np.ascontiguousarray(rows)).ravel()
    return tensor


def i32_tensor(*values: int) -> ov.Tensor:
    return ov.Tensor(np.array(values, np.int32))


def paged(threshold: float | None, precision: str = "bf16") -> Callable[[Shape, Inputs, int], Route]:
    def build(shape: Shape, inputs: Inputs, threads: int) -> Route:
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
        model = ov.Core().compile_model(make_model(shape, threshold, TYPES[precision]), "CPU", options)
        request = model.create_infer_request()
        n_blocks = (shape.kv + BLOCK - 1) // BLOCK
        for name in ("key_cache", "value_cache"):
            port = model.input(name)
            block = [size.get_length() for size in list(port.get_partial_shape())[1:]]
            request.set_tensor(name, ov.Tensor(port.get_element_type(), [n_blocks, *block]))

        def set_chunk(q: np.ndarray, first: int, past: int, n: int) -> None:
            """Tokens first..first+n of the case, as a sequence whose past is the `past` tokens before them."""
            blocks = range((first - past) // BLOCK, (first + n + BLOCK - 1) // BLOCK)
            for name, tensor in {
                "query": rows_tensor(q, precision),
                "key": rows_tensor(inputs.k[first : first + n], precision),
                "value": rows_tensor(inputs.v[first : first + n], precision),
                "past_lens": i32_tensor(past),
                "subsequence_begins": i32_tensor(0, n),
                "block_indices": i32_tensor(*blocks),
                "block_indices_begins": i32_tensor(0, len(blocks)),
                "max_context_len": ov.Tensor(np.array(past + n, np.int32)),
            }.items():
                request.set_tensor(name, tensor)

        past = shape.kv - shape.q
        for first in range(0, past, PIECE):  # every piece without a past: only the caches matter
            n = min(PIECE, past - first)
            set_chunk(np.zeros((n, shape.heads, shape.dim), np.float32), first, 0, n)
            request.infer()
        set_chunk(inputs.q, past, past, shape.q)
        return Route(precision, request.infer, lambda: read(request.get_output_tensor(0)).reshape(shape.q, shape.heads, shape.dim))

    return build


def read(tensor: ov.Tensor) -> np.ndarray:
    bits = tensor.data
    return from_bf16(np.frombuffer(bits, np.uint16)) if tensor.get_element_type() == ov.Type.bf16 else bits


ATTENTION = {
    "dense, PagedAttention": paged(None),
    "dense, PagedAttention, f32": paged(None, "f32"),
    "sparse, XAttention 0.25": paged(0.25),
}
