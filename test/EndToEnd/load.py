"""Reads checkpoints for the reference, by the packages of their formats."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors

from checkpoints import GGUF_NAMES
from reference import Config, Llama3Scaling, Weights


def widen(tensor: dict[str, Any]) -> np.ndarray:
    data, shape = tensor["data"], tensor["shape"]
    if tensor["dtype"] == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    dtype = {"F32": np.float32, "F16": np.float16}[tensor["dtype"]]
    return np.frombuffer(data, dtype).reshape(shape)


def read_scaling(parameters: dict[str, Any]) -> Llama3Scaling | None:
    if parameters.get("rope_type", "default") == "default":
        return None
    assert parameters["rope_type"] == "llama3", parameters
    return Llama3Scaling(
        parameters["factor"],
        parameters["low_freq_factor"],
        parameters["high_freq_factor"],
        parameters["original_max_position_embeddings"],
    )


def read_hugging_face(directory: Path) -> tuple[Config, Weights]:
    config = json.loads((directory / "config.json").read_text())
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads = config["num_attention_heads"]
    weights = {
        name: widen(tensor)
        for file in sorted(directory.glob("*.safetensors"))
        for name, tensor in safetensors.deserialize(file.read_bytes())
    }
    return (
        Config(
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim", config["hidden_size"] // heads),
            rms_epsilon=config["rms_norm_eps"],
            rope_theta=rope.get("rope_theta") or config["rope_theta"],
            rope_scaling=read_scaling(rope),
        ),
        weights,
    )


def hugging_face_name(name: str) -> str:
    """model.layers.3.self_attn.q_proj.weight for blk.3.attn_q.weight."""
    stems = {stem: source for source, stem in GGUF_NAMES.items()}
    stem, _, suffix = name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, stem = stem.split(".")
        return f"model.layers.{layer}.{stems[stem]}.{suffix}"
    return f"{stems.get(stem, stem)}.{suffix}"


def read_gguf(path: Path) -> tuple[Config, Weights]:
    reader = gguf.GGUFReader(path)
    family = reader.fields["general.architecture"].contents()

    def field(name: str, default: Any = None) -> Any:
        found = reader.fields.get(f"{family}.{name}")
        assert found or default is not None, name
        return found.contents() if found else default

    heads = field("attention.head_count")

    weights = {
        hugging_face_name(tensor.name): gguf.quants.dequantize(
            tensor.data, tensor.tensor_type
        )
        for tensor in reader.tensors
    }
    return (
        Config(
            layers=field("block_count"),
            heads=heads,
            kv_heads=field("attention.head_count_kv"),
            head_dim=field("attention.key_length", field("embedding_length") // heads),
            rms_epsilon=field("attention.layer_norm_rms_epsilon"),
            rope_theta=field("rope.freq_base"),
            rope_pairing="adjacent" if family == "llama" else "half",
        ),
        weights,
    )


def read_checkpoint(path: Path) -> tuple[Config, Weights]:
    return read_hugging_face(path) if path.is_dir() else read_gguf(path)
