"""Speeds and compile times, reported, and held to what a user may expect."""

import json
import os
import statistics
import subprocess
from pathlib import Path

import suite
from checkpoints import Shape, hugging_face_config, make_weights, write_hugging_face
from tools import REPOSITORY, Outcome, run, scratch, shared, smollm2

# Tokens per second on two threads; others may be at work on the machine, so the
# best of some attempts counts.
PREFILL, DECODE = 100, 20
ATTEMPTS = 3
COMPILATIONS = 9  # an odd number, for medians
# A call of the layers' body and its weights; measured: 2 ms.
SECONDS_OF_LAYER = 0.004


@suite.check("speed-smollm2")
def speed() -> None:
    text = shared("models/smollm2/wikitext64k.txt").read_text()[:2400]
    prefill = decode = 0.0
    for _ in range(ATTEMPTS):
        report = run(smollm2(), "-p", text, "-n", 64, "-t", 2).report
        prefill = max(prefill, report["prefill"]["tokens_per_second"])
        decode = max(decode, report["decode"]["tokens_per_second"])
        if prefill >= PREFILL and decode >= DECODE:
            break
    print(f"prefill {prefill:.1f} tokens/s, decode {decode:.1f} tokens/s")
    assert report["prefill"]["tokens"] > 400
    assert prefill >= PREFILL and decode >= DECODE


def write_model(layers: int) -> Path:
    shape = Shape(layers=layers, hidden=256, heads=4, head_dim=64, ffn=512)
    config = hugging_face_config(shape, "float16")
    weights = make_weights(shape, seed=1)
    return write_hugging_face(scratch() / "model", config, weights, "float16")


@suite.check("compile-time")
def compile_time() -> None:
    """Layers are calls of one body: each adds a call and its weights alone."""
    models = {}
    for layers in 4, 32:
        models[layers] = write_model(layers)
    samples: dict[int, list[float]] = {layers: [] for layers in models}
    for _ in range(COMPILATIONS):  # in turns: what disturbs one disturbs both
        for layers, path in models.items():
            report = run(path, "--ids", "1,2,3", "-n", 1, "--no-cache").report
            samples[layers].append(report["compile_cpu_s"])
    few, many = statistics.median(samples[4]), statistics.median(samples[32])
    print(f"CPU time: 4 layers {few:.3f} s, 32 layers {many:.3f} s")
    assert 0 < many < 10 and many - few <= (32 - 4) * SECONDS_OF_LAYER


@suite.check("bench-model")
def bench_model() -> None:
    """scripts/bench-model runs the real programs; SmolLM2 has a token a word."""
    binaries, output = Path(os.environ["LLM_RUN"]).parent, scratch() / "report.json"
    if not (binaries / "bench-attention").exists():
        raise suite.Skip("no bench-attention: Google Benchmark is missing")
    command = [REPOSITORY / "scripts/bench-model", "--model", smollm2()]
    command += ["--binaries", binaries, "--output", output, "--rounds", "1"]
    command += ["--cases", "2x16", "--weights-as", "bf16", "--cache-dtype", "i8"]
    subprocess.run(command, check=True)
    rows = {row["name"]: row for row in json.loads(output.read_text())["benchmarks"]}
    for work in "prefill", "decode":
        start = f"{work}/bf16/cache:i8/batch:2/ctx:32/threads:"
        (row,) = (row for name, row in rows.items() if name.startswith(start))
        assert 0 < row["ratio"] < 3, row  # others may be at work on the machine
        assert 0 < row["attention"] < row["median"], row


@suite.check("compile-cache")
def compile_cache() -> None:
    """A second run compiles nothing, unless it shall or finds nothing sound."""
    model, caches = write_model(layers=4), scratch()
    os.environ["XDG_CACHE_HOME"] = str(caches)

    def start(*options: str) -> Outcome:
        return run(model, "--ids", "1,2,3", "-n", 8, "--verbose", *options)

    plain = start("--no-cache")
    assert not any(caches.iterdir())
    first = start()
    (entry,) = (caches / "llm").iterdir()
    assert f"llm-run: compiled code kept in {entry}\n" in first.stderr
    second = start()
    assert f"llm-run: compiled code read from {entry}\n" in second.stderr
    assert "(cached)" in second.stderr and "(cached)" not in first.stderr
    entry.write_bytes(entry.read_bytes()[:1000])
    mended, again, without = start(), start(), start("--no-cache")
    del os.environ["XDG_CACHE_HOME"], os.environ["HOME"]
    homeless = start()
    words = "compiled code not kept: neither XDG_CACHE_HOME nor HOME is an absolute"
    assert words in homeless.stderr

    cached, compiled = [second, again], [plain, first, mended, without, homeless]
    for done in cached + compiled:
        assert done.report["compile_cached"] == (done in cached)
        assert done.sequence(0) == plain.sequence(0)
    slowest = max(done.report["compile_cpu_s"] for done in cached)
    fastest = min(done.report["compile_cpu_s"] for done in compiled)
    print(f"CPU time: cached {slowest:.3f} s, compiled {fastest:.3f} s")
    assert slowest <= 0.5 * fastest


suite.main()
