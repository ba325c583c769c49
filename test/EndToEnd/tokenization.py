"""Tokenizers and chat templates against the packages that models come from.

Small vocabularies are trained here, on texts of this repository.
"""

import json
import re
import unicodedata
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Iterable

import gguf
import sentencepiece
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

import checkpoints
import suite
from checkpoints import Shape
from tools import REPOSITORY, call, run, scratch, shared, smollm2

Encode = Callable[[str], list[int]]

TEXTS = [
    "Hello world",
    "I'll  'LL we'Ve don't",
    "  leading and trailing  ",
    " ",
    "\n",
    "in  2",
    "in  23 456 1234567\u0663\u00bd",
    "\n\n a\tb\r\n  \r\n\u3000x\u180ey\u0085\u00a0z",
    "\u4e2d\u6587\u5b57\u7b26\uff0c\u6df7\u5408 text",
    "\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "e\u0301 \u00e9 \ud55c\u1112\u1161\u11ab \u0130i\u0307",
    "<s>a</s><unk> <0x0A> \u2581b",
    "def f(x):\n    return x ** 2  # 100%\n",
]
BEGINNING = 300_000  # characters of a shared text


def shared_texts() -> list[str]:
    return [
        path.read_text(errors="replace")[:BEGINNING]
        for path in sorted(shared("text").glob("*.txt"))
    ]


def corpus() -> Iterable[str]:
    for path in [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("lib/*/*.cpp"))]:
        yield path.read_text()


def check_ids(model: Path, encode: Encode, texts: list[str]) -> None:
    for text in texts:
        check_bytes(model, text.encode(), encode(text))


def check_bytes(model: Path, text: bytes, wanted: list[int]) -> None:
    file = scratch() / "text"
    file.write_bytes(text)
    done = call("LLM_RUN", "-m", model, "--tokenize", file)
    ids = [int(word) for word in done.stdout.split()]
    assert ids == wanted, (text[:80], ids[:20], wanted[:20])
    assert done.stderr == ""


# tokenizer.json

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLIT_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), BYTES]
    )


PRE_TOKENIZERS = {
    "gpt-2": SPLIT_BYTES,
    "gpt-2-split": split(GPT2),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), SPLIT_BYTES]
    ),
    "llama-3": split(LLAMA3),
    "qwen2": split(LLAMA3.replace("{1,3}", "")),
}


def train(kind: str, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama-3"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[kind]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, **changes: object) -> Path:
    folder = scratch()
    tokenizer.save(str(folder / "tokenizer.json"))
    file = json.loads((folder / "tokenizer.json").read_text())
    file["model"] |= changes
    (folder / "tokenizer.json").write_text(json.dumps(file))
    return folder


def ids_by(tokenizer: Tokenizer) -> Encode:
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def check_kind(kind: str) -> None:
    tokenizer = train(kind, ["<|end|>"])
    folder = save(tokenizer)
    check_ids(folder, ids_by(tokenizer), TEXTS)
    check_ids(folder, ids_by(tokenizer), shared_texts())


for name in PRE_TOKENIZERS:
    suite.register(f"tokenizer-json-{name}", lambda name=name: check_kind(name))


@suite.check("tokenizer-json-smollm2")
def real_vocabulary() -> None:
    """SmolLM2's 49,152 tokens, from its GGUF file, as tokenizer.json."""
    fields = gguf.GGUFReader(smollm2()).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["smollm"]
    special = [t for t, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    assert "<|im_start|>" in special
    tokenizer.add_special_tokens(special)
    tokenizer.encode_special_tokens = True  # as text, where a text has them
    folder = save(tokenizer)
    for model in [folder, smollm2()]:
        check_ids(model, ids_by(tokenizer), TEXTS)
        check_ids(model, ids_by(tokenizer), shared_texts())


@suite.check("tokenizer-json-variants")
def variants() -> None:
    """Merges as strings, invalid UTF-8, special tokens as text, an unknown token."""
    tokenizer = train("gpt-2", ["<|end|>"])
    tokenizer.encode_special_tokens = True
    encode = ids_by(tokenizer)
    check_ids(save(tokenizer), encode, ["a<|end|>b"])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    folder = save(tokenizer, merges=[" ".join(pair) for pair in merges])
    check_ids(folder, encode, TEXTS)
    ids = {byte: tokenizer.token_to_id(c) for byte, c in byte_characters().items()}
    wanted = encode("caf") + [ids[0xC3]] + encode(" ") + [ids[0xE2], ids[0x96]]
    check_bytes(folder, b"caf\xc3 \xe2\x96 end", wanted + encode(" end"))
    for fuses in [False, True]:
        trained = Tokenizer(models.BPE(unk_token="<|end|>", fuse_unk=fuses))
        trained.pre_tokenizer = SPLIT_BYTES
        trainer = trainers.BpeTrainer(special_tokens=["<|end|>"], show_progress=False)
        trained.train_from_iterator(["abc abcd ab"], trainer)
        check_ids(save(trained), ids_by(trained), ["abc\u4e2d\u6587x abzz c"])


def byte_characters() -> dict[int, str]:
    return dict(enumerate(checkpoints.byte_symbols()))


@suite.check("tokenizer-json-nfc")
def nfc() -> None:
    """Every character that a composition may concern, and pairs of them.

    The package's characters are those of an older Unicode, so that Python
    composes what goes beyond common texts.
    """
    tokenizer = train("qwen2", [])
    plain = ids_by(Tokenizer.from_str(tokenizer.to_str()))
    tokenizer.normalizer = normalizers.NFC()
    folder = save(tokenizer)
    check_ids(folder, ids_by(tokenizer), TEXTS)
    letters = [chr(c) for c in range(0xC0, 0x30000) if not 0xD800 <= c < 0xE000]
    known = (REPOSITORY / "lib/Import/Composition.inc").read_text()
    codes = [int(word, 16) for word in re.findall("0x[0-9a-f]+", known)]
    marks = [chr(c) for c in sorted(set(codes)) if c > 0x2FF]
    pairs = [a + b for a, b in zip(marks * 7, marks[3:] * 7)]
    mixed = [a + b + c for a, b, c in zip(pairs, marks[50:] * 5, marks[7:] * 5)]
    accents = [f"{a}\u0323\u0301{b}\u0308\u0304 " for a, b in zip(letters, letters[1:])]
    texts = [" ".join(letters), "".join(pairs), " ".join(mixed), "".join(accents)]
    check_ids(folder, lambda text: plain(unicodedata.normalize("NFC", text)), texts)


# SentencePiece


def train_sentencepiece(**options: object) -> Path:
    """A directory with tokenizer.model; splits no blanks off and folds nothing."""
    folder = scratch()
    (folder / "corpus").write_text("\n".join(corpus()))
    sentencepiece.SentencePieceTrainer.train(
        input=folder / "corpus",
        model_prefix=folder / "tokenizer",
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return folder


def load_sentencepiece(folder: Path) -> sentencepiece.SentencePieceProcessor:
    path = str(folder / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(model_file=path)


def kind_of(model: sentencepiece.SentencePieceProcessor, i: int) -> gguf.TokenType:
    if model.is_unknown(i):
        return gguf.TokenType.UNKNOWN
    if model.is_control(i):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if model.is_byte(i) else gguf.TokenType.NORMAL


def wrap(model: sentencepiece.SentencePieceProcessor, puts_blank_first: bool) -> Path:
    """The same vocabulary in a GGUF file without tensors."""
    path = scratch() / "vocabulary.gguf"
    ids = range(model.get_piece_size())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i) for i in ids])
    writer.add_token_scores([model.get_score(i) for i in ids])
    writer.add_token_types([kind_of(model, i) for i in ids])
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    if not puts_blank_first:
        writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def check_sentencepiece(puts_blank_first: bool) -> None:
    folder = train_sentencepiece(add_dummy_prefix=puts_blank_first)
    model = load_sentencepiece(folder)
    for file in [folder, wrap(model, puts_blank_first)]:
        check_ids(file, model.encode, TEXTS)
        check_ids(file, model.encode, shared_texts())
        invalid = b"a\xff\xc3z \xe2\x96 end"
        check_bytes(file, invalid, model.encode(invalid))


suite.register("tokenizer-sentencepiece", lambda: check_sentencepiece(True))
suite.register("tokenizer-sentencepiece-bare", lambda: check_sentencepiece(False))


# Chat templates

LLAMA3_SPECIAL = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
CHATML_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SLY = "<|im_end|><|eot_id|></s>"  # what a user may not slip in


def chatml(first: str = "") -> str:
    return (
        "{% for message in messages %}" + first + "{{'<|im_start|>' + message['role']"
        " + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def chatml_with(system: str) -> str:
    return chatml(
        "{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\n" + system + "<|im_end|>\n' }}{% endif %}"
    )


def published(name: str) -> str:
    """A template as TRL has it, which compares whole texts, too."""
    package = find_spec("trl")  # importing it would need PyTorch
    assert package and package.origin
    folder = Path(package.origin).parent / "chat_templates"
    return (folder / f"{name}.jinja").read_text()


def qwen25_base() -> str:
    own = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    return published("qwen2_5").replace(own, "You are a helpful assistant.")


def llama3_unconditional() -> str:
    text = published("llama3")
    begin, end = "{% if add_generation_prompt %}", "{% endif %}"
    head, _, tail = text.rpartition(begin)
    assert tail.endswith(end)
    return head + tail.removesuffix(end)


ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n"
    "{% endif %}\n{% endfor %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and "
    "system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
    "message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif "
    "message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
CHATML_TEMPLATES = {
    "chatml": chatml(),
    "smollm2": chatml_with(
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    ),
    "qwen1.5": chatml_with("You are a helpful assistant"),
    "qwen2": chatml_with("You are a helpful assistant."),
    "qwen2.5": published("qwen2_5"),
    "qwen2.5-base": qwen25_base(),
}
LLAMA3_TEMPLATES = {
    "llama-3": published("llama3"),
    "llama-3-unconditional": llama3_unconditional(),
    "llama-3.1": published("llama3_1"),
    "llama-3.2": published("llama3_2"),
}
SENTENCEPIECE_TEMPLATES = {"llama-2": LLAMA2, "zephyr": ZEPHYR}


def render(template: str, text: str, tokens: dict[str, str]) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    messages = [{"role": "user", "content": text}]
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, **tokens
    )


def encode_rendered(
    rendered: str, special: dict[str, int], slyness: str, encode: Encode
) -> list[int]:
    """Special tokens, and what stands between them as text."""
    ids: list[int] = []
    for part in re.split("(" + "|".join(map(re.escape, special)) + ")", rendered):
        if part in special:
            ids.append(special[part])
        elif part:
            ids += encode(part.replace("\ue000", slyness))
    return ids


def check_chat(
    folder: Path, template: str, special: dict[str, int], encode: Encode
) -> None:
    names = list(special)
    tokens = {"bos_token": names[0], "eos_token": names[-1]}
    config = {"chat_template": template, **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for text in ["What is  2+2?", " \n Hi \ue000 there\u3000\n"]:
        rendered = render(template, text, tokens)
        wanted = encode_rendered(rendered, special, SLY, encode)
        said = text.replace("\ue000", SLY)
        done = run(folder, "--chat", "-p", said, "-n", 1)
        assert done.report["sequences"][0]["prompt_ids"] == wanted, rendered


def add_model(folder: Path, vocabulary: int) -> None:
    shape = Shape(vocab=vocabulary, layers=1)
    config = checkpoints.hugging_face_config(shape, "float32")
    weights = checkpoints.make_weights(shape, seed=1)
    checkpoints.write_hugging_face(folder, config, weights)


def check_byte_level_chats(
    kind: str, special: list[str], templates: dict[str, str]
) -> None:
    tokenizer = train(kind, special)
    tokenizer.encode_special_tokens = True
    folder = save(tokenizer)
    add_model(folder, tokenizer.get_vocab_size())
    ids = {name: tokenizer.token_to_id(name) for name in special}
    for name, template in templates.items():
        print(name)
        check_chat(folder, template, ids, ids_by(tokenizer))


@suite.check("chat-chatml")
def chats_chatml() -> None:
    check_byte_level_chats("qwen2", CHATML_SPECIAL, CHATML_TEMPLATES)


@suite.check("chat-llama3")
def chats_llama3() -> None:
    check_byte_level_chats("llama-3", LLAMA3_SPECIAL, LLAMA3_TEMPLATES)


@suite.check("chat-sentencepiece")
def chats_sentencepiece() -> None:
    folder = train_sentencepiece()
    model = load_sentencepiece(folder)
    add_model(folder, model.get_piece_size())
    special = {"<s>": model.bos_id(), "</s>": model.eos_id()}
    for name, template in SENTENCEPIECE_TEMPLATES.items():
        print(name)
        check_chat(folder, template, special, model.encode)


@suite.check("tokenizer-json-bos")
def bos() -> None:
    """A post-processor begins every text."""
    tokenizer = train("llama-3", ["<|begin|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    folder = save(tokenizer)
    add_model(folder, tokenizer.get_vocab_size())
    done = run(folder, "-p", "Hello there", "-n", 1)
    wanted = tokenizer.encode("Hello there").ids
    assert wanted[0] == 0 and 0 not in wanted[1:]
    assert done.report["sequences"][0]["prompt_ids"] == wanted


suite.main()
