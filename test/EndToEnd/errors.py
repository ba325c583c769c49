"""What a user is told when something is wrong."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Format

import checkpoints
import suite
from checkpoints import Shape
from tools import EXACT, Outcome, call, run, scratch

SHAPE = Shape(hidden=96, heads=3, kv_heads=1, head_dim=32, ffn=64)


def write_gguf(**changes: Any) -> Path:
    weights = checkpoints.make_weights(SHAPE, seed=1)
    path = scratch() / "tiny.gguf"
    return checkpoints.write_gguf(
        path, SHAPE, weights, lambda name: Format.F32, **changes
    )


def write_hugging_face(dtype: str = "float32", **changes: object) -> Path:
    config = checkpoints.hugging_face_config(SHAPE, dtype) | changes
    weights = checkpoints.make_weights(SHAPE, seed=1)
    return checkpoints.write_hugging_face(scratch() / "tiny", config, weights, dtype)


def check_mentions(done: Outcome, words: list[str]) -> None:
    assert done.stdout == ""
    for word in words:
        assert word.lower() in done.stderr.lower(), f"expected {word!r} in the message"


def refuse(model: Path, *words: str) -> None:
    """Both tools refuse a model, naming what they refuse."""
    done = call("LLM_RUN", "-m", model, "--ids", "1,2,3", "-n", 1, status=1)
    check_mentions(done, list(words))
    output = scratch() / "model.mlir"
    done = call("LLM_IMPORT", model, "-o", output, status=1)
    check_mentions(done, list(words))
    assert not output.exists()


# Usage and paths


@suite.check("error-usage")
def usage() -> None:
    model = write_gguf()
    cases: dict[tuple[object, ...], list[str]] = {
        (): ["-m"],
        ("-m", model): ["-p", "--ids", "--prompts"],
        ("-m", model, "-p", "a", "--ids", "1"): ["-p", "--ids", "exclude"],
        ("-m", model, "-p", "a", "--no-such-option"): ["no-such-option"],
        ("-m", model, "-p"): ["requires a value", "see --help for the options"],
        ("-m", model, "-p", "a", "--top-p", "1.5"): ["--top-p", "1.5"],
        ("-m", model, "-p", "a", "--block-size", "0"): ["--block-size", "0"],
        ("-m", model, "-p", "a", "--cache-dtype", "q8"): ["cache-dtype", "q8"],
        ("-m", model, "--ids", "1,x"): ["--ids", "'x'"],
        ("-m", model, "--score", "text"): ["--window-tokens", "--split-documents"],
    }
    for arguments, words in cases.items():
        check_mentions(call("LLM_RUN", *arguments, status=2), words)
    call("LLM_IMPORT", status=2)
    call("LLM_IMPORT", model, "--no-such-option", status=2)


@suite.check("error-cpu-target")
def cpu_target() -> None:
    """llm-run names the levels that LLM_CPU_TARGET may ask for."""
    arguments = ["-m", write_gguf(), "--ids", "1,2,3", "-n", 1]
    os.environ["LLM_CPU_TARGET"] = "x86-64-v9"
    done = call("LLM_RUN", *arguments, status=1)
    check_mentions(done, ["LLM_CPU_TARGET", "(baseline", "'x86-64-v9'"])
    os.environ["LLM_CPU_TARGET"] = "baseline"
    call("LLM_RUN", *arguments)


@suite.check("error-paths")
def paths() -> None:
    folder, model = scratch(), write_gguf()
    (folder / "empty").mkdir()
    damaged = folder / "damaged.gguf"
    damaged.write_bytes(model.read_bytes()[:5000])
    text = folder / "text.gguf"
    text.write_text("no model")
    refuse(folder / "nowhere.gguf", "nowhere.gguf", "no such file")
    refuse(folder / "empty", "empty", "config.json")
    refuse(damaged, "damaged.gguf")
    refuse(text, "text.gguf")
    done = call("LLM_RUN", "-m", model, "--prompts", folder / "none.txt", status=1)
    check_mentions(done, ["none.txt", "no such file"])
    unwritable = folder / "none" / "report.json"
    done = call(
        "LLM_RUN", "-m", model, "-p", "a", "-n", 1, "--json", unwritable, status=1
    )
    assert "report.json" in done.stderr
    done = call("LLM_IMPORT", model, "-o", folder / "none" / "model.mlir", status=1)
    check_mentions(done, ["model.mlir", "no such file"])
    done = call("LLM_IMPORT", model, "-o", "/dev/full", status=1)
    check_mentions(done, ["/dev/full", "no space left"])
    assert Path("/dev/full").is_char_device()
    shell = f"{os.environ['LLM_IMPORT']} {model} > /dev/full"
    full = subprocess.run(shell, shell=True, capture_output=True, text=True)
    assert full.returncode == 1
    assert "standard output: no space left" in full.stderr


# Models that are not understood


@suite.check("error-architecture")
def architecture() -> None:
    refuse(write_gguf(architecture="mamba"), "mamba", "architecture")
    refuse(write_hugging_face(model_type="mamba", architectures=["Mamba"]), "mamba")


@suite.check("error-configuration")
def configuration() -> None:
    refuse(write_hugging_face(rope_scaling={"rope_type": "yarn"}), "yarn")
    refuse(write_hugging_face(hidden_act="gelu"), "gelu")
    refuse(write_hugging_face(mlp_bias=True), "mlp_bias")
    mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    window = "sliding_window of 511 in a context of 512"
    refuse(write_hugging_face(**mistral, sliding_window=511), window)


@suite.check("error-tensor-type")
def tensor_type() -> None:
    weights = checkpoints.make_weights(SHAPE, seed=1)
    path = checkpoints.write_gguf(
        scratch() / "tiny.gguf",
        SHAPE,
        weights,
        lambda name: Format.MXFP4 if name == "blk.1.ffn_down.weight" else Format.F32,
    )
    refuse(path, "blk.1.ffn_down.weight", "mxfp4", "q5_K or q6_K")
    refuse(write_hugging_face("float64"), "F64", ".weight")


@suite.check("error-tokenizer")
def tokenizer() -> None:
    for changes in [{"tokenizer": "t5"}, {"pre_tokenizer": "unheard-of"}]:
        model = write_gguf(**changes)
        done = call("LLM_RUN", "-m", model, "-p", "a", status=1)
        check_mentions(done, list(changes.values()))
    done = call("LLM_RUN", "-m", write_hugging_face(), "-p", "a", status=1)
    check_mentions(done, ["tokenizer"])
    done = call("LLM_RUN", "-m", write_hugging_face(), "--ids", "5", "-n", 1)
    assert "ids in place of text: " in done.stderr


@suite.check("error-tokens")
def tokens() -> None:
    """Bytes without a token are told, and a text of nothing else is refused."""
    unused = "\u00e4\u3042".encode()
    model, text = write_gguf(unused_bytes=unused), scratch() / "text"
    done = call("LLM_RUN", "-m", model, "-p", "a\u00e4\u3042", "-n", 1)
    words = "warning: 5 bytes of the text have no token and were dropped"
    assert words in done.stderr
    text.write_text("\u00e4")
    done = call("LLM_RUN", "-m", model, "--score", text, "--split-documents", status=1)
    check_mentions(done, [f"no tokens to score in {text}"])


# Weights


@suite.check("error-weights")
def weights() -> None:
    """What is missing, what is too much and what has another shape, at once."""
    weights = checkpoints.make_weights(SHAPE, seed=1)
    del weights["model.layers.1.mlp.up_proj.weight"]
    del weights["model.layers.0.input_layernorm.weight"]
    weights["model.layers.0.surplus.weight"] = np.zeros((3, 32), np.float32)
    value = "model.layers.1.self_attn.v_proj.weight"
    weights[value] = weights[value][:-1]
    down = "model.layers.0.mlp.down_proj.weight"
    weights[down] = np.zeros((96, 33), np.float32)
    wrong = [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.surplus.weight",
        value,
        down,
    ]
    config = checkpoints.hugging_face_config(SHAPE, "float32")
    folder = scratch()
    directory = checkpoints.write_hugging_face(folder / "tiny", config, weights)
    refuse(directory, *wrong, "31", "32", "33", "64")
    file = checkpoints.write_gguf(
        folder / "tiny.gguf", SHAPE, weights, lambda name: Format.F32
    )
    refuse(file, *map(checkpoints.gguf_name, wrong), "31", "32", "33", "64")


@suite.check("error-biases")
def biases() -> None:
    """A bias that is missing, and one that the model type has not."""
    shape = replace(SHAPE, model_type="qwen2")
    weights = checkpoints.make_weights(shape, seed=1)
    del weights["model.layers.0.self_attn.q_proj.bias"]
    weights["model.layers.1.self_attn.o_proj.bias"] = np.zeros(96, np.float32)
    wrong = [
        "missing tensor 'model.layers.0.self_attn.q_proj.bias' [96]",
        "unknown tensor 'model.layers.1.self_attn.o_proj.bias'",
    ]
    config = checkpoints.hugging_face_config(shape, "float32")
    folder = scratch()
    refuse(checkpoints.write_hugging_face(folder / "tiny", config, weights), *wrong)
    file = checkpoints.write_gguf(
        folder / "tiny.gguf", shape, weights, lambda name: Format.F32
    )
    wrong = [
        "missing tensor 'blk.0.attn_q.bias' [96]",
        "unknown tensor 'blk.1.attn_output.bias'",
    ]
    refuse(file, *wrong)


@suite.check("error-native-weights")
def native_weights() -> None:
    """A file without quantized weights has none to hold as they are."""
    native = ["--weights-as", "native"]
    words = ["tiny.gguf: expected quantized weights", "got none: take f32 or bf16"]
    model = write_gguf()
    done = call("LLM_RUN", "-m", model, "--ids", "1,2", *native, status=1)
    check_mentions(done, words)
    check_mentions(call("LLM_IMPORT", model, *native, status=1), words)
    rounded = ["--activations", "int8"]
    done = call("LLM_RUN", "-m", model, "--ids", "1,2", *rounded, status=1)
    check_mentions(done, ["--activations to be f32 beside --weights-as f32"])


# Runs


@suite.check("error-prompt")
def prompt() -> None:
    model = write_gguf()
    ids = ",".join(["5"] * 20)
    done = call("LLM_RUN", "-m", model, "--ids", ids, "--ctx", 16, status=1)
    check_mentions(done, ["20 tokens", "16"])
    dump = scratch() / "logits"
    arguments = ("-m", model, "--ids", ids, "--ctx", 16, "--dump-logits", dump)
    done = call("LLM_RUN", *arguments, status=1)
    check_mentions(done, ["the prompt has 20 tokens, the context holds 16"])
    done = call("LLM_RUN", "-m", model, "--ids", "5,331", "-n", 1, status=1)
    check_mentions(done, ["331"])
    done = call("LLM_RUN", "-m", model, "--ids", "5", "--ctx", 100000, status=1)
    words = "expected --ctx of at most the model's 512, got 100000"
    check_mentions(done, [words])


def check_exhaustion(prompts: list[str], blocks: int, steps: int) -> list[int]:
    """Runs a batch with few blocks; returns the indices of those that ended."""
    model, file = write_gguf(), scratch() / "prompts.txt"
    file.write_text("".join(prompt + "\n" for prompt in prompts))
    common = ["--prompts", file, "-n", steps, "--block-size", 4, *EXACT]
    whole = run(model, *common)
    assert all(len(sequence["ids"]) == steps for sequence in whole.report["sequences"])
    done = run(model, *common, "--pool-blocks", blocks, status=1)
    ended = []
    for index, sequence in enumerate(done.report["sequences"]):
        wanted, ids = whole.sequence(index), sequence["ids"]
        if "error" not in sequence:
            assert ids == wanted, index
            continue
        ended.append(index)
        assert ids == wanted[: len(ids)] and len(ids) < steps, index
        told = rf"sequence {index} ended after {len(ids)} tokens: .*block"
        assert re.search(told, done.stderr), index
        assert re.search(r"begin_step.*\d", sequence["error"]), sequence["error"]
    assert done.report["cache"]["live_blocks"] == 0
    return ended


@suite.check("error-pool-exhausted-while-decoding")
def exhausted_while_decoding() -> None:
    prompts = ["ab", "the other one", "a third prompt that is longer"]
    # Any two of them fit to their end; all three would take at least 25 blocks.
    ended = check_exhaustion(prompts, blocks=23, steps=24)
    assert len(ended) == 1


@suite.check("error-pool-too-small-for-a-prompt")
def pool_too_small_for_a_prompt() -> None:
    prompts = ["ab", "one that has more tokens than the pool has slots", "cd"]
    assert check_exhaustion(prompts, blocks=6, steps=4) == [1]


suite.main()
