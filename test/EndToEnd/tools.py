"""Runs llm-run and finds the files that the checks read.

CTest hands the paths over: LLM_RUN and LLM_IMPORT are the tools, LLM_MODEL is
SmolLM2's GGUF file, LLM_SHARED the shared files (default: ../shared).
"""

import atexit
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suite import Skip

REPOSITORY = Path(__file__).resolve().parents[2]
EXACT = ["--weights-as", "f32", "--cache-dtype", "f32"]


def shared(path: str) -> Path:
    root = Path(os.environ.get("LLM_SHARED") or REPOSITORY.parent / "shared")
    if not root.is_dir():
        raise Skip(f"no shared files at {root}; set LLM_SHARED")
    return root / path


def smollm2() -> Path:
    path = Path(os.environ["LLM_MODEL"])
    assert path.exists(), f"{path} is missing, scripts/setup fetches it"
    return path


def scratch() -> Path:
    """A new folder, gone when the check is over."""
    path = Path(tempfile.mkdtemp(prefix="llm-e2e-"))
    atexit.register(shutil.rmtree, path)
    return path


# Each check compiles for itself, and no user's cache is touched.
os.environ["XDG_CACHE_HOME"] = str(scratch())


@dataclass(frozen=True)
class Outcome:
    """What a tool left: exit status, both streams and the --json object."""

    status: int
    stdout: str
    stderr: str
    report: dict[str, Any]

    def sequence(self, index: int) -> list[int]:
        return self.report["sequences"][index]["ids"]


def call(tool: str, *arguments: object, status: int = 0) -> Outcome:
    """Runs a tool by the name of its variable; demands an exit status."""
    command = [os.environ[tool], *map(str, arguments)]
    print("+", " ".join(command), flush=True)
    done = subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, timeout=900
    )
    stdout, stderr = (
        text.decode(errors="replace") for text in (done.stdout, done.stderr)
    )
    print(stderr, flush=True)
    assert done.returncode == status, f"expected exit {status}, got {done.returncode}"
    return Outcome(done.returncode, stdout, stderr, {})


def run(model: Path, *arguments: object, status: int = 0) -> Outcome:
    """llm-run with its --json report."""
    report = scratch() / "report.json"
    done = call("LLM_RUN", "-m", model, "--json", report, *arguments, status=status)
    return Outcome(
        done.status, done.stdout, done.stderr, json.loads(report.read_text())
    )


def logits(model: Path, ids: list[int], *arguments: object) -> np.ndarray:
    """Logits after each id, in f32: [tokens, vocabulary]."""
    dump = scratch() / "logits"
    text = ",".join(map(str, ids))
    call("LLM_RUN", "-m", model, "--ids", text, "--dump-logits", dump, *arguments)
    return np.fromfile(dump, "<f4").reshape(len(ids), -1)


# Generated ids that are fair to demand: expected-chat-2 passes a tie after 165.
DEMANDED = {"chat-1": 38, "chat-2": 165, "raw-1": 256}


@dataclass(frozen=True)
class Expected:
    """An expected-*.txt file of SmolLM2."""

    text: str  # of the user, or the raw prompt
    prompt_ids: list[int]
    ids: list[int]


def expected(name: str) -> Expected:
    content = shared(f"models/smollm2/expected-{name}.txt").read_text()

    def ids(label: str) -> list[int]:
        return [int(word) for word in after(content, label).split()]

    return Expected(
        re.match(r"# \w+ prompt: (.*)\n", content)[1],  # type: ignore[index]
        ids("prompt ids: "),
        ids("generated ids: "),
    )


def after(content: str, label: str) -> str:
    """The rest of the first line that starts with `label`."""
    for line in content.splitlines():
        if line.startswith(label):
            return line.removeprefix(label)
    raise AssertionError(f"no line starts with {label!r}")
