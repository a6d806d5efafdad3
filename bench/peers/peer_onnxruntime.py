"""onnxruntime: the GroupQueryAttention operator in f32, past and present in one buffer."""

import numpy as np
import onnx
import onnxruntime as ort
from case import Inputs, Route, Shape
from onnx import TensorProto, helper


def version() -> str:
    return f"onnxruntime {ort.__version__}"


def make_model(shape: Shape) -> bytes:
    node = helper.make_node(
        "GroupQueryAttention",
        ["query", "key", "value", "past_key", "past_value", "last_key", "n_keys"],
        ["output", "present_key", "present_value"],
        domain="com.microsoft",
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
    )
    cache = [1, shape.kv_heads, shape.kv, shape.dim]
    query, row = [1, shape.q, shape.heads * shape.dim], [1, shape.q, shape.kv_heads * shape.dim]
    tensors = {"query": query, "key": row, "value": row, "past_key": cache, "past_value": cache}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in tensors.items()]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT32, [1]) for name in ("last_key", "n_keys")]
    results = {"output": query, "present_key": cache, "present_value": cache}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in results.items()]
    graph = helper.make_graph([node], "attention", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(onnx.IR_VERSION, 10)).SerializeToString()


def group_query_attention(shape: Shape, inputs: Inputs, threads: int) -> Route:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # no spinning between runs
    session = ort.InferenceSession(make_model(shape), options, providers=["CPUExecutionProvider"])
    past = shape.kv - shape.q
    rows = {"query": inputs.q, "key": inputs.k[past:], "value": inputs.v[past:]}
    values = {name: np.ascontiguousarray(x).reshape(1, shape.q, -1) for name, x in rows.items()}
    values |= {"last_key": np.array([shape.kv - 1], np.int32), "n_keys": np.array([shape.kv], np.int32)}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    for name, x in (("key", inputs.k), ("value", inputs.v)):
        cache = np.ascontiguousarray(x.transpose(1, 0, 2))[None]
        cache[:, :, past:] = 0  # the operator appends the chunk
        buffer = ort.OrtValue.ortvalue_from_numpy(cache)
        binding.bind_ortvalue_input(f"past_{name}", buffer)
        binding.bind_ortvalue_output(f"present_{name}", buffer)
    output = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(values["query"]))
    binding.bind_ortvalue_output("output", output)

    def read() -> np.ndarray:
        return output.numpy().reshape(shape.q, shape.heads, shape.dim)

    return Route("f32", lambda: session.run_with_iobinding(binding), read)


ATTENTION = {"dense, GroupQueryAttention": group_query_attention}
