"""OpenVINO GenAI: the whole model out of the GGUF file, dense and with its sparse modes."""

from collections.abc import Callable, Sequence

import numpy as np
import openvino as ov
import openvino_genai as genai

CACHE_GB = 1  # KV cache of a pipeline


def version() -> str:
    return f"openvino-genai {genai.__version__.split('-')[0]}"


def pipeline(chunk: int | None, sparse: dict | None = None, **options: str) -> Callable[[str, int, int], Callable[[Sequence[int]], int]]:
    """Continuous batching over PagedAttention, by default with the library's own precisions; chunk None: the whole prompt at once."""

    def build(model: str, longest: int, threads: int) -> Callable[[Sequence[int]], int]:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = chunk or longest
        scheduler.cache_size = CACHE_GB
        if sparse:
            scheduler.use_sparse_attention = True
            scheduler.sparse_attention_config = genai.SparseAttentionConfig(**sparse)
        settings = {"ATTENTION_BACKEND": "PA", "INFERENCE_NUM_THREADS": threads, **options}
        pipe = genai.LLMPipeline(model, "CPU", scheduler_config=scheduler, **settings)
        greedy = genai.GenerationConfig(max_new_tokens=1, do_sample=False, ignore_eos=True)

        def first_token(ids: Sequence[int]) -> int:
            return pipe.generate(ov.Tensor(np.array([ids], np.int64)), greedy).tokens[0][0]

        return first_token

    return build


PREFILL = {
    "dense, chunks of 1024": pipeline(1024),
    "dense, chunks of 1024, f32": pipeline(1024, INFERENCE_PRECISION_HINT="f32"),
    "dense, whole prompt": pipeline(None),
    "sparse, TRISHAPE": pipeline(None, {"mode": genai.SparseAttentionMode.TRISHAPE}),
    "sparse, XATTENTION 0.5": pipeline(None, {"mode": genai.SparseAttentionMode.XATTENTION, "xattention_threshold": 0.5}),
}
