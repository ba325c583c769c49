"""Other programs that run a GGUF file, for scripts/bench-model --peer.

Each is installed once, at the version pinned here, in a folder of its own in
build/peers: nothing of them is part of the product.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from reports import REPOSITORY

PEERS_AT = REPOSITORY / "build/peers"
OPENVINO_DRIVER = REPOSITORY / "benchmarks/bench-openvino.py"

LLAMA_CPP = "llama-cpp-python==0.3.36"
LLAMA_CPP_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
LLAMA_CPP_OPTIONS = """
    -DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DBUILD_SHARED_LIBS=OFF
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_ALL_WARNINGS=OFF
"""
OPENVINO = """
    openvino-genai==2026.4.1.0 openvino==2026.4.1 openvino-tokenizers==2026.4.1.0
    openvino-telemetry==2025.2.0 numpy==2.4.6
"""
CELLS = 256  # of llama.cpp's cache, to which it rounds up


@dataclass(frozen=True)
class Task:
    """What llm-run did: a prompt of `tokens` on each line of a file, then steps of decode."""

    model: Path
    prompts: Path
    sequences: int
    tokens: int  # of a prompt
    steps: int
    threads: int


@dataclass(frozen=True)
class Run:
    """How long a peer took for a task, with settings that it chose itself."""

    settings: str
    load: float  # seconds, all of them
    prefill: float
    decode: float  # of all steps


class Peer:
    """A program in a folder, there if the folder's stamp tells how it is made today."""

    name = ""
    cache = ""  # its format of K and V
    recipe = ""
    about = ""

    def __init__(self, folder: Path):
        self.folder = folder / self.name

    def install(self) -> None:
        stamp = self.folder / "recipe.txt"
        if stamp.exists() and stamp.read_text() == self.recipe:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.attempt(sys.executable, "-m", "venv", self.folder / "venv")
        self.build()
        stamp.write_text(self.recipe)

    def build(self) -> None:
        raise NotImplementedError

    def run(self, task: Task) -> list[Run]:
        """One for each of the settings that may be the fastest."""
        raise NotImplementedError

    def pip(self, *words: object) -> None:
        usual = "--quiet", "--disable-pip-version-check"
        self.attempt(self.folder / "venv/bin/python", "-m", "pip", words[0], *usual, *words[1:])

    def attempt(self, *command: object) -> None:
        words = [str(word) for word in command]
        print(f"peer {self.name}: {shlex.join(words)}", file=sys.stderr)
        try:
            done = subprocess.run(words, stdout=sys.stderr, check=False).returncode == 0
        except OSError as error:
            print(error, file=sys.stderr)
            done = False
        if not done:
            sys.exit(f"error: cannot install peer {self.name}: failed: {shlex.join(words)}")

    def say(self, *command: object) -> str:
        """What it prints; where it fails, that is the error."""
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr}error: peer {self.name} failed: {shlex.join(words)}")
        return done.stdout

    def expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            sys.exit(f"error: peer {self.name} has {what} {found}, expected {expected}")


class LlamaCpp(Peer):
    """Its own llama-batched-bench, for this machine's instructions."""

    name = "llama.cpp"
    cache = "f16"
    recipe = f"{LLAMA_CPP} {LLAMA_CPP_SHA256} {LLAMA_CPP_OPTIONS}"
    about = f"of {LLAMA_CPP}, native instructions, OpenMP, f16 cache, random tokens"

    def build(self) -> None:
        pinned = self.folder / "requirements.txt"
        pinned.write_text(f"{LLAMA_CPP} --hash=sha256:{LLAMA_CPP_SHA256}\n")
        what = "--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes", "-r", pinned
        self.pip("download", *what, "--dest", self.folder)
        (archive,) = self.folder.glob("llama_cpp_python-*.tar.gz")
        self.attempt("tar", "-xzf", archive, "-C", self.folder)
        source = self.folder / archive.name.removesuffix(".tar.gz") / "vendor/llama.cpp"
        options = ["-G", "Ninja", *LLAMA_CPP_OPTIONS.split()]
        self.attempt("cmake", "-S", source, "-B", self.folder / "build", *options)
        self.attempt("cmake", "--build", self.folder / "build", "--target", "llama-batched-bench")

    def run(self, task: Task) -> list[Run]:
        return [self.run_with(task, attention) for attention in ("on", "off")]

    def run_with(self, task: Task, attention: str) -> Run:
        room = task.sequences * (task.tokens + task.steps + CELLS)
        start = time.perf_counter()
        said = self.say(
            self.folder / "build/bin/llama-batched-bench",
            *("-m", task.model, "-c", room, "-t", task.threads, "-tb", task.threads),
            *("-npp", task.tokens, "-ntg", task.steps, "-npl", task.sequences),
            *("-fa", attention, "-ctk", self.cache, "-ctv", self.cache),
            *("--output-format", "jsonl"),
        )
        seconds = time.perf_counter() - start
        lines = [line for line in said.splitlines() if line.startswith("{")]
        self.expect("lines of figures:", len(lines), 1)
        found = json.loads(lines[0])
        self.expect("tokens of a prompt:", found["pp"], task.tokens)
        self.expect("sequences:", found["pl"], task.sequences)
        self.expect("steps:", found["tg"], task.steps)
        load = seconds - found["t_pp"] - found["t_tg"]
        return Run(f"flash attention {attention}", load, found["t_pp"], found["t_tg"])


class OpenVino(Peer):
    """OpenVINO GenAI's pipeline and its own reader of GGUF."""

    name = "openvino"
    cache = "u8"
    recipe = OPENVINO
    about = f"of {OPENVINO.split()[0]}, its default settings, u8 cache"

    def build(self) -> None:
        self.pip("install", "--no-deps", *OPENVINO.split())

    def run(self, task: Task) -> list[Run]:
        report = task.prompts.with_suffix(".openvino.json")
        self.say(
            *(self.folder / "venv/bin/python", OPENVINO_DRIVER, "--json", report),
            *("--model", task.model, "--prompts", task.prompts),
            *("--steps", task.steps, "--threads", task.threads),
        )
        found = json.loads(report.read_text())
        self.expect("tokens of prompts:", found["prompt_tokens"], [task.tokens] * task.sequences)
        self.expect("tokens:", found["tokens"], [task.steps + 1] * task.sequences)
        self.expect("a cache of", found["cache"], self.cache)
        return [Run("default", found["load"], found["prefill"], found["decode"])]


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (LlamaCpp, OpenVino)}
