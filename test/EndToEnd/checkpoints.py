"""Seeded random checkpoints in the formats that llm-import reads.

Weights are made in float32 under their Hugging Face names; the writers round
them to the format asked for. What a file then holds, load.py tells.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np
import safetensors
from gguf import GGMLQuantizationType as Format

Weights = dict[str, np.ndarray]

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


CONTEXT = 512
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclass(frozen=True)
class Shape:
    """A model's type and sizes; `rope_scaling` as Hugging Face's config.json
    has it, as `attention_bias`: of the output too (qwen2 has its own rule)."""

    model_type: str = "llama"
    layers: int = 2
    hidden: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 160
    vocab: int = 331
    tied: bool = False
    attention_bias: bool = False
    rms_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None


def make_weights(shape: Shape, seed: int) -> Weights:
    """Matrices that keep the variance of what goes through them."""
    random = np.random.default_rng(seed)
    weights: Weights = {}

    def matrix(name: str, rows: int, columns: int, scale: float = 1) -> None:
        values = random.standard_normal((rows, columns), np.float32)
        weights[name + ".weight"] = values * np.float32(scale / columns**0.5)

    def norm(name: str) -> None:
        values = random.standard_normal(shape.hidden, np.float32)
        weights[name + ".weight"] = 1 + values / np.float32(8)

    def bias(name: str, size: int) -> None:
        """As large as what it is added to."""
        weights[name + ".bias"] = random.standard_normal(size, np.float32)

    def head_norm(name: str) -> None:
        """Far from 1, of either sign."""
        values = random.choice([-2.0, -0.5, 0.5, 2.0], shape.head_dim)
        weights[name + ".weight"] = values.astype(np.float32)

    # A tied head must not find the token just read in the residual stream.
    scale = 1 if shape.tied else shape.hidden**0.5
    matrix("model.embed_tokens", shape.vocab, shape.hidden, scale)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        norm(prefix + "input_layernorm")
        matrix(prefix + "self_attn.q_proj", query, shape.hidden, scale=2)
        matrix(prefix + "self_attn.k_proj", key, shape.hidden)
        matrix(prefix + "self_attn.v_proj", key, shape.hidden)
        matrix(prefix + "self_attn.o_proj", shape.hidden, query)
        if shape.attention_bias or shape.model_type == "qwen2":
            bias(prefix + "self_attn.q_proj", query)
            bias(prefix + "self_attn.k_proj", key)
            bias(prefix + "self_attn.v_proj", key)
        if shape.attention_bias:
            bias(prefix + "self_attn.o_proj", shape.hidden)
        if shape.model_type == "qwen3":
            head_norm(prefix + "self_attn.q_norm")
            head_norm(prefix + "self_attn.k_norm")
        norm(prefix + "post_attention_layernorm")
        matrix(prefix + "mlp.gate_proj", shape.ffn, shape.hidden)
        matrix(prefix + "mlp.up_proj", shape.ffn, shape.hidden)
        matrix(prefix + "mlp.down_proj", shape.hidden, shape.ffn)
    norm("model.norm")
    if not shape.tied:
        matrix("lm_head", shape.vocab, shape.hidden)
    return weights


# Hugging Face


def to_bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    return to_bf16(values) if dtype == "bfloat16" else values.astype(dtype)


def write_shard(path: Path, tensors: Weights, dtype: str) -> None:
    """Tensors as `stored`; numpy itself has no bfloat16 to save by name."""
    specs = {
        name: safetensors.TensorSpec(
            dtype=dtype,
            shape=values.shape,
            data_ptr=values.ctypes.data,
            data_len=values.nbytes,
        )
        for name, values in tensors.items()
    }
    safetensors.serialize_file(specs, path)


def write_safetensors(
    directory: Path, weights: Weights, dtype: str, shards: int
) -> None:
    tensors = {name: stored(values, dtype) for name, values in weights.items()}
    if shards == 1:
        return write_shard(directory / "model.safetensors", tensors, dtype)
    where: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        write_shard(directory / name, part, dtype)
        where.update(dict.fromkeys(part, name))
    index = {"metadata": {}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def family_config(shape: Shape) -> dict[str, Any]:
    """What the files of a model type have beyond the sizes."""
    if shape.model_type == "llama":
        return {"attention_bias": shape.attention_bias, "mlp_bias": False}
    if shape.model_type == "mistral":
        return {"sliding_window": None}
    unused = {"use_sliding_window": False, "max_window_layers": 1}
    if shape.model_type == "qwen2":
        return {"sliding_window": CONTEXT // 8, **unused}
    bias = {"attention_bias": shape.attention_bias, "head_dim": shape.head_dim}
    return {"sliding_window": None, **unused, **bias}


def hugging_face_config(shape: Shape, dtype: str) -> dict[str, Any]:
    config = {
        "architectures": [CLASSES[shape.model_type]],
        "model_type": shape.model_type,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": shape.rms_epsilon,
        "rope_theta": shape.rope_theta,
        "rope_scaling": shape.rope_scaling,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": dtype,
        **family_config(shape),
    }
    if shape.hidden != shape.heads * shape.head_dim:
        config["head_dim"] = shape.head_dim
    return config


def as_transformers5(config: dict[str, Any]) -> dict[str, Any]:
    """The same facts under the names that transformers 5 writes."""
    config = dict(config)
    config["dtype"] = config.pop("torch_dtype")
    scaling = config.pop("rope_scaling") or {"rope_type": "default"}
    config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), **scaling}
    return config


def write_hugging_face(
    directory: Path,
    config: dict[str, Any],
    weights: Weights,
    dtype: str = "float32",
    shards: int = 1,
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    write_safetensors(directory, weights, dtype, shards)
    return directory


# GGUF


def gguf_name(name: str) -> str:
    """blk.3.attn_q.weight for model.layers.3.self_attn.q_proj.weight."""
    stem, _, suffix = name.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, stem = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{GGUF_NAMES.get(stem, stem)}.{suffix}"
    return f"{GGUF_NAMES.get(stem, stem)}.{suffix}"


def pair_adjacent(values: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows i and i + D/2 of each head of q or k become rows 2i and 2i + 1."""
    halves = values.reshape(-1, 2, head_dim // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update({byte: chr(0x100 + i) for i, byte in enumerate(others)})
    return [symbols[byte] for byte in range(256)]


def add_vocabulary(
    writer: gguf.GGUFWriter,
    size: int,
    model: str,
    pre_tokenizer: str,
    unused_bytes: bytes,
) -> None:
    """Byte-level BPE: three special tokens, the bytes, merges of two letters."""
    merges = [(a, b) for a in "theranoisd" for b in "theranoisd"]
    special = ["<unk>", "<s>", "</s>"]
    merges = merges[: size - 256 - len(special)]
    tokens = special + byte_symbols() + [a + b for a, b in merges]
    kinds = [gguf.TokenType.CONTROL] * len(special)
    kinds += [gguf.TokenType.NORMAL] * (size - len(special))
    for byte in unused_bytes:
        kinds[len(special) + byte] = gguf.TokenType.UNUSED
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def add_config(writer: gguf.GGUFWriter, shape: Shape, context: int) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.rms_epsilon)
    writer.add_rope_freq_base(shape.rope_theta)
    if not shape.model_type.startswith("qwen"):
        writer.add_rope_dimension_count(shape.head_dim)
        writer.add_vocab_size(shape.vocab)
    if shape.hidden != shape.heads * shape.head_dim or shape.model_type == "qwen3":
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)


def random_blocks(values: np.ndarray, kind: Format, seed: int) -> np.ndarray:
    """Random bytes as blocks of 256 weights that spread as `values` do.

    The package only reads these formats. With all bits at random, weights of
    q4_K are about d * 257, of q5_K d * 517 and of q6_K d * 1367 off zero, where
    minimums take away what the others have too much.
    """
    spread, minimum = {
        Format.Q4_K: (257, 7.5),
        Format.Q5_K: (517, 15.5),
        Format.Q6_K: (1367, 0),
    }[kind]
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = values.shape
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows, columns // weights, size), np.uint8)
    d = values.reshape(rows, -1, weights).std(axis=-1) / spread

    def put(numbers: np.ndarray, at: int) -> None:
        halves = numbers.astype(np.float16)[..., np.newaxis]
        blocks[..., at : at + 2] = halves.view(np.uint8)

    if kind == Format.Q6_K:
        put(d, size - 2)
    else:
        put(d, 0)
        put(minimum * d, 2)
    return blocks.reshape(rows, -1)


def quantize(values: np.ndarray, kind: Format, seed: int) -> np.ndarray:
    if kind in (Format.Q4_K, Format.Q5_K, Format.Q6_K):
        return random_blocks(values, kind, seed)
    return gguf.quants.quantize(values.astype(np.float32), kind)


def write_gguf(
    path: Path,
    shape: Shape,
    weights: Weights,
    format_of: Callable[[str], Format],
    *,
    architecture: str | None = None,
    tokenizer: str = "gpt2",
    pre_tokenizer: str = "gpt-2",
    unused_bytes: bytes = b"",
    context: int = 512,
) -> Path:
    """`format_of` chooses by the GGUF name; vectors stay in f32. The architecture
    is that of the model type if none is given."""
    if architecture is None:
        architecture = shape.model_type.replace("mistral", "llama")
    adjacent = ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")
    writer = gguf.GGUFWriter(path, architecture)
    add_config(writer, shape, context)
    add_vocabulary(writer, shape.vocab, tokenizer, pre_tokenizer, unused_bytes)
    for seed, (source, values) in enumerate(weights.items()):
        name = gguf_name(source)
        if architecture == "llama" and source.endswith(adjacent):
            values = pair_adjacent(values, shape.head_dim)
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
            continue
        kind = format_of(name)
        data = quantize(values, kind, seed)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
