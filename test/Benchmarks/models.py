"""Tests scripts/bench-model: what it runs, and the figures that it makes of it.

Programs of a few lines stand for llm-run, bench-attention and the peers; they
say what the test wrote into `script.json`, one entry for each call.
"""

import json
import os
import sys
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tools import BENCH_ATTENTION, REPOSITORY, ToolTest

sys.path.insert(0, str(REPOSITORY / "scripts"))
from peers import OPENVINO_DRIVER, PEERS

BENCH_MODEL = REPOSITORY / "scripts/bench-model"
STEPS = 64
PREFILL = "prefill/f32/cache:f16/ctx:8/threads:2"
DECODE = "decode/f32/cache:f16/ctx:8/threads:2"
START = "start/f32/cache:f16/ctx:8/threads:2"
LLAMA_CPP, OPENVINO = "llama.cpp/cache:f16", "openvino/cache:u8"  # for those formats

PROGRAM = """#!{python}
import json, os, sys
from pathlib import Path

folder = Path("{folder}")
calls = folder / "{name}.calls"
options = sys.argv[1:]
if options == ["--help"]:
    print("  --weights-as=<f32|bf16>  - What weights are unpacked to")
    sys.exit()
said = {{name: value for name, value in zip(options, options[1:]) if name[0] == "-"}}
said["kept in"] = os.environ.get("XDG_CACHE_HOME")
if "--prompts" in said:
    said["lines"] = Path(said["--prompts"]).read_text().splitlines()
past = calls.read_text().splitlines() if calls.exists() else []
with calls.open("a") as file, (folder / "turns").open("a") as turns:
    file.write(json.dumps(said) + "\\n")
    turns.write("{name}\\n")
script = json.loads((folder / "script.json").read_text())["{name}"]
answer = script[len(past) % len(script)]
if "fails" in answer:
    sys.exit(answer["fails"])
"""

LLM_RUN = """
tokens = sum(len(line.split()) for line in said["lines"])
answer["prefill"]["tokens"] = tokens
Path(said["--json"]).write_text(json.dumps(answer))
"""

PROBES = """
path = next(word.split("=")[1] for word in options if word.startswith("--benchmark_out"))
rows = [{"name": f"ceiling/{name}/threads:2", "ceiling": rate} for name, rate in answer.items()]
context = {"commit": "abc", "date": "2026-11-22T01:02:03", "machine": "m", "target": "t"}
text = json.dumps({"context": context, "benchmarks": rows})
Path(path).write_text(text if answer else "")
"""

LLAMA_BATCHED_BENCH = """
recorded = '''
{"n_kv_max": 768, "n_batch": 2048, "n_ubatch": 512, "flash_attn": 1, "is_pp_shared": 0,
"n_gpu_layers": -1, "n_threads": 2, "n_threads_batch": 2, "pp": 512, "tg": 64, "pl": 1,
"n_kv": 576, "t_pp": 3.145923, "speed_pp": 162.750381, "t_tg": 1.608071,
"speed_tg": 39.799240, "t": 4.753993, "speed": 121.161308}
'''
did = {"pp": int(said["-npp"]), "tg": int(said["-ntg"]), "pl": int(said["-npl"])}
print()
print(json.dumps(json.loads(recorded) | did | answer))
print()
"""

BENCH_OPENVINO = """
prompts = [len(line.split()) for line in said["lines"]]
tokens = [int(said["--steps"]) + 1] * len(prompts)
found = {"prompt_tokens": prompts, "tokens": tokens, "load": 3, "cache": "u8"}
Path(said["--json"]).write_text(json.dumps(found | answer))
"""

OPENVINO_GENAI = """
from types import SimpleNamespace as Object


class Tensor(list):
    def sum(self, axis):
        return [sum(row) for row in self]


class LLMPipeline:
    def __init__(self, model, device, **properties):
        print(model, device, properties)

    def get_tokenizer(self):
        return self

    def encode(self, prompts):
        print(prompts)
        return Object(attention_mask=Object(data=Tensor([1] * len(p.split()) for p in prompts)))

    def generate(self, inputs, config):
        produced = [1000 + 20 * i for i in range(config.max_new_tokens)]
        raw = Object(m_times_to_first_token=[250000.0], m_new_token_times=produced)
        tokens = [[7] * config.max_new_tokens for _ in inputs.attention_mask.data]
        return Object(tokens=tokens, perf_metrics=Object(raw_metrics=raw))


GenerationConfig = Object
Core = lambda: Object(get_property=lambda *_: Object(get_type_name=lambda: "u8"))
"""


def phase(seconds: float, steps: int, flops: int) -> dict:
    attention = {"seconds": seconds / 4, "bytes": 0, "flops": flops}
    return {"seconds": seconds, "steps": steps, "attention": attention}


def report(prefill: float = 0.5, step: float = 0.01, **changes) -> dict:
    """A run of a model of 1000 weights in layers and 200 in its head."""
    sizes = {
        "packed_bytes": 4800,
        "layers": {"parameters": 1000, "file_bytes": 625},
        "head": {"parameters": 200, "file_bytes": 212},
    }
    return {
        "prefill": phase(prefill, steps=2, flops=3000),
        "decode": phase(step * STEPS, STEPS, flops=STEPS * 500),
        "load_s": 0.3,
        "pack_s": 0.2,
        "compile_s": 0.4,
        "peak_rss_bytes": 7 << 20,
        "kv_bytes_per_token": 10,
        "weights": sizes,
        **changes,
    }


def probe(read: float = 1e6, fma: float = 1e6, **others: float) -> dict:
    return {"read": read, "fma": fma, **others}


def llama_cpp_run(prefill: float = 0.002, step: float = 1e-4) -> dict:
    """Quicker than its program starts: what is left of its time is `load`."""
    return {"t_pp": prefill, "t_tg": step * STEPS}


def openvino_run(prefill: float = 0.25, step: float = 0.04, **changes) -> dict:
    return {"prefill": prefill, "decode": step * STEPS, **changes}


class Models(ToolTest):
    def setUp(self):
        super().setUp()
        self.model = self.write_text("model.gguf", "")
        self.report = self.folder / "report.json"
        self.write_program("llm-run", "llm-run", LLM_RUN)
        self.write_program("bench-attention", "bench-attention", PROBES)

    def write_program(self, path: str, name: str, rest: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        said = {"python": sys.executable, "name": name, "folder": self.folder}
        self.write_text(path, PROGRAM.format(**said) + rest).chmod(0o755)

    def write_peers(self) -> list:
        """The options that measure them."""
        self.write_program(
            "peers/llama.cpp/build/bin/llama-batched-bench", "llama.cpp", LLAMA_BATCHED_BENCH
        )
        self.write_program("peers/openvino/venv/bin/python", "openvino", BENCH_OPENVINO)
        for name, peer in PEERS.items():
            self.write_text(f"peers/{name}/recipe.txt", peer.recipe)
        peers = [word for name in PEERS for word in ("--peer", name)]
        return [*peers, "--peer-folder", self.folder / "peers"]

    def bench(
        self,
        *options,
        runs=None,
        probes=None,
        llama_cpp=None,
        openvino=None,
        weights=("--weights-as", "f32"),
        status: int = 0,
    ) -> str:
        """What it prints of these runs and probes, with the fewest of each."""
        script = {"llm-run": runs or [report()], "bench-attention": probes or [probe()]}
        script["llama.cpp"] = llama_cpp or [llama_cpp_run()]
        script["openvino"] = openvino or [openvino_run()]
        self.write_text("script.json", json.dumps(script))
        files = ["--model", self.model, "--binaries", self.folder, "--output", self.report]
        usual = ["--threads", "2", "--rounds", "1", "--cache-dtype", "f16", "--cases", "8"]
        return self.run_tool(BENCH_MODEL, *files, *usual, *weights, *options, status=status)

    def rows(self, *options, **script) -> dict[str, dict]:
        self.bench(*options, **script)
        return {row["name"]: row for row in json.loads(self.report.read_text())["benchmarks"]}

    def calls(self, name: str) -> list[dict]:
        lines = (self.folder / f"{name}.calls").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def check(self, row: dict, **figures: float) -> None:
        for name, expected in figures.items():
            self.assertAlmostEqual(row[name], expected, delta=1e-9 * abs(expected), msg=name)

    # Figures

    def test_prefill_reads_the_layers_for_each_chunk(self):
        size = 2 * 4000 + 800 + 10 * 8 * 1.5
        operations = 2 * (1000 * 8 + 200) + 3000
        row = self.rows()[PREFILL]
        self.check(row, median=0.5, tokens_per_second=16, attention=0.125)
        self.check(row, bytes=size, operations=operations, floor=operations / 1e6)
        self.check(row, ratio=operations / 1e6 / 0.5, flops=2 * operations)
        self.check(row, ceiling=1e6, rate=1e6, bandwidth=1e6, bytes_per_second=2 * size)

    def test_decode_reads_every_matrix_and_the_cache(self):
        size = 4800 + 10 * (8 + (STEPS + 1) / 2)
        row = self.rows(probes=[probe(read=2e6, fma=1e9)])[DECODE]
        self.check(row, median=0.01, tokens_per_second=100, attention=0.0025, bytes=size)
        self.check(row, operations=2 * 1200 + 500, floor=size / 2e6, ratio=size / 2e6 / 0.01)
        self.check(row, ceiling=2e6, spread=0, noisy=0)

    def test_formats_decide_what_is_read(self):
        cache = 10 * (8 + (STEPS + 1) / 2)
        for weights, size in ("f32", 4800), ("bf16", 2400), ("native", 837):
            row = self.rows("--weights-as", weights)[DECODE.replace("f32", weights)]
            self.check(row, bytes=size + cache)

    def test_formats_decide_which_instructions_count(self):
        rates = [probe(1e9, 100e3, bf16dot=50e3, bf16matrix=800e3, int8dot=400e3)]
        options = "--weights-as", "f32,bf16,native", "--cache-dtype", "f16,i8,bf16"
        rows = self.rows(*options, probes=rates)
        linear, dots = 2 * 1200, 500
        for weights, rate in ("f32", 100e3), ("bf16", 800e3), ("native", 800e3):
            for cache, other in ("f16", 100e3), ("i8", 400e3), ("bf16", 800e3):
                row = rows[f"decode/{weights}/cache:{cache}/ctx:8/threads:2"]
                self.check(row, floor=linear / rate + dots / other, rate=rate)

    def test_a_batch_decodes_its_sequences_at_once(self):
        rows = self.rows("--cases", "4x8")
        row = rows["decode/f32/cache:f16/batch:4/ctx:32/threads:2"]
        self.check(row, tokens_per_second=400, bytes=4800 + 10 * (32 + 4 * (STEPS + 1) / 2))
        self.check(row, operations=4 * 2 * 1200 + 500)
        self.assertFalse([name for name in rows if name.startswith("start/")])

    def test_a_batch_reads_no_other_prompt_in_prefill(self):
        row = self.rows("--cases", "4x8")["prefill/f32/cache:f16/batch:4/ctx:32/threads:2"]
        self.check(row, bytes=2 * 4000 + 800 + 10 * 32)
        self.check(row, operations=2 * (1000 * 32 + 4 * 200) + 3000, tokens_per_second=64)

    def test_start_has_seconds_and_sizes(self):
        row = self.rows()[START]
        self.check(row, median=0.7, load=0.3, pack=0.2, compile=0.4)
        self.check(row, peak_memory=7 << 20, weight_bytes=4800, kv_bytes_per_token=10)

    def test_start_tells_compiled_from_cached(self):
        cached = [report(compile_s=seconds, compile_cached=True) for seconds in (0.01, 0.03)]
        first = report(compile_s=0.5, compile_cached=False)
        row = self.rows("--rounds", "3", runs=[first, *cached])[START]
        self.check(row, compile=0.5, cached=0.02, median=0.33)
        self.assertNotIn("cached", self.rows(runs=[first])[START])
        output = self.bench(runs=cached[:1])
        self.assertEqual(self.line(output, START)[1:5], ["0.30", "0.20", "-", "0.01"])

    # Rounds

    def test_rounds_have_medians(self):
        runs = [report(step=seconds) for seconds in (0.01, 0.09, 0.02)]
        row = self.rows("--rounds", "3", runs=runs)[DECODE]
        self.check(row, median=0.02, samples=3)
        self.assertGreater(row["spread"], 0)

    def test_rounds_take_formats_in_turns(self):
        self.bench("--rounds", "2", "--weights-as", "f32,bf16", "--cache-dtype", "f16,i8")
        turn = [("f32", "f16"), ("f32", "i8"), ("bf16", "f16"), ("bf16", "i8")]
        taken = [(call["--weights-as"], call["--cache-dtype"]) for call in self.calls("llm-run")]
        self.assertEqual(taken, 2 * turn)
        self.assertEqual(len(self.calls("bench-attention")), 3)  # before, between, after

    def test_ceilings_are_those_around_a_run(self):
        probes = [probe(read) for read in (1e3, 1.1e3, 5e3)]
        row = self.rows(probes=probes)[DECODE]
        self.check(row, bandwidth=1.05e3, noisy=0)

    def test_two_modes_of_memory_are_told_apart(self):
        probes = [probe(read, fma=1e9) for read in (8e5, 8e5, 8e5, 4e5, 4e5, 4e5)]
        row = self.rows("--rounds", "5", probes=probes)[DECODE]
        self.check(row, bandwidth=4e5, fast_bandwidth=8e5, fast_median=0.01)
        self.check(row, ratio=2 * row["fast_ratio"], noisy=0)

    def test_restless_ceilings_are_noise(self):
        probes = [probe(read, fma=1e9) for read in (1e6, 1.3e6, 1e6, 1.3e6)]
        output = self.bench("--rounds", "3", probes=probes)
        self.assertIn("noisy", self.line(output, DECODE)[-1])
        self.assertIn("the machine was noisy in 2 of 5 rows: repeat the run", output)

    def test_a_taken_core_is_noise(self):
        probes = [probe(fma=rate) for rate in (1e6, 1e6, 0.7e6, 0.7e6)]
        self.check(self.rows("--rounds", "3", probes=probes)[DECODE], noisy=1)
        self.check(self.rows("--rounds", "3")[DECODE], noisy=0)

    # Peers

    def test_peers_take_turns_with_llm_run(self):
        self.bench(*self.write_peers(), "--rounds", "2", "--weights-as", "f32,bf16")
        turn = ["llm-run", "llm-run", "llama.cpp", "llama.cpp", "openvino", "bench-attention"]
        turns = (self.folder / "turns").read_text().splitlines()
        self.assertEqual(turns, ["bench-attention", *turn, *turn])

    def test_peers_do_what_llm_run_does(self):
        self.bench(*self.write_peers(), "--cases", "4x8")
        on, off = self.calls("llama.cpp")
        expected = {"-m": str(self.model), "-npp": "8", "-npl": "4", "-ntg": str(STEPS)}
        expected |= {"-t": "2", "-tb": "2", "-ctk": "f16", "-ctv": "f16", "-fa": "on"}
        self.assertLessEqual(expected.items(), on.items())
        self.assertGreaterEqual(int(on["-c"]), 4 * (8 + STEPS))
        self.assertEqual(on | {"-fa": "off"}, off)
        (call,) = self.calls("openvino")
        self.assertEqual(call["lines"], self.calls("llm-run")[0]["lines"])
        expected = {"--model": str(self.model), "--steps": str(STEPS), "--threads": "2"}
        self.assertLessEqual(expected.items(), call.items())

    def test_peers_are_held_to_the_work_of_the_file_s_bits(self):
        rows = self.rows(*self.write_peers(), probes=[probe(read=2e6, fma=1e9)])
        row, size = rows[DECODE.replace("f32/cache:f16", OPENVINO)], 837 + 10 * (8 + 65 / 2)
        self.check(row, median=0.04, tokens_per_second=25, bytes=size, ratio=size / 2e6 / 0.04)
        self.assertNotIn("attention", row)
        row = rows[PREFILL.replace("f32/cache:f16", OPENVINO)]
        self.check(row, median=0.25, tokens_per_second=32, samples=1)
        self.check(row, bytes=2 * 625 + 212 + 10 * 8 * 1.5)
        row = rows[START.replace("f32/cache:f16", OPENVINO)]
        self.check(row, load=3, median=3, samples=1)
        self.assertGreater(rows[START.replace("f32/cache:f16", LLAMA_CPP)]["load"], 0)

    def test_rows_say_how_many_times_as_fast_as_a_peer_they_are(self):
        options = *self.write_peers(), "--cases", "8,4x8", "--cache-dtype", "f16,i8"
        rows = self.rows(*options, openvino=[openvino_run(), openvino_run(0.1, 0.005)])
        name = "{}/f32/cache:{}/{}ctx:{}/threads:2".format
        for cache in "f16", "i8":
            row = rows[name("prefill", cache, "", 8)]
            self.check(row, **{"over_openvino": 0.5, "over_llama.cpp": 0.004})
            self.check(rows[name("decode", cache, "", 8)], over_openvino=4)
            self.check(rows[name("prefill", cache, "batch:4/", 32)], over_openvino=0.2)
            self.check(rows[name("decode", cache, "batch:4/", 32)], over_openvino=0.5)
        self.assertNotIn("over_openvino", self.rows()[DECODE])

    def test_ratios_are_those_of_rounds(self):
        runs = [report(step=seconds) for seconds in (0.01, 0.02, 0.03)]
        peer = [openvino_run(step=seconds) for seconds in (0.05, 0.06, 0.03)]
        row = self.rows(*self.write_peers(), "--rounds", "3", runs=runs, openvino=peer)[DECODE]
        self.check(row, median=0.02, over_openvino=3)  # of 5, 3 and 1

    def test_a_peer_has_its_fastest_settings(self):
        tried = [llama_cpp_run(0.002, 3e-4), llama_cpp_run(0.005, 1e-4)]
        rows = self.rows(*self.write_peers(), "--rounds", "3", llama_cpp=tried)
        row = rows[PREFILL.replace("f32/cache:f16", LLAMA_CPP)]
        self.check(row, median=0.002, samples=3)
        self.assertEqual(row["settings"], "flash attention on")
        row = rows[DECODE.replace("f32/cache:f16", LLAMA_CPP)]
        self.check(row, median=1e-4, samples=3)
        self.assertEqual(row["settings"], "flash attention off")
        self.check(rows[DECODE], **{"over_llama.cpp": 1e-4 / 0.01})

    def test_table_and_history_have_peers(self):
        history = self.folder / "history.jsonl"
        output = self.bench(*self.write_peers(), "--history", history)
        self.assertIn(f"peer llama.cpp: {PEERS['llama.cpp'].about}\n", output)
        self.assertIn("llama-cpp-python==", output)
        self.assertIn("ratio x llama.cpp x openvino\n", output)
        self.assertEqual(self.line(output, DECODE)[8:], ["0.01", "4.00"])
        cells = self.line(output, DECODE.replace("f32/cache:f16", OPENVINO))
        self.assertEqual(
            [*cells[1:3], cells[4], *cells[8:]], ["25.0", "40.00", "-", "-", "-", "default"]
        )
        cells = self.line(output, START.replace("f32/cache:f16", OPENVINO))
        self.assertEqual(cells[1:], ["3.00", *"------"])
        self.assertEqual(self.run_tool(BENCH_MODEL, "--report", self.report), output)
        line = json.loads(history.read_text())
        self.assertEqual(line["rows"][DECODE]["over_openvino"], 4)
        self.assertEqual(line["peers"]["openvino"], PEERS["openvino"].about)

    def test_picture_has_peers(self):
        self.bench(*self.write_peers())
        said = self.report.with_suffix(".svg").read_text()
        self.assertIn("llama.cpp cache f16", said)
        self.assertIn("openvino cache u8", said)

    def test_openvino_says_seconds_of_a_warm_run(self):
        for name in "openvino", "openvino_genai":
            self.write_text(f"{name}.py", OPENVINO_GENAI)
        found, prompts = self.folder / "found.json", self.write_text("prompts", "a b c\nd e f\n")
        command = ["env", f"PYTHONPATH={self.folder}", sys.executable, "-B", OPENVINO_DRIVER]
        options = ["--model", "m.gguf", "--prompts", prompts, "--steps", "4", "--threads", "2"]
        said = self.run_tool(*command, *options, "--json", found).splitlines()
        self.assertEqual(said[0], "m.gguf CPU {'INFERENCE_NUM_THREADS': 2}")
        self.assertEqual(said[1:], ["['c b a', 'f e d']", "['a b c', 'd e f']"])
        row = json.loads(found.read_text())
        self.assertEqual((row["prompt_tokens"], row["tokens"]), ([3, 3], [5, 5]))
        self.check(row, prefill=0.25, decode=0.08)
        self.assertEqual(row["cache"], "u8")

    # What runs

    def test_prompts_have_a_word_for_each_token(self):
        self.bench("--cases", "3x5", "--threads", "2")
        call = self.calls("llm-run")[0]
        self.assertEqual([len(line.split()) for line in call["lines"]], [5, 5, 5])
        self.assertEqual((call["-n"], call["-t"]), (str(STEPS + 1), "2"))
        self.assertGreaterEqual(int(call["--ctx"]), 5 + STEPS + 1)
        self.assertIn("--ignore-eos", call)
        self.assertEqual(call["kept in"], str(Path(call["--json"]).parent))  # and gone with it

    def test_weights_are_all_that_the_program_offers(self):
        self.bench(weights=[])
        taken = [call["--weights-as"] for call in self.calls("llm-run")]
        self.assertEqual(taken, ["f32", "bf16"])

    # Output

    def test_table_has_a_line_for_each_row(self):
        output = self.bench(probes=[probe(2e9, 3e9)])
        self.assertIn("model.gguf, m (t), commit abc; its ceilings:", output)
        self.assertIn("memory read 2.0 GB/s (2.0 to 2.0)", output)
        self.assertEqual(self.line(output, PREFILL)[1:3], ["16.0", "500.00"])
        self.assertEqual(self.line(output, DECODE)[1:5], ["100.0", "10.00", "0.000", "25.0"])
        self.assertEqual(self.line(output, START)[1:5], ["0.30", "0.20", "0.40", "-"])

    def test_table_is_printed_again(self):
        output = self.bench()
        again = self.run_tool(BENCH_MODEL, "--report", self.report)
        self.assertEqual(again, output)

    def test_history_grows_by_a_line(self):
        history, kept = self.folder / "models.jsonl", REPOSITORY / "benchmarks/models.jsonl"
        before = kept.exists() and kept.read_text()
        self.bench()
        self.assertEqual(kept.exists() and kept.read_text(), before)  # it had options
        for _ in range(2):
            self.run_tool(BENCH_MODEL, "--report", self.report, "--history", history)
        first, second = map(json.loads, history.read_text().splitlines())
        self.assertEqual(first, second)
        self.assertEqual((first["model"], first["commit"]), ("model.gguf", "abc"))
        self.assertEqual(first["rows"][DECODE]["tokens_per_second"], 100)
        self.assertEqual(first["rows"][START]["peak_memory"], float(f"{7 << 20:.4g}"))

    def test_picture_has_a_point_for_each_ratio(self):
        self.bench("--cases", "8,4x8", "--weights-as", "f32,bf16")
        picture = ElementTree.parse(self.report.with_suffix(".svg"))
        space = "{http://www.w3.org/2000/svg}"
        self.assertEqual(len(list(picture.iter(f"{space}circle"))), 8)
        said = [text.text for text in picture.iter(f"{space}text")]
        self.assertIn("bf16 cache f16", said)
        titles = ["decode, threads: 2", "decode, batch: 4, threads: 2"]
        self.assertLessEqual({f"{title}: ratio to the ceiling" for title in titles}, set(said))

    def test_reports_can_be_compared(self):
        self.bench()
        said = self.run_tool(BENCH_ATTENTION, "--compare", self.report, self.report)
        self.assertEqual(self.line(said, DECODE)[1:4], ["10000.0", "10000.0", "1.000"])
        self.assertEqual(self.line(said, START)[1:4], ["700000.0", "700000.0", "1.000"])

    # Errors

    def test_what_llm_run_says_is_shown(self):
        said = self.bench(runs=[{"fails": "llm-run: error: no such format"}], status=1)
        self.assertIn("llm-run: error: no such format\nerror: llm-run failed: ", said)
        self.assertIn("--weights-as f32 --cache-dtype f16", said)

    def test_files_that_are_missing(self):
        self.model.unlink()
        said = self.bench(status=1)
        self.assertEqual(said, f"error: no model {self.model}: scripts/setup fetches SmolLM2\n")
        self.write_text("model.gguf", "")
        (self.folder / "llm-run").unlink()
        self.assertEqual(self.bench(status=1), f"error: no program {self.folder / 'llm-run'}\n")

    def test_a_build_that_fails_is_shown(self):
        cmake = self.write_text("cmake", "#!/bin/sh\necho no compiler\nexit 1\n")
        cmake.chmod(0o755)
        command = ["env", f"PATH={self.folder}:{os.environ['PATH']}", BENCH_MODEL]
        said = self.run_tool(*command, "--model", self.model, status=1)
        expected = "no compiler\nerror: cannot build llm-run and bench-attention\n"
        if not (REPOSITORY / "build/release/CMakeCache.txt").exists():
            expected = "error: build/release is not configured: run cmake --preset release\n"
        self.assertEqual(said, expected)

    def test_ceilings_that_are_missing(self):
        said = self.bench(probes=[{}], status=1)
        expected = "error: bench-attention has no ceilings of 2 threads: take 1, 2, ..\n"
        self.assertEqual(said, expected)

    def test_runs_that_end_early(self):
        short = report(decode=phase(1, 7, 100))
        said = self.bench(runs=[short], status=1)
        self.assertEqual(said, "error: llm-run decoded 7 steps, expected 64\n")

    def test_reports_without_sizes(self):
        old = report()
        del old["weights"]
        said = self.bench(runs=[old], status=1)
        self.assertEqual(said, "error: llm-run --json says no 'weights': is it too old?\n")

    def test_options_that_make_no_sense(self):
        said = self.bench("--cases", "x8", status=2)
        self.assertIn("expected cases like 512 or 4x128, got 'x8'", said)
        said = self.bench("--rounds", "0", status=2)
        self.assertIn("expected --rounds of at least 1, got 0", said)

    def test_peers_that_are_none(self):
        said = self.bench("--peer", "vllm", status=2)
        self.assertIn("expected one of llama.cpp, openvino, got 'vllm'", said)

    def test_peers_that_cannot_be_installed(self):
        options = self.write_peers()
        for name, words in ("llama.cpp", "download"), ("openvino", "install"):
            stale = self.write_text(f"peers/{name}/recipe.txt", "of yesterday")
            command = ["env", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=", BENCH_MODEL]
            command += ["--binaries", self.folder, "--model", self.model, "--weights-as", "f32"]
            said = self.run_tool(*command, "--peer", name, *options[-2:], status=1)
            python = self.folder / "peers" / name / "venv/bin/python"
            expected = f"error: cannot install peer {name}: failed: {python} -m pip {words} "
            self.assertIn(expected, said.splitlines()[-1])
            self.assertFalse(stale.exists())

    def test_peers_that_fail(self):
        said = self.bench(*self.write_peers(), llama_cpp=[{"fails": "no such option"}], status=1)
        self.assertIn("no such option\nerror: peer llama.cpp failed: ", said)

    def test_peers_that_do_something_else(self):
        options = self.write_peers()
        for changes, expected in (
            ({"prompt_tokens": [9]}, "tokens of prompts: [9], expected [8]"),
            ({"tokens": [5]}, "tokens: [5], expected [65]"),
            ({"cache": "f16"}, "a cache of f16, expected u8"),
        ):
            said = self.bench(*options, openvino=[openvino_run(**changes)], status=1)
            self.assertEqual(said, f"error: peer openvino has {expected}\n")
        said = self.bench(*options, llama_cpp=[{"pp": 7}], status=1)
        self.assertEqual(said, "error: peer llama.cpp has tokens of a prompt: 7, expected 8\n")

    def test_reports_that_are_none(self):
        bad = self.write_text("bad.json", "{}")
        said = self.run_tool(BENCH_MODEL, "--report", bad, status=1)
        self.assertIn(f"error: {bad} is no report of a benchmark", said)


if __name__ == "__main__":
    unittest.main()
