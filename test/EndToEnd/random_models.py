"""Seeded random models of many shapes and formats against the reference.

The bar: over all rows of logits, the largest difference is at most 1e-4 of the
largest logit, with f32 weights and an f32 cache; what native weights round may
cost as much as it says there. What a file holds, the packages of its format
tell the reference.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Callable

import numpy as np
from gguf import GGMLQuantizationType as Format

import checkpoints
import suite
from checkpoints import Shape, Weights
from load import read_checkpoint
from reference import Llama3Scaling, forward, greedy
from tools import EXACT, logits, run, scratch

PROMPT_TOKENS = 41
GREEDY_TOKENS = 12
TOLERANCE = 1e-4
SMALL_STEPS = ("--prefill-chunk", 7, "--block-size", 3)

Writer = Callable[[Path, Shape, Weights], Path]

# Scaling that begins within the prompt.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# Head dimensions and groups of query heads; hidden is no multiple of the heads
# except in the first, where a file leaves head_dim to be derived.
MHA_32 = Shape(hidden=128, heads=4, kv_heads=4, head_dim=32, ffn=173, tied=True)
GROUPS_OF_3 = Shape(hidden=96, heads=6, kv_heads=2, head_dim=64, ffn=173)
MQA_80 = Shape(hidden=128, heads=4, kv_heads=1, head_dim=80, ffn=160, layers=3)
K_QUANTS = Shape(hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=512, layers=4)
MQA_128 = Shape(hidden=64, heads=8, kv_heads=1, head_dim=128, ffn=192, tied=True)

# Shaped like SmolLM, Qwen2.5-0.5B and 7B, Qwen3-0.6B, and Mistral-Nemo.
LLAMA_BIAS = replace(GROUPS_OF_3, attention_bias=True)
QWEN2 = Shape(
    model_type="qwen2",
    hidden=192,
    heads=6,
    rms_epsilon=1e-6,
    rope_theta=1e6,
)
QWEN2_TIED = replace(QWEN2, hidden=224, heads=14, head_dim=16, tied=True)
QWEN3 = replace(QWEN2, model_type="qwen3", hidden=96, heads=4, head_dim=128, tied=True)
QWEN3_BIAS = replace(QWEN3, tied=False, attention_bias=True)
MISTRAL = Shape(
    model_type="mistral", hidden=160, kv_heads=1, head_dim=128, rope_theta=1e6
)


@dataclass(frozen=True)
class Case:
    shape: Shape
    write: Writer
    arguments: tuple[object, ...] = field(default=())
    numbers: tuple[str, ...] = tuple(EXACT)
    tolerance: float = TOLERANCE
    held: Callable[[Weights], Weights] = lambda weights: weights


def hugging_face(dtype: str, shards: int = 1, transformers5: bool = False) -> Writer:
    def write(folder: Path, shape: Shape, weights: Weights) -> Path:
        config = checkpoints.hugging_face_config(shape, dtype)
        if transformers5:
            config = checkpoints.as_transformers5(config)
        return checkpoints.write_hugging_face(
            folder / "model", config, weights, dtype, shards
        )

    return write


def gguf_file(format_of: Callable[[str], Format]) -> Writer:
    def write(folder: Path, shape: Shape, weights: Weights) -> Path:
        path = folder / "model.gguf"
        return checkpoints.write_gguf(path, shape, weights, format_of)

    return write


def gguf_all(kind: Format) -> Writer:
    return gguf_file(lambda name: kind)


def native(activations: str) -> tuple[str, ...]:
    """Weights in blocks; bf16 where a tensor of a matrix is not quantized."""
    kinds = ("--weights-as", "native", "--activations", activations)
    return (*kinds, "--cache-dtype", "f32")


def mixed_format(name: str) -> Format:
    """As files come: a better format here and there, in some layers only."""
    if name.startswith(("token_embd", "output")):
        return Format.Q8_0
    if "attn_v" in name or "ffn_down" in name:
        return Format.Q8_0 if name.startswith("blk.1.") else Format.Q4_0
    return Format.F16 if name == "blk.2.attn_q.weight" else Format.Q4_1


def mixed_k_quants(name: str) -> Format:
    """As files of Q4_K_M: half of the layers have two matrices of q6_K."""
    if name.startswith("output"):
        return Format.Q6_K
    better = name.startswith(("blk.0.", "blk.3."))
    if better and ("attn_v" in name or "ffn_down" in name):
        return Format.Q6_K
    return Format.Q4_K


def as_q8_0(values: np.ndarray) -> np.ndarray:
    """Of each 32 weights the largest is 127 steps, which are rounded to f16."""
    blocks = values.reshape(-1, 32).astype(np.float64)
    steps = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    steps = steps.astype(np.float16).astype(np.float64)
    integers = np.divide(blocks, steps, where=steps > 0, out=np.zeros_like(blocks))
    return (np.round(integers) * steps).reshape(values.shape).astype(np.float32)


def as_bf16(values: np.ndarray) -> np.ndarray:
    bits = checkpoints.to_bf16(values).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(values.shape)


def held_of_k_quants(weights: Weights) -> Weights:
    """What mixed_k_quants is computed with, but for the scales of q4_K.

    The q, k and v of a layer are one matrix: with a v of q6_K all are of q8_0.
    Beside activations of f32, weights are rounded to bf16.
    """

    def held(name: str, values: np.ndarray) -> np.ndarray:
        better = name.startswith(("model.layers.0.", "model.layers.3."))
        parts = ("q_proj", "k_proj", "v_proj", "down_proj")
        q8_0 = better and any(part in name for part in parts)
        if values.ndim == 1:
            return values
        return as_bf16(as_q8_0(values) if q8_0 or "lm_head" in name else values)

    return {name: held(name, values) for name, values in weights.items()}


def mixed_five_bits(name: str) -> Format:
    if name.startswith(("output", "token_embd")):
        return Format.Q5_K
    return Format.Q5_0 if "attn" in name else Format.Q5_1


def gguf_with_divisors(folder: Path, shape: Shape, weights: Weights) -> Path:
    """Llama 3's scaling the way that GGUF files bring it: as a tensor."""
    scaling = Llama3Scaling(8, 1, 4, 32)
    exponents = np.arange(0, shape.head_dim, 2) / shape.head_dim
    divisors = scaling.divisors(shape.rope_theta**-exponents)
    weights = {**weights, "rope_freqs.weight": divisors.astype(np.float32)}
    return gguf_all(Format.F32)(folder, shape, weights)


BF16 = ("--weights-as", "bf16", "--cache-dtype", "f32")
BF16_EXACT = (*BF16, "--activations", "f32")
SCALED = replace(MQA_80, rope_scaling=LLAMA3)

CASES = {
    "hf-f32-derived-head-dim": Case(MHA_32, hugging_face("float32")),
    "hf-f16-two-shards": Case(GROUPS_OF_3, hugging_face("float16", 2), SMALL_STEPS),
    "hf-bf16-llama3-three-shards": Case(SCALED, hugging_face("bfloat16", 3)),
    "hf-transformers5": Case(MQA_128, hugging_face("float32", transformers5=True)),
    "hf-transformers5-llama3": Case(
        SCALED, hugging_face("float16", transformers5=True), SMALL_STEPS
    ),
    "gguf-f32-odd-ffn": Case(GROUPS_OF_3, gguf_all(Format.F32)),
    "gguf-f16": Case(MHA_32, gguf_all(Format.F16), SMALL_STEPS),
    "gguf-bf16": Case(MQA_80, gguf_all(Format.BF16)),
    "gguf-q8_0": Case(MQA_128, gguf_all(Format.Q8_0), SMALL_STEPS),
    "gguf-q4_0": Case(MQA_80, gguf_all(Format.Q4_0), SMALL_STEPS),
    "gguf-q4_1": Case(replace(GROUPS_OF_3, ffn=160), gguf_all(Format.Q4_1)),
    "gguf-mixed": Case(MQA_80, gguf_file(mixed_format), SMALL_STEPS),
    "gguf-rope-freqs": Case(MQA_80, gguf_with_divisors),
    "gguf-native-q8_0": Case(
        MQA_128, gguf_all(Format.Q8_0), (), native("int8"), tolerance=5e-2
    ),
    "gguf-native-mixed": Case(
        MQA_80, gguf_file(mixed_format), SMALL_STEPS, native("int8"), tolerance=3e-2
    ),
    "gguf-native-mixed-f32": Case(
        MQA_80, gguf_file(mixed_format), (), native("f32"), tolerance=1.2e-2
    ),
    "hf-llama-bias": Case(LLAMA_BIAS, hugging_face("float32")),
    "hf-mistral": Case(MISTRAL, hugging_face("float16", 2), SMALL_STEPS),
    "hf-mistral-bf16": Case(MISTRAL, hugging_face("bfloat16"), (), BF16_EXACT),
    "hf-qwen2": Case(QWEN2, hugging_face("float32"), SMALL_STEPS),
    "hf-qwen2-tied": Case(QWEN2_TIED, hugging_face("float32", transformers5=True)),
    "hf-qwen2-bf16": Case(QWEN2, hugging_face("bfloat16", 3), (), BF16_EXACT),
    "hf-qwen3": Case(QWEN3, hugging_face("float32"), SMALL_STEPS),
    "hf-qwen3-bias": Case(QWEN3_BIAS, hugging_face("float16", transformers5=True)),
    "hf-qwen3-bf16": Case(QWEN3, hugging_face("bfloat16"), (), BF16_EXACT),
    "gguf-llama-bias": Case(LLAMA_BIAS, gguf_all(Format.F32)),
    "gguf-mistral": Case(MISTRAL, gguf_all(Format.F16), SMALL_STEPS),
    "gguf-qwen2": Case(QWEN2, gguf_all(Format.F32)),
    "gguf-qwen2-tied": Case(QWEN2_TIED, gguf_all(Format.Q8_0), SMALL_STEPS),
    "gguf-qwen3": Case(QWEN3, gguf_all(Format.F16), SMALL_STEPS),
    "gguf-qwen3-bias": Case(QWEN3_BIAS, gguf_all(Format.Q8_0)),
    "gguf-native-mistral": Case(
        MISTRAL, gguf_all(Format.Q8_0), (), native("int8"), 3e-2
    ),
    "gguf-native-qwen2": Case(QWEN2, gguf_all(Format.Q8_0), (), native("int8"), 2e-2),
    "gguf-native-qwen3": Case(QWEN3, gguf_all(Format.Q8_0), (), native("int8"), 7e-2),
    "gguf-bf16-mistral": Case(MISTRAL, gguf_all(Format.BF16), (), BF16, 1e-2),
    "gguf-bf16-qwen2": Case(QWEN2, gguf_all(Format.BF16), (), BF16, 1e-2),
    "gguf-bf16-qwen3": Case(QWEN3, gguf_all(Format.BF16), (), BF16, 2e-2),
    "gguf-q5_0": Case(MQA_80, gguf_all(Format.Q5_0)),
    "gguf-q5_1": Case(MQA_80, gguf_all(Format.Q5_1), SMALL_STEPS),
    "gguf-q5_K": Case(K_QUANTS, gguf_all(Format.Q5_K)),
    "gguf-q4_K-q6_K": Case(K_QUANTS, gguf_file(mixed_k_quants), SMALL_STEPS),
    "gguf-native-q4_K-q6_K": Case(
        K_QUANTS, gguf_file(mixed_k_quants), (), native("int8"), tolerance=5e-2
    ),
    "gguf-native-q4_K-q6_K-f32": Case(
        K_QUANTS,
        gguf_file(mixed_k_quants),
        (),
        native("f32"),
        tolerance=5e-3,
        held=held_of_k_quants,
    ),
    "gguf-native-q5": Case(
        K_QUANTS,
        gguf_file(mixed_five_bits),
        SMALL_STEPS,
        native("int8"),
        tolerance=5e-2,
    ),
    "gguf-native-q5-f32": Case(
        K_QUANTS, gguf_file(mixed_five_bits), (), native("f32"), tolerance=1.2e-2
    ),
}


def check_greedy(model: Path, case: Case, ids: list[int], wanted: list[int]) -> None:
    prompt = ",".join(map(str, ids))
    arguments = ("--ids", prompt, "-n", GREEDY_TOKENS, "--ignore-eos")
    done = run(model, *arguments, *case.numbers, *case.arguments)
    assert done.sequence(0) == wanted, (done.sequence(0), wanted)


def check_case(name: str) -> None:
    case, seed = CASES[name], list(CASES).index(name)
    weights = checkpoints.make_weights(case.shape, seed)
    model = case.write(scratch(), case.shape, weights)
    random = np.random.default_rng(seed)
    ids = random.integers(0, case.shape.vocab, PROMPT_TOKENS).tolist()

    config, weights = read_checkpoint(model)
    wanted = forward(config, case.held(weights), ids)
    got = logits(model, ids, *case.numbers, *case.arguments)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    largest = np.abs(wanted).max()
    rows = np.abs(got - wanted).max(axis=-1) / largest
    print(f"largest logit {largest:.3f}, relative difference {rows.max():.2e}")
    assert rows.max() <= case.tolerance, f"differences by row: {rows}"
    if case.tolerance == TOLERANCE:
        check_greedy(model, case, ids, greedy(config, weights, ids, GREEDY_TOKENS))


@suite.check("random-report-of-packed-formats")
def report_of_packed_formats() -> None:
    """What is not held as in the file is told, by layers and head."""
    weights = checkpoints.make_weights(K_QUANTS, seed=1)
    model = gguf_file(mixed_k_quants)(scratch(), K_QUANTS, weights)
    done = run(model, "--ids", "1,2,3", "-n", 1, "--weights-as", "native")
    told = (
        "weights native (in the file: layers q4_K packed as q8_0 and q4_1, "
        "q6_K packed as q8_0, head q6_K packed as q8_0)"
    )
    assert told in done.stderr
    layers = done.report["weights"]["layers"]
    assert layers["packed_formats"] == {"q4_K": ["q8_0", "q4_1"], "q6_K": ["q8_0"]}
    done = run(model, "--ids", "1,2,3", "-n", 1, "--weights-as", "bf16")
    assert "weights bf16 (in the file: layers q4_K, q6_K, head q6_K)" in done.stderr


for _name in CASES:
    suite.register(f"random-{_name}", partial(check_case, _name))


suite.main()
