"""How llm-run behaves as a command: what it reads, prints and ends with."""

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import checkpoints
import suite
from checkpoints import Shape
from tools import EXACT, Outcome, call, expected, logits, run, scratch, smollm2

TURNS = [
    "What is the capital of France?",
    "And of Italy?",
    "Which of the two is larger?",
    "Name a river there.",
    "Thank you!",
]


def start(*arguments: object, **streams: Any) -> subprocess.Popen[bytes]:
    """llm-run, still running. What it compiles was kept by a run before."""
    command = [os.environ["LLM_RUN"], "-m", str(smollm2()), *map(str, arguments)]
    pipe = subprocess.PIPE
    print("+", " ".join(command), flush=True)
    return subprocess.Popen(
        command, **{"stdin": pipe, "stdout": pipe, "stderr": pipe} | streams
    )


def finish(process: subprocess.Popen[bytes], status: int, text: str = "") -> Outcome:
    stdout, stderr = process.communicate(text.encode(), timeout=300)
    print(stderr.decode(), flush=True)
    assert (
        process.returncode == status
    ), f"expected exit {status}, got {process.returncode}"
    assert b"Stack dump" not in stderr
    return Outcome(status, (stdout or b"").decode(), stderr.decode(), {})


# Help


@suite.check("command-version")
def version() -> None:
    for tool, name in [("LLM_RUN", "llm-run"), ("LLM_IMPORT", "llm-import")]:
        words = call(tool, "--version").stdout.split()
        assert words[:2] == [name, "0.1.0"], words
        assert words[2] == "(LLVM" and words[3].startswith("22."), words
        assert len(words) == 4, "LLVM's own text"


@suite.check("command-help")
def help() -> None:
    for tool, ours in [("LLM_RUN", "--cache-dtype"), ("LLM_IMPORT", "--weights-as")]:
        text = call(tool, "--help").stdout
        options = [line.split()[0] for line in text.splitlines() if line[:3] == "  -"]
        assert ours in text
        for foreign in ["--debug", "--x86", "--mlir", "--print", "--color", "--stats"]:
            assert not [one for one in options if one.startswith(foreign)], foreign


# What is read


@suite.check("command-prompt-file")
def prompt_file() -> None:
    """A whole file is a prompt, from standard input too."""
    file = scratch() / "prompt"
    file.write_text("One.\nTwo.\n")
    common = ["-n", 6, "-q"]
    wanted = call("LLM_RUN", "-m", smollm2(), "-p", "One.\nTwo.\n", *common)
    assert call("LLM_RUN", "-m", smollm2(), "-f", file, *common).stdout == wanted.stdout
    piped = finish(start("-f", "-", *common), 0, "One.\nTwo.\n")
    assert piped.stdout == wanted.stdout
    assert piped.stderr == wanted.stderr == "", "-q prints the text alone"
    nothing = finish(start("-f", "-"), 1)
    assert "prompt 0 has no tokens" in nothing.stderr


@suite.check("command-special")
def special() -> None:
    """Special tokens in text are tokens where asked, else what they look like."""
    answer = expected("chat-1")
    tokens = vocabulary()
    text = "".join(tokens[id] for id in answer.prompt_ids)
    done = run(smollm2(), "-p", text, "--special", "-n", 0)
    assert done.report["sequences"][0]["prompt_ids"] == answer.prompt_ids
    plain = run(smollm2(), "-p", text, "-n", 0).report["sequences"][0]["prompt_ids"]
    assert min(plain) > 16 and "".join(tokens[id] for id in plain) == text


@suite.check("command-system")
def system() -> None:
    done = run(smollm2(), "--chat", "-p", "Hi", "--system", "Be brief.", "-n", 0)
    ids = done.report["sequences"][0]["prompt_ids"]
    assert spelled(ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(1) == 3 and ids.count(2) == 2


def vocabulary() -> list[str]:
    """Tokens as text, by the package gguf: enough for ASCII."""
    field = gguf.GGUFReader(smollm2()).fields["tokenizer.ggml.tokens"]
    tokens = [bytes(field.parts[at]).decode() for at in field.data]
    return [token.replace("Ġ", " ").replace("Ċ", "\n") for token in tokens]


def spelled(ids: list[int]) -> str:
    tokens = vocabulary()
    return "".join(tokens[id] for id in ids)


# Conversations


def converse(turns: list[str], *arguments: object, status: int = 0) -> Outcome:
    report = scratch() / "report.json"
    text = "".join(turn + "\n" for turn in turns)
    process = start("--chat", "--json", report, "--verbose", *arguments)
    done = finish(process, status, text)
    return Outcome(
        done.status, done.stdout, done.stderr, json.loads(report.read_text())
    )


@suite.check("command-conversation")
def conversation() -> None:
    """Five turns: each feeds its own tokens alone, and answers as a run that is
    given all tokens before. Some answers end by themselves, some by -n."""
    done = converse(TURNS, "-n", 24, *EXACT)
    sequences = done.report["sequences"]
    assert len(sequences) == len(TURNS)
    assert ">" not in done.stdout and "> " not in done.stderr
    assert done.stdout == "".join(one["text"] + "\n" for one in sequences)
    history: list[int] = []
    prefills = []
    for turn, (said, sequence) in enumerate(zip(TURNS, sequences)):
        ids, answer = sequence["prompt_ids"], sequence["ids"]
        prefills.append(len(ids))
        # What an answer cut by -n ended with is fed with the next turn.
        before = "<|im_end|>\n" if turn else ""
        if turn and not ended:
            before = spelled(ids[:1]) + before
        if turn == 0:
            assert spelled(ids).startswith("<|im_start|>system\n")
            assert spelled(ids).endswith(
                f"user\n{said}<|im_end|>\n<|im_start|>assistant\n"
            )
        else:
            assert spelled(ids) == (
                f"{before}<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n"
            )
        history += ids
        alone = run(smollm2(), "--ids", ",".join(map(str, history)), "-n", 24, *EXACT)
        assert alone.sequence(0) == answer, turn
        ended = answer[-1] == 2
        assert ended or len(answer) == 24
        history += answer[:-1]
        told = f"turn {turn + 1}: prefill {len(ids)} tokens in "
        assert told in done.stderr, turn
    assert max(prefills[1:]) < 25 < prefills[0]
    assert done.report["prefill"]["tokens"] == sum(prefills)
    assert done.report["cache"]["appended_tokens"] == len(history)


@suite.check("command-conversation-too-long")
def conversation_too_long() -> None:
    """A turn without room is refused with the numbers; a shorter one goes on."""
    long = "word " * 60
    done = converse(["Hi!", long, "", "Yes."], "-n", 4, "--ctx", 80, status=1)
    sequences = done.report["sequences"]
    assert len(sequences) == 2
    length = len(sequences[0]["prompt_ids"]) + len(sequences[0]["ids"])
    # "word", 59 times " word" and " ", and what the template has around a turn:
    # as around the two of "Yes.", after the last of the cut answer.
    template = len(sequences[1]["prompt_ids"]) - 3
    told = (
        f"error: the turn has {61 + template} tokens, the conversation so far "
        f"{length}, the context holds 80: say less, or start again with a larger --ctx"
    )
    assert told in done.stderr and template == 11
    assert spelled(sequences[1]["prompt_ids"]).endswith(
        "<|im_end|>\n<|im_start|>user\nYes.<|im_end|>\n<|im_start|>assistant\n"
    )


@suite.check("command-conversation-without-blocks")
def conversation_without_blocks() -> None:
    """A turn that gets no blocks of the cache ends the conversation."""
    done = converse(["Hi!", "Why?", "No."], "-n", 20, "--pool-blocks", 4, status=1)
    told = "error: the conversation ends: turn 2 ended after "
    assert told in done.stderr and "block" in done.stderr
    assert len(done.report["sequences"]) == 2


@suite.check("command-conversation-nothing")
def conversation_nothing() -> None:
    """The end of input ends a conversation quietly, also before it began."""
    done = finish(start("--chat", "-q"), 0)
    assert (done.stdout, done.stderr) == ("", "")
    # A last line without its end is a turn as well.
    assert finish(start("--chat", "-q", "-n", 3), 0, "Hi!").stdout != ""


@suite.check("command-conversation-template")
def conversation_template() -> None:
    """A model without a chat template is refused before it is compiled."""
    done = call("LLM_RUN", "-m", tiny(), "--chat", "--verbose", status=1)
    assert done.stderr == "llm-run: error: the model has no chat template\n"


@suite.check("command-conversation-terminal")
def conversation_terminal() -> None:
    """A terminal is prompted, on stderr; its end of input ends the line."""
    ours, theirs = pty.openpty()
    process = start("--chat", "-q", "-n", 3, stdin=theirs)
    os.write(ours, b"Hi!\n\x04")
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, b"> > \n")
    assert stdout.count(b"\n") == 1 and b"> " not in stdout


@suite.check("command-progress")
def progress() -> None:
    """A terminal shows what takes time, and nothing of it stays."""

    def shown() -> str:
        ours, theirs = pty.openpty()
        process = start("-p", "Once", "-n", 1, stderr=theirs)
        os.close(theirs)
        process.communicate(timeout=300)
        text = os.read(ours, 1 << 16).decode()
        assert process.returncode == 0
        os.close(ours)
        return text

    text = shown()
    erase = "\r\033[K"
    assert text.startswith(f"compiling for this CPU ...{erase}packing 272 tensors of ")
    assert text.count(erase) == 2
    done = finish(start("-p", "Once", "-n", 1, "-q"), 0)
    assert done.stderr == ""


# Ends


@suite.check("command-interrupted")
def interrupted() -> None:
    """Ctrl-C ends after the running step, with statistics; status 130."""
    process = start("-p", "Once upon a time", "--ignore-eos", "-n", 4000)
    begun = process.stdout.read(40)
    process.send_signal(signal.SIGINT)
    done = finish(process, 130)
    assert len(begun) == 40 and done.stdout.endswith("\n")
    assert "tokens/s" in done.stderr and "decode " in done.stderr


@suite.check("command-interrupted-waiting")
def interrupted_waiting() -> None:
    """So it does where a conversation waits for its next turn."""
    process = start("--chat", "-n", 3)
    process.stdin.write(b"Hi!\n")
    process.stdin.flush()
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert b"decode 2 tokens" in process.stderr.read()


@suite.check("command-interrupted-twice")
def interrupted_twice() -> None:
    """The second Ctrl-C kills, in the middle of a long step."""
    long = ["--prefill-chunk", 8000, "--ctx", 8000, "-t", 1, "--weights-as", "f32"]
    process = start("--chat", "-n", 3, *long)
    process.stdin.write(b"Hi!\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdin.write(b"word " * 7000 + b"\n")
    process.stdin.flush()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "the first waits for the step"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=2) == -signal.SIGINT


@suite.check("command-interrupted-score")
def interrupted_score() -> None:
    """A score ends after the window, with what it has."""
    file = scratch() / "text"
    file.write_text("Once upon a time there was a fox. " * 40000)
    process = start("--score", file, "--window-tokens", 256)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    done = finish(process, 130)
    assert "score " in done.stderr and "ppl " in done.stderr


@suite.check("command-closed-pipe")
def closed_pipe() -> None:
    """Nobody reads on: the run ends by SIGPIPE, without a word."""
    for restore in [True, False]:  # whoever ignores SIGPIPE hands that down
        process = start(
            *("-p", "Once upon a time", "--ignore-eos", "-n", 4000),
            restore_signals=restore,
        )
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGPIPE
        assert process.stderr.read() == b""
    nobody, pipe = os.pipe()
    os.close(nobody)
    command = [os.environ["LLM_IMPORT"], str(smollm2())]
    done = subprocess.run(
        command, stdout=pipe, stderr=subprocess.PIPE, restore_signals=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@suite.check("command-full-output")
def full_output() -> None:
    """Text that finds no room ends the run, with an error."""
    for arguments in [["-p", "Once", "-n", 4000], ["--tokenize", __file__]]:
        with open("/dev/full", "wb") as full:
            done = finish(start(*arguments, stdout=full), 1)
        assert "error: standard output: no space left on device" in done.stderr
        assert "decode" not in done.stderr or "decode 0 tokens" in done.stderr


# The same again


@suite.check("command-seed")
def seed() -> None:
    """The same seed, threads and CPU give the same text."""

    def draw(seed: int, *more: object) -> list[int]:
        sampling = ["--temp", 0.8, "--seed", seed, "-t", 2, *more]
        done = run(smollm2(), "-p", "Once upon a time", "-n", 60, *sampling)
        return done.sequence(0)

    first = draw(7)
    assert draw(7) == first
    assert draw(8) != first
    assert draw(7, "--top-k", 1) == draw(8, "--top-k", 1), "the best token, always"


@suite.check("command-repeat-penalty")
def repeat_penalty() -> None:
    """llama.cpp's definition, applied to the logits of every step in numpy."""
    prompt, penalty = "one two three one two three one two three", 1.3
    common = [*EXACT, "-p", prompt, "-n", 80, "--ignore-eos"]
    done = run(smollm2(), *common, "--repeat-penalty", penalty)
    ids = done.report["sequences"][0]["prompt_ids"] + done.sequence(0)
    rows = logits(smollm2(), ids[:-1], *EXACT)
    changed = 0
    for position in range(len(ids) - 81, len(ids) - 1):
        row = rows[position].copy()
        last = sorted(set(ids[: position + 1][-64:]))
        row[last] = np.where(row[last] > 0, row[last] / penalty, row[last] * penalty)
        assert ids[position + 1] == np.argmax(row), position
        changed += np.argmax(row) != np.argmax(rows[position])
    assert changed > 5
    # What is within the last 64 tokens does not decide about those before.
    assert len(set(ids)) < len(ids)


# Memory


def tiny(**changes: Any) -> Path:
    shape = Shape(hidden=96, heads=3, kv_heads=1, head_dim=32, ffn=64)
    weights = checkpoints.make_weights(shape, seed=1)
    return checkpoints.write_gguf(
        scratch() / "tiny.gguf",
        shape,
        weights,
        lambda name: gguf.GGMLQuantizationType.F32,
        **changes,
    )


@suite.check("command-memory")
def memory() -> None:
    """A pool is address space: peak memory does not contain it."""
    common = ["-p", "Once upon a time", "-n", 4, "--verbose"]
    small = run(smollm2(), *common, "--ctx", 64)
    large = run(smollm2(), *common, "--pool-blocks", 20000)
    assert large.report["cache"]["total_blocks"] == 20000
    block = large.report["cache"]["block_bytes"]
    assert 20000 * block > 7e9
    difference = large.report["peak_rss_bytes"] - small.report["peak_rss_bytes"]
    assert difference < 64 << 20, difference
    # Of which only the blocks that 8 tokens fill are needed, and the guard.
    cache = f"cache at most {2 * block / 2**20:.1f} MiB"
    for done in [small, large]:
        packed = done.report["weights"]["packed_bytes"]
        assert f"weights {packed / 2**20:.1f} MiB, {cache}, " in done.stderr
    default = run(smollm2(), "-p", "Once", "--ctx", 4096, "-n", 4)
    assert default.report["peak_rss_bytes"] < small.report["peak_rss_bytes"] + (
        32 << 20
    )


@suite.check("command-memory-workspace")
def memory_workspace() -> None:
    """The estimate of a step's workspace is near what longer steps take."""
    text = scratch() / "text"
    text.write_text("word " * 2000)
    common = ["-f", text, "-n", 1, "--verbose", "--prefill-chunk"]
    run(smollm2(), *common, 32)  # compiles
    least, most = (run(smollm2(), *common, chunk) for chunk in (32, 2000))
    taken = (most.report["peak_rss_bytes"] - least.report["peak_rss_bytes"]) / 2**20
    told = [
        float(after_last(done.stderr, "workspace about ").split()[0])
        for done in (least, most)
    ]
    assert 0.5 < (told[1] - told[0]) / taken < 2, (told, taken)


def after_last(text: str, words: str) -> str:
    return text.rpartition(words)[2]


@suite.check("command-memory-refused")
def memory_refused() -> None:
    """More cache than memory is refused before anything is loaded."""
    model = ["-m", tiny(context=2**31 - 1), "--ids", "1,2,3"]
    done = call("LLM_RUN", *model, "--ctx", 2**31 - 1, "-q", status=1)
    # 2 layers, K and V, one head of 32 numbers of f16; a guard block.
    need = (2**31 + 16) * 2 * 2 * 32 * 2 / 2**20
    assert f"cache at most {need:.1f} MiB" in done.stderr
    words = "are available (try a smaller --ctx or -n, fewer --pool-blocks, or"
    assert "error: not enough memory: " in done.stderr and words in done.stderr
    # Each of these helps.
    call("LLM_RUN", *model, "-n", 1)
    call("LLM_RUN", *model, "-n", 1, "--ctx", 2**31 - 1)
    few = ["--ctx", 2**31 - 1, "--pool-blocks", 4, "--ignore-eos"]
    done = call("LLM_RUN", *model, *few, status=1)
    assert "sequence 0 ended after 62 tokens: " in done.stderr


# Compiled code


@suite.check("command-unwritable-home")
def unwritable_home() -> None:
    """No folder for compiled code: a remark, where asked for."""
    del os.environ["XDG_CACHE_HOME"]
    model = tiny()
    for home in ["/proc", "/dev/null"]:
        os.environ["HOME"] = home
        arguments = ["-m", model, "--ids", "1,2", "-n", 1]
        done = call("LLM_RUN", *arguments, "--verbose")
        told = f"llm-run: compiled code not kept: {home}/.cache/llm: no"
        assert told in done.stderr
        assert "compiled code" not in call("LLM_RUN", *arguments).stderr


@suite.check("command-two-at-once")
def two_at_once() -> None:
    """Two runs compile at once; a third finds what they kept, or makes a damaged
    one anew."""
    os.environ["XDG_CACHE_HOME"] = str(scratch())
    both = [start("-p", "Once", "-n", 4, "--verbose") for _ in range(2)]
    texts = {finish(process, 0).stdout for process in both}
    assert len(texts) == 1
    third = call("LLM_RUN", "-m", smollm2(), "-p", "Once", "-n", 4, "--verbose")
    assert "compiled code read from" in third.stderr
    (entry,) = Path(os.environ["XDG_CACHE_HOME"], "llm").iterdir()
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    again = call("LLM_RUN", "-m", smollm2(), "-p", "Once", "-n", 4, "--verbose")
    assert "compiled code kept in" in again.stderr
    assert texts == {third.stdout} == {again.stdout}


suite.main()
