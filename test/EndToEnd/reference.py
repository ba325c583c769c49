"""The forward pass of Llama and its kin in float64, written from the papers.

It shares no code with what it judges: weights come in as arrays under their
Hugging Face names, logits of all positions go out. A linear layer has a bias,
and a head of q or k a norm, where there is one among the weights. Notation: T tokens, H query
heads, G key/value heads, D head_dim, V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretching of slow rotations."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def divisors(self, frequencies: Array) -> Array:
        """What each inverse frequency is to be divided by."""
        turns = self.original_context * frequencies / (2 * np.pi)
        span = self.high_freq_factor - self.low_freq_factor
        keep = np.clip((turns - self.low_freq_factor) / span, 0, 1)
        return 1 / (keep + (1 - keep) / self.factor)


@dataclass(frozen=True)
class Config:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_epsilon: float
    rope_theta: float
    rope_pairing: Literal["half", "adjacent"] = "half"
    rope_scaling: Llama3Scaling | None = None


def rope_frequencies(config: Config, weights: Weights) -> Array:
    """Radians per position [D/2]; a GGUF file may bring its own divisors."""
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = config.rope_theta**-exponents
    if "rope_freqs.weight" in weights:
        return frequencies / weights["rope_freqs.weight"].astype(np.float64)
    if config.rope_scaling:
        return frequencies / config.rope_scaling.divisors(frequencies)
    return frequencies


def rotate(x: Array, angles: Array, pairing: str) -> Array:
    """Rotates the pairs of x [T, heads, D] by angles [T, D/2]."""
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    result = np.empty_like(x)
    half = x.shape[-1] // 2
    first, second = (
        (np.s_[..., :half], np.s_[..., half:])
        if pairing == "half"
        else (np.s_[..., 0::2], np.s_[..., 1::2])
    )
    result[first] = x[first] * cos - x[second] * sin
    result[second] = x[second] * cos + x[first] * sin
    return result


def rms_norm(x: Array, weight: np.ndarray, epsilon: float) -> Array:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def attend(q: Array, k: Array, v: Array) -> Array:
    """Causal attention: q [T, H, D], k and v [T, G, D]; returns [T, H * D]."""
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k, optimize=True) / np.sqrt(head_dim)
    scores[:, np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", scores, v, optimize=True).reshape(tokens, -1)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def forward(config: Config, weights: Weights, ids: Sequence[int]) -> Array:
    """Logits after each of `ids`: [T, V]."""
    tokens = len(ids)
    angles = np.outer(np.arange(tokens), rope_frequencies(config, weights))
    embedding = weights["model.embed_tokens.weight"]
    x = embedding[np.asarray(ids)].astype(np.float64)

    def norm(name: str) -> Array:
        return rms_norm(x, weights[name], config.rms_epsilon)

    for layer in range(config.layers):
        prefix = f"model.layers.{layer}."

        def linear(name: str, y: Array) -> Array:
            matrix = weights[f"{prefix}{name}.weight"].astype(np.float64)
            return y @ matrix.T + weights.get(f"{prefix}{name}.bias", 0)

        def heads(name: str, y: Array, count: int) -> Array:
            return linear(name, y).reshape(tokens, count, config.head_dim)

        def head_norm(name: str, y: Array) -> Array:
            weight = weights.get(f"{prefix}{name}.weight")
            return y if weight is None else rms_norm(y, weight, config.rms_epsilon)

        h = norm(prefix + "input_layernorm.weight")
        q = heads("self_attn.q_proj", h, config.heads)
        k = heads("self_attn.k_proj", h, config.kv_heads)
        v = heads("self_attn.v_proj", h, config.kv_heads)
        q = rotate(head_norm("self_attn.q_norm", q), angles, config.rope_pairing)
        k = rotate(head_norm("self_attn.k_norm", k), angles, config.rope_pairing)
        x = x + linear("self_attn.o_proj", attend(q, k, v))
        h = norm(prefix + "post_attention_layernorm.weight")
        gated = silu(linear("mlp.gate_proj", h)) * linear("mlp.up_proj", h)
        x = x + linear("mlp.down_proj", gated)
    head = weights.get("lm_head.weight", embedding)
    return norm("model.norm.weight") @ head.astype(np.float64).T


def greedy(
    config: Config, weights: Weights, prompt: list[int], count: int
) -> list[int]:
    """The `count` ids that follow, each the likeliest."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(forward(config, weights, ids)[-1].argmax()))
    return ids[len(prompt) :]


def log_likelihoods(logits: Array, ids: Sequence[int]) -> Array:
    """log P(ids[t+1] | ids[..t]) in nats for all t but the last: [T - 1]."""
    rows = logits[:-1]
    top = rows.max(axis=-1)
    total = top + np.log(np.exp(rows - top[:, None]).sum(axis=-1))
    return rows[np.arange(len(rows)), np.asarray(ids[1:])] - total
