"""Holds the reference itself to what others computed, and to itself."""

import re
from dataclasses import replace

import numpy as np
from gguf import GGMLQuantizationType as Format

import checkpoints
import suite
from load import read_checkpoint
from reference import forward, log_likelihoods
from tools import expected, scratch, shared, smollm2

IDS = [int(i) for i in np.random.default_rng(7).integers(0, 331, 50)]


def check_stories(name: str) -> None:
    """Greedy ids and their likelihood as llama2.c's run.c gives them."""
    folder = shared("models/stories260K")
    text = (folder / f"expected-stories260K-{name}.txt").read_text()

    def find(pattern: str) -> str:
        match = re.search(pattern, text)
        assert match, pattern
        return match[1]

    prompt = [int(word) for word in find(r"prompt_ids: (.*)").split()]
    ids = [1] + [int(word) for word in find(r"greedy_ids.*: (.*)").split()]
    logits = forward(*read_checkpoint(folder), ids)
    start = len(prompt) - 1
    assert ids[: len(prompt)] == prompt
    assert logits[start:-1].argmax(axis=-1).tolist() == ids[len(prompt) :]
    likelihood = log_likelihoods(logits, ids)[start:].mean()
    assert abs(likelihood - float(find(r"mean_logprob.*: (\S+)"))) < 1e-6


@suite.check("reference-stories260K-1")
def stories_1() -> None:
    check_stories("1")


@suite.check("reference-stories260K-2")
def stories_2() -> None:
    check_stories("2")


@suite.check("reference-smollm2")
def smollm2_chat() -> None:
    """Adjacent pairs and quantized weights: the whole answer, in one pass."""
    answer = expected("chat-1")
    ids = answer.prompt_ids + answer.ids
    logits = forward(*read_checkpoint(smollm2()), ids)
    assert logits[len(answer.prompt_ids) - 1 : -1].argmax(-1).tolist() == answer.ids


@suite.check("reference-formats")
def formats() -> None:
    """A checkpoint means the same as GGUF and as a Hugging Face directory."""
    biased = checkpoints.Shape(attention_bias=True)
    for shape, dtype, shards, kind in [
        (checkpoints.Shape(), "float32", 3, Format.F32),
        (biased, "float16", 1, Format.F16),
        (replace(biased, model_type="qwen3"), "bfloat16", 2, Format.BF16),
        (checkpoints.Shape(model_type="qwen2"), "float32", 1, Format.F32),
    ]:
        folder = scratch()
        weights = checkpoints.make_weights(shape, seed=1)
        config = checkpoints.hugging_face_config(shape, dtype)
        directory = checkpoints.write_hugging_face(
            folder / dtype, config, weights, dtype, shards
        )
        one = read_checkpoint(directory)
        file = checkpoints.write_gguf(
            folder / f"{dtype}.gguf", shape, dict(one[1]), lambda name: kind
        )
        difference = forward(*one, IDS) - forward(*read_checkpoint(file), IDS)
        assert np.abs(difference).max() < 1e-10, (shape, dtype)


suite.main()
