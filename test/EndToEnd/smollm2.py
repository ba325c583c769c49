"""SmolLM2-135M-Instruct, a real model: ids and likelihood as the reference's."""

import random
from dataclasses import dataclass
from functools import partial

import suite
from tools import DEMANDED, EXACT, after, call, expected, run, scratch, shared, smollm2

TEXT = "models/smollm2/wikitext64k.txt"
# What stands beside an expected prompt in a batch.
COMPANY = {
    "chat-1": ["chat-2", "Why is the sky blue?"],
    "chat-2": ["Name three rivers of Europe.", "chat-1"],
    "raw-1": ["The", "The quick brown fox jumps over the lazy dog, and then it"],
}


@dataclass(frozen=True)
class Variation:
    """How a run differs from the default, which changes no id."""

    chunk: int | None = None
    block: int | None = None
    batch: bool = False
    fork_at: int | None = None

    def options(self) -> list[object]:
        options = {
            "--prefill-chunk": self.chunk,
            "--block-size": self.block,
            "--fork-at": self.fork_at,
        }
        given = [(name, value) for name, value in options.items() if value is not None]
        return [word for option in given for word in option]


def check_ids(name: str, variation: Variation = Variation(), limit: int = 256) -> None:
    """The first `limit` ids of an expected prompt and of those beside it."""
    names = [name, *(COMPANY[name] if variation.batch else [])]
    answers = {one: expected(one) for one in names if one in DEMANDED}
    texts = [answers[one].text if one in answers else one for one in names]
    prompts = scratch() / "prompts.txt"
    prompts.write_text("".join(text + "\n" for text in texts))
    source = ["--prompts", prompts] if variation.batch else ["-p", texts[0]]
    chat = ["--chat"] if name.startswith("chat") else []
    count = min(limit, DEMANDED[name])
    done = run(smollm2(), *source, *chat, "-n", count, *EXACT, *variation.options())
    sequences = done.report["sequences"]
    assert len(sequences) == len(names) + (variation.fork_at is not None)
    for one, sequence in zip(names, sequences):
        if one in answers:
            wanted = answers[one].ids[: min(count, DEMANDED[one])]
            assert sequence["prompt_ids"] == answers[one].prompt_ids, one
            assert sequence["ids"][: len(wanted)] == wanted, one
    if variation.fork_at is not None:
        check_sibling(sequences[0]["ids"], sequences[-1]["ids"], variation.fork_at)


def check_sibling(ids: list[int], sibling: list[int], fork_at: int) -> None:
    assert sibling[:fork_at] == ids[:fork_at]
    assert sibling[fork_at] != ids[fork_at]


@suite.check("smollm2-tokens")
def tokens() -> None:
    file = shared("models/smollm2/expected-tokens-wikitext64k.txt")
    wanted = file.read_text().splitlines()[1].split()
    done = call("LLM_RUN", "-m", smollm2(), "--tokenize", shared(TEXT))
    assert len(wanted) == 16441
    assert done.stdout.split() == wanted


for case in DEMANDED:
    suite.register(f"smollm2-{case}", partial(check_ids, case))


@suite.check("smollm2-text")
def text() -> None:
    """What a user sees: the answer alone on stdout."""
    answer = expected("chat-1")
    file = shared("models/smollm2/expected-chat-1.txt").read_text()
    exact = "--weights-as", "f32"
    done = call("LLM_RUN", "-m", smollm2(), *exact, "--chat", "-p", answer.text)
    assert done.stdout.strip() == after(file, "text: ").strip('"')
    assert "tokens/s" in done.stderr


@suite.check("smollm2-past-the-end")
def past_the_end() -> None:
    """--ignore-eos: the answer, and more until there are as many as asked for."""
    answer = expected("chat-1")
    wanted, count = answer.ids[: DEMANDED["chat-1"]], DEMANDED["chat-1"] + 10
    common = [smollm2(), *EXACT, "--chat", "-p", answer.text, "-n", count]
    assert run(*common).sequence(0) == wanted
    ids = run(*common, "--ignore-eos").sequence(0)
    assert ids[: len(wanted)] == wanted and len(ids) == count


@suite.check("smollm2-weights")
def weights() -> None:
    """What the report says of them: numbers, bytes of the file and in memory."""
    report = run(smollm2(), "-p", "a", "-n", 1, "--weights-as", "f32").report
    sizes = report["weights"]
    layers, head, packed = sizes["layers"], sizes["head"], sizes["packed_bytes"]
    assert layers["parameters"] == 30 * 576 * (2 * 576 + 2 * 192 + 3 * 1536)
    assert head["parameters"] == 49152 * 576
    assert layers["file_bytes"] * 32 == layers["parameters"] * 20  # q4_1
    assert head["file_bytes"] * 32 == head["parameters"] * 34  # q8_0
    assert packed >= 4 * (layers["parameters"] + head["parameters"])
    assert 0 < report["pack_s"] <= report["load_s"]


@suite.check("smollm2-native")
def native() -> None:
    """By default weights keep the file's bits. The answer is the same up to
    where the two best ids are closest (31), nearer than integers are exact."""
    answer = expected("chat-1")
    common = [smollm2(), "--chat", "-p", answer.text, "-n", DEMANDED["chat-1"]]
    done = run(*common)
    sizes = done.report["weights"]
    layers, head = sizes["layers"], sizes["head"]
    # The embedding is of bf16, norms are of f32.
    rest = 2 * head["parameters"] + 4 * 61 * 576
    assert sizes["packed_bytes"] == layers["file_bytes"] + head["file_bytes"] + rest
    assert (sizes["as"], sizes["activations"]) == ("native", "int8")
    assert (layers["file_formats"], head["file_formats"]) == (["q4_1"], ["q8_0"])
    assert done.sequence(0)[:31] == answer.ids[:31]
    exact = run(*common, "--activations", "f32")
    assert exact.report["weights"]["activations"] == "f32"
    assert exact.sequence(0) == answer.ids[: DEMANDED["chat-1"]]


SINGLE = {
    "chunk-1": Variation(chunk=1),
    "chunk-7": Variation(chunk=7),
    "chunk-33": Variation(chunk=33),
    "block-1": Variation(block=1),
    "block-64": Variation(block=64),
    "batch": Variation(batch=True),
}
for case, variation in SINGLE.items():
    suite.register(f"smollm2-{case}", partial(check_ids, "chat-1", variation))


@suite.check("smollm2-fork")
def fork() -> None:
    """A fork disturbs nobody: both go on as if the other had never been."""
    answer, fork_at, count = expected("chat-1"), 10, 30
    common = [*EXACT, "--chat", "-p", answer.text]
    done = run(smollm2(), *common, "-n", count, "--fork-at", fork_at)
    ids, sibling = done.sequence(0), done.sequence(1)
    assert ids == answer.ids[:count]
    check_sibling(ids, sibling, fork_at)
    start = answer.prompt_ids + sibling[: fork_at + 1]
    source = ["--ids", ",".join(map(str, start))]
    alone = run(smollm2(), *EXACT, *source, "-n", count - fork_at - 1)
    assert alone.sequence(0) == sibling[fork_at + 1 :]


def combination(seed: int) -> tuple[str, Variation]:
    choose = random.Random(seed).choice
    name = choose(list(DEMANDED))
    chunk, block = choose([1, 7, 33, None]), choose([1, 16, 64])
    return name, Variation(
        chunk, block, choose([False, True]), choose([None, 0, 5, 17, 30])
    )


# With the seven above, the first five make a dozen; ctest -L long runs the rest.
for seed in range(10):
    suite.register(
        f"smollm2-combination-{seed}",
        partial(check_ids, *combination(seed), limit=48),
        label="e2e" if seed < 5 else "e2e;long",
    )


def check_likelihood(
    weights: str, cache: str, row: str, tolerance: float, *options: object
) -> None:
    """The mean negative log-likelihood of eight windows of 1024 tokens."""
    file = shared("models/smollm2/expected-nll.txt").read_text()
    wanted = float(after(file, row).split()[0])
    windows = ["--window-tokens", 1024, "--max-windows", 8]
    kinds = ["--weights-as", weights, "--cache-dtype", cache]
    done = run(smollm2(), "--score", shared(TEXT), *windows, *kinds, *options)
    print(f"nll {done.report['nll']} for {wanted}")
    assert done.report["tokens"] == 8 * 1023
    assert abs(done.report["nll"] - wanted) <= tolerance
    assert done.report["cache_dtype"] == cache
    assert done.report["kv_bytes_per_token"] == bytes_per_token(cache)


def bytes_per_token(cache: str) -> int:
    """30 layers, K and V, 3 heads of 64 numbers, with their scale if quantized."""
    if cache == "i4":  # params of each channel of 32 tokens, and of 2 groups of V
        return 30 * 3 * (2 * 32 + 64 * 4 // 32 + 2 * 4)
    row = {"f32": 64 * 4, "f16": 64 * 2, "bf16": 64 * 2, "f8": 64 + 4, "i8": 64 + 4}
    return 30 * 2 * 3 * row[cache]


# A last bit of f32 decides how some numbers of a quantized cache round, and all
# that follows: five CPU levels and ways to compute exp gave f8 3.379260,
# 3.379671, 3.380202, 3.380202 and 3.380612.
EXACTLY = "float64, nothing rounded"
ROUNDED = "weights and cache rounded to bf16 (arithmetic f32)"
KEPT = "window 512 + 4 sinks, positions kept"
for name, *how in [
    ("f32", "f32", "f32", EXACTLY, 1e-3),
    ("bf16", "bf16", "bf16", EXACTLY, 5e-3),
    ("activations", "bf16", "bf16", ROUNDED, 2e-4, "--activations", "f32"),
    ("native", "native", "f16", EXACTLY, 1.5e-2, "--prefill-chunk", 1),
    ("native-chunks", "native", "f16", EXACTLY, 1.5e-2),
    ("native-bf16", "native", "f16", EXACTLY, 5e-3, "--activations", "bf16"),
    ("window", "f32", "f32", KEPT, 2e-3, "--window", 512, "--sinks", 4),
    ("cache-i8", "f32", "i8", "int8, symmetric, scale per token and head", 1e-3),
    ("cache-f8", "f32", "f8", "fp8 E4M3, scale max/448 per token and head", 2e-3),
    ("cache-i4", "f32", "i4", "the same, first 4 tokens exact", 4.7e-3),
]:
    suite.register(f"smollm2-nll-{name}", partial(check_likelihood, *how))

suite.main()
