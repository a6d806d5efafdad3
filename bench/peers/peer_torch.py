"""PyTorch: scaled_dot_product_attention and flex_attention, over every causal route that a chunk at the end can take."""

from collections.abc import Callable

import numpy as np
import torch
from case import Inputs, Route, Shape
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def version() -> str:
    return f"torch {torch.__version__}"


def explicit_mask(shape: Shape, dtype: torch.dtype) -> Attend:
    last_seen = torch.arange(shape.kv - shape.q, shape.kv)
    hidden = torch.arange(shape.kv)[None, :] > last_seen[:, None]
    mask = torch.zeros(shape.q, shape.kv, dtype=dtype).masked_fill_(hidden, -torch.inf)
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def lower_right(shape: Shape, _: torch.dtype) -> Attend:
    bias = causal_lower_right(shape.q, shape.kv)
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)


def flex(shape: Shape, _: torch.dtype) -> Attend:
    past = shape.kv - shape.q
    mask = create_block_mask(lambda b, h, i, j: j <= i + past, None, None, shape.q, shape.kv, device="cpu")
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def route(make: Callable[[Shape, torch.dtype], Attend], precision: str) -> Callable[[Shape, Inputs, int], Route]:
    def build(shape: Shape, inputs: Inputs, threads: int) -> Route:
        torch.set_num_threads(threads)
        dtype = PRECISIONS[precision]
        q, k, v = (torch.from_numpy(x).transpose(0, 1)[None].to(dtype).contiguous() for x in (inputs.q, inputs.k, inputs.v))
        attend = make(shape, dtype)
        last: list[torch.Tensor] = []

        def run() -> None:
            with torch.inference_mode():
                last[:] = [attend(q, k, v)]

        def output() -> np.ndarray:
            return last[0][0].transpose(0, 1).float().numpy()

        return Route(precision, run, output)

    return build


ATTENTION = {
    f"dense, {name} {precision}": route(make, precision)
    for precision in ("bf16", "f32")
    for name, make in {"SDPA, mask": explicit_mask, "SDPA, causal_lower_right": lower_right, "flex_attention": flex}.items()
}
