"""One attention case: its shape, the same inputs for every peer, and the float64 oracle that checks them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SEED = 5
SAMPLED_ROWS = 7

# Largest error, as a share of the largest value of the sampled rows. A mask that is off by one key is far above (see make_inputs).
BOUNDS = {"f32": 1e-3, "f16": 1e-2, "bf16": 2e-2, "int8": 4e-2}


@dataclass(frozen=True)
class Shape:
    """A chunk of q tokens as the last of kv keys."""

    text: str
    q: int
    kv: int
    heads: int
    kv_heads: int
    dim: int

    @property
    def gflop(self) -> float:
        """Operations over the visible pairs only: q·k and p·v, two each per element."""
        pairs = self.q * (self.kv - self.q) + self.q * (self.q + 1) // 2
        return 4e-9 * self.dim * self.heads * pairs


@dataclass(frozen=True)
class Inputs:
    """Float32 arrays whose values are exact in bf16: q [q, heads, dim], k and v [kv, kv_heads, dim]."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray


@dataclass(frozen=True)
class Route:
    """One way of a peer to compute a case. output gives [q, heads, dim] of the last run."""

    precision: str
    run: Callable[[], object]
    output: Callable[[], np.ndarray]


def parse_shape(text: str) -> Shape:
    match = re.fullmatch(r"q(\d+),kv(\d+),h(\d+):(\d+),d(\d+)", text)
    if not match:
        raise ValueError(f"shape {text}: expected q1024,kv8192,h32:8,d128")
    q, kv, heads, kv_heads, dim = map(int, match.groups())
    if min(q, kv_heads, dim) == 0 or q > kv or heads == 0 or heads % kv_heads:
        raise ValueError(f"shape {text}: q is at most kv, and the heads are a multiple of the KV heads")
    return Shape(text, q, kv, heads, kv_heads, dim)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bf16 numbers."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def make_inputs(shape: Shape) -> Inputs:
    """Normal numbers; a query also looks at its own key, the last visible one, and at the next, the first hidden one. Both have a
    weight that changes the result visibly, so that a mask that is off by one cannot pass."""
    rng = np.random.default_rng(SEED)
    k, v = (from_bf16(to_bf16(rng.standard_normal((shape.kv, shape.kv_heads, shape.dim), np.float32))) for _ in range(2))
    q = rng.standard_normal((shape.q, shape.heads, shape.dim), np.float32)
    own = np.arange(shape.kv - shape.q, shape.kv)
    group = shape.heads // shape.kv_heads
    pull = 8 / np.sqrt(shape.dim, dtype=np.float32)
    for neighbor in (own, np.minimum(own + 1, shape.kv - 1)):
        q += pull * np.repeat(k[neighbor], group, axis=1)
    return Inputs(from_bf16(to_bf16(q)), k, v)


def oracle(shape: Shape, inputs: Inputs, row: int) -> np.ndarray:
    """Attention of one query row in float64, [heads, dim]."""
    seen = shape.kv - shape.q + row + 1
    group = shape.heads // shape.kv_heads
    out = np.empty((shape.heads, shape.dim))
    for kv_head in range(shape.kv_heads):
        heads = slice(kv_head * group, (kv_head + 1) * group)
        k, v = (x[:seen, kv_head].astype(np.float64) for x in (inputs.k, inputs.v))
        scores = inputs.q[row, heads].astype(np.float64) @ k.T / np.sqrt(shape.dim)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[heads] = weights @ v / weights.sum(axis=1, keepdims=True)
    return out


class Check:
    """The oracle's rows of a case, computed once for all routes."""

    def __init__(self, shape: Shape, inputs: Inputs):
        self.rows = sorted({round(i * (shape.q - 1) / (SAMPLED_ROWS - 1)) for i in range(SAMPLED_ROWS)})
        self.truth = np.stack([oracle(shape, inputs, row) for row in self.rows])

    def error(self, output: np.ndarray) -> float:
        """Largest difference as a share of the largest true value."""
        difference = np.abs(output[self.rows].astype(np.float64) - self.truth).max()
        return float(difference / np.abs(self.truth).max())
