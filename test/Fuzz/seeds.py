"""Small valid files that the fuzzers of the readers begin with."""

import json
import os
import struct
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared"

# GGUF's numbers for types of metadata and for formats of tensors.
U8, U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 0, 4, 5, 6, 7, 8, 9, 10, 12
FORMATS = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18)}
FORMATS |= {"q4_1": (3, 32, 20), "q8_0": (8, 32, 34), "bf16": (30, 1, 2)}
FORMATS |= {"q5_0": (6, 32, 22), "q5_1": (7, 32, 24), "q4_K": (12, 256, 144)}
FORMATS |= {"q5_K": (13, 256, 176), "q6_K": (14, 256, 210)}
PACKED = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", F64: "<d"}


def gguf_string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def gguf_value(kind: int, value) -> bytes:
    return gguf_string(value) if kind == STRING else struct.pack(PACKED[kind], value)


def gguf_field(key: str, kind: int, value) -> bytes:
    if not isinstance(value, list):
        return gguf_string(key) + struct.pack("<I", kind) + gguf_value(kind, value)
    head = struct.pack("<IIQ", ARRAY, kind, len(value))
    return gguf_string(key) + head + b"".join(gguf_value(kind, v) for v in value)


def gguf_file(fields: list, tensors: list) -> bytes:
    """`tensors`: name, format and shape, rows before columns."""
    infos = data = b""
    for name, kind, shape in tensors:
        number, per_block, size = FORMATS[kind]
        data += b"\0" * (-len(data) % 32)
        infos += gguf_string(name) + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        infos += struct.pack("<IQ", number, len(data))
        elements = 1
        for extent in shape:
            elements *= extent
        data += b"\x3c" * (elements // per_block * size)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(gguf_field(*field) for field in fields) + infos
    return head + b"\0" * (-len(head) % 32) + data


def gguf_config(architecture: str) -> list:
    return [
        ("general.architecture", STRING, architecture),
        ("general.alignment", U32, 32),
        (architecture + ".block_count", U32, 1),
        (architecture + ".embedding_length", U32, 32),
        (architecture + ".attention.head_count", U32, 4),
        (architecture + ".attention.head_count_kv", U32, 2),
        (architecture + ".feed_forward_length", U32, 64),
        (architecture + ".context_length", U32, 128),
        (architecture + ".attention.layer_norm_rms_epsilon", F32, 1e-5),
    ]


LLAMA = gguf_config("llama")
QWEN3 = gguf_config("qwen3") + [
    ("qwen3.attention.key_length", U32, 16),
    ("qwen3.attention.value_length", U32, 16),
    ("qwen3.attention.sliding_window", U32, 128),
]
ROPE = [
    ("llama.rope.freq_base", F32, 10000.0),
    ("llama.rope.dimension_count", U32, 8),
    ("llama.rope.scaling.type", STRING, "none"),
    ("llama.expert_count", U8, 0),
    ("llama.vocab_size", U64, 3),
    ("llama.rope.scale_linear", F64, 1.0),
]
VOCABULARY = [
    ("tokenizer.ggml.model", STRING, "gpt2"),
    ("tokenizer.ggml.pre", STRING, "smollm"),
    ("tokenizer.ggml.tokens", STRING, ["<e>", "a", "b", "ab", "\u0120", "\u0120a"]),
    ("tokenizer.ggml.token_type", I32, [3, 1, 1, 1, 1, 1]),
    ("tokenizer.ggml.merges", STRING, ["a b", "\u0120 a"]),
    ("tokenizer.ggml.bos_token_id", U32, 0),
    ("tokenizer.ggml.eos_token_id", U32, 2),
    ("tokenizer.ggml.add_bos_token", BOOL, True),
    ("tokenizer.chat_template", STRING, "{{ messages }}"),
]


def gguf_seeds() -> list[bytes]:
    embedding = ("token_embd.weight", "q8_0", (3, 32))
    norm = ("output_norm.weight", "f32", (32,))
    formats = [
        (f"blk.0.{kind}", kind, (2, max(32, per_block)))
        for kind, (_, per_block, _) in FORMATS.items()
    ]
    factors = ("rope_freqs.weight", "f32", (4,))
    bias = ("blk.0.attn_q.bias", "f32", (32,))
    return [
        gguf_file(LLAMA, [embedding]),
        gguf_file(LLAMA + ROPE, [embedding, norm, factors] + formats),
        gguf_file(LLAMA + VOCABULARY, [embedding, norm]),
        gguf_file(QWEN3, [embedding, norm, bias]),
    ]


def safetensors_seeds() -> list[bytes]:
    def file(header: dict, size: int) -> bytes:
        text = json.dumps(header, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text)) + text + b"d" * size

    def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    model = {"__metadata__": {"format": "pt"}, "norm": tensor("BF16", [4], 0, 8)}
    model["embedding"] = tensor("F32", [2, 4], 8, 40)
    model["head"] = tensor("F16", [2, 2, 1], 40, 48)
    return [file({}, 0), file({"a": tensor("F32", [], 0, 4)}, 4), file(model, 48)]


def hugging_face_seeds() -> list[bytes]:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    config |= {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2}
    config |= {"vocab_size": 2, "eos_token_id": [0, 1], "rms_norm_eps": 1e-5}
    plain = config | {"attention_bias": False, "mlp_bias": False, "num_experts": 0}
    plain |= {"sliding_window": None, "layer_types": ["full_attention"]}
    plain |= {"hidden_act": "silu", "tie_word_embeddings": True, "rope_theta": 1e4}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    llama3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    scaled = config | {"rope_scaling": llama3, "max_position_embeddings": 64}
    newer = config | {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "shard"}}
    windowed = {"sliding_window": 4096, "max_position_embeddings": 4096}
    mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    mistral = config | mistral | windowed
    qwen = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    qwen |= {"attention_bias": True, "use_sliding_window": True}
    qwen = config | qwen | windowed | {"max_window_layers": 1}
    configs = (config, plain, scaled, newer, mistral, qwen)
    seeds = [(b"c", one) for one in configs]
    seeds += [(b"g", {"eos_token_id": 1}), (b"i", index)]
    return [letter + json.dumps(value).encode() for letter, value in seeds]


def byte_pair_seeds() -> list[bytes]:
    tokens = "3<end>\n1a\n1b\n1ab\n1\u0120\n1\u0120a\n1aba\n4<user>\n5unused\n2<unk>"
    merges = "a b\nab a\n\u0120 a"
    text = "aba ab b\n\t 12345 it's \u00e4\u3042\u0301 <end>\r\n  "
    kinds = ("smollm", "gpt-2", "llama-bpe", "qwen2")
    return [f"{kind}\n{tokens}\n\n{merges}\n\n{text}".encode() for kind in kinds]


def varint(value: int) -> bytes:
    """Seven bits a byte, the low ones first."""
    if value < 0x80:
        return bytes([value])
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def protobuf(number: int, value: int | float | bytes | str) -> bytes:
    """A field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    encoded = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(encoded)) + encoded


def character_map() -> bytes:
    """Replaces "b" by "a": a double array of two blocks, then the texts."""
    units = [0] * 512
    units[0] = 256 << 10  # the root: children are at 256 ^ letter
    letter = 256 ^ ord("b")
    units[letter] = (letter ^ 1) << 10 | 1 << 8 | ord("b")  # its value is at 1
    units[1] = 1 << 31 | 0  # where "a" begins
    trie = struct.pack("<512I", *units)
    return struct.pack("<I", len(trie)) + trie + b"a\0"


def sentence_piece_model(kind: int, characters: bytes = b"") -> bytes:
    def piece(text: str, score: float, type: int) -> bytes:
        body = protobuf(1, text) + protobuf(2, score) + protobuf(3, type)
        return protobuf(1, body)

    pieces = piece("<unk>", 0.0, 2) + piece("<s>", 0.0, 3) + piece("</s>", 0.0, 3)
    words = ["\u2581", "a", "b", "ab", "\u2581a", "aba"]
    pieces += b"".join(piece(word, -1.0 - i, 1) for i, word in enumerate(words))
    pieces += piece("<user>", 0.0, 4) + piece("unused", 0.0, 5)
    trainer = protobuf(2, protobuf(3, kind))
    rules = protobuf(1, "rules") + protobuf(2, characters) + protobuf(3, 1)
    normalizer = protobuf(3, rules)
    return pieces + trainer + normalizer


def sentence_piece_seeds() -> list[bytes]:
    unigram, byte_pairs, word, character = 1, 2, 3, 4
    kinds = (unigram, byte_pairs, word, character)
    shared = Path(os.environ.get("LLM_SHARED") or SHARED)
    stories = shared / "models/stories260K/tokenizer.model"
    found = [stories.read_bytes()] if stories.exists() else []
    mapped = sentence_piece_model(byte_pairs, character_map())
    return [sentence_piece_model(kind) for kind in kinds] + [mapped] + found


SEEDS = {
    "GGUF": gguf_seeds,
    "Safetensors": safetensors_seeds,
    "HuggingFace": hugging_face_seeds,
    "BytePair": byte_pair_seeds,
    "SentencePiece": sentence_piece_seeds,
}


def write_seeds(reader: str, directory: Path) -> None:
    directory.mkdir(parents=True)
    for number, seed in enumerate(SEEDS[reader]()):
        (directory / f"seed-{number}").write_bytes(seed)
