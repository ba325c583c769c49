"""Tests what is made of measurements: tables, bars, history and picture.

CTest hands over BENCH_ATTENTION, the program.
"""

import json
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tools import BENCH_ATTENTION, REPOSITORY, ToolTest

DECODE = "decode/f32/heads:32x8/dim:128/ctx:4096/threads:1"
PREFILL = "prefill/bf16/heads:32x8/dim:128/ctx:2048/threads:2"
CHUNK = "chunk/bf16/heads:32x8/dim:128/ctx:4224/new:128/threads:2"
OF_I4 = "decode/i4/heads:32x8/dim:128/ctx:4096/threads:1"
OVER_F16 = "pair/i4-over-f16/i4/heads:32x8/dim:128/ctx:4096/threads:1"
POOL = "pair/pool64-over-pool1/bf16/heads:32x8/dim:128/ctx:4096/threads:2"


def row(name: str, **counters) -> dict:
    return {"name": name, "median": 1e-3, "noisy": 0.0, **counters}


def decode(read: float, name: str = DECODE, **more) -> dict:
    """A row that reads at this part of its bandwidth."""
    figures = {"bytes_per_second": read * 40e9, "bandwidth": 40e9, "ratio": read}
    return row(name, **{**figures, **more})


def computing(rate: float, name: str) -> dict:
    return row(name, flops=rate * 500e9, rate=500e9, ratio=rate)


class Benchmarks(ToolTest):
    def write(self, name: str, *rows: dict, commit: str = "abc") -> Path:
        context = {"commit": commit, "machine": "m", "target": "t", "date": "d"}
        return self.write_text(
            name, json.dumps({"context": context, "benchmarks": rows})
        )

    def compare(self, before: Path, after: Path, status: int = 0) -> str:
        return self.run_tool(BENCH_ATTENTION, "--compare", before, after, status=status)

    def bars(self, *rows: dict) -> str:
        report = self.write("report.json", *rows)
        return self.run_tool(REPOSITORY / "scripts/bench-attention", "--report", report)

    # bench-attention --compare

    def test_compare_says_times_and_ratios_of_both(self):
        before = self.write("before.json", decode(0.5), commit="old")
        after = self.write("after.json", decode(0.8, median=0.5e-3), commit="new")
        output = self.compare(before, after)
        self.assertIn("before: old, after: new", output)
        expected = [DECODE, "1000.0", "500.0", "0.500", "0.500", "0.800"]
        self.assertEqual(self.line(output, DECODE), expected)

    def test_compare_marks_noisy_rows(self):
        before = self.write("before.json", decode(0.5, noisy=1.0))
        after = self.write("after.json", decode(0.5))
        self.assertEqual(self.line(self.compare(before, after), DECODE)[-1], "noisy")

    def test_compare_shows_ratios_of_pairs(self):
        file = self.write("file.json", row(POOL, pair_ratio=1.01))
        cells = self.line(self.compare(file, file), POOL)
        self.assertEqual(cells[-2:], ["1.010", "1.010"])

    def test_compare_shows_rows_of_one_file_alone(self):
        before = self.write("before.json", decode(0.5))
        after = self.write("after.json", computing(0.7, PREFILL))
        output = self.compare(before, after)
        self.assertEqual(self.line(output, DECODE)[1:], ["1000.0", "-", "-", "0.500", "-"])
        self.assertEqual(self.line(output, PREFILL)[1:], ["-", "1000.0", "-", "-", "0.700"])

    def test_compare_leaves_out_ceilings(self):
        file = self.write("file.json", {"name": "ceiling/read/threads:1"}, decode(0.5))
        self.assertNotIn("ceiling/", self.compare(file, file))

    def test_compare_refuses_bad_files(self):
        good = self.write("good.json", decode(0.5))
        refused = {
            "is no JSON: error at byte 2": "{",
            "has no list `benchmarks`: write it with --benchmark_out": "[]",
            "has a row without a name": '{"benchmarks": [{}]}',
            "has no positive `median` in row a": '{"benchmarks": [{"name": "a"}]}',
        }
        for message, text in refused.items():
            bad = self.write_text("bad.json", text)
            for files in [(bad, good), (good, bad)]:
                said = self.compare(*files, status=1)
                self.assertEqual(said, f"error: {bad}: {message}\n")

    def test_compare_refuses_a_missing_file(self):
        good, missing = self.write("good.json"), self.folder / "missing.json"
        said = self.compare(good, missing, status=1)
        self.assertEqual(said, f"error: {missing}: cannot be read\n")

    def test_compare_needs_two_files(self):
        said = self.run_tool(BENCH_ATTENTION, "--compare", "a.json", status=1)
        self.assertIn("usage: bench-attention --compare BEFORE.json AFTER.json", said)

    # The program

    def test_every_row_has_its_figures(self):
        path = self.folder / "smoke.json"
        self.run_tool(BENCH_ATTENTION, "--smoke", f"--benchmark_out={path}")
        report = json.loads(path.read_text())
        self.assertLessEqual({"commit", "machine", "target"}, set(report["context"]))
        for each in report["benchmarks"]:
            kind, threads = each["name"].split("/")[0], each["name"].split(":")[-1]
            needed = {"median", "spread", "bytes", "operations", "floor", "ceiling"}
            needed |= {"bytes_per_second", "flops", "ratio", "bandwidth", "rate"}
            needed = {"ceiling": {"ceiling"}, "pair": {"pair_ratio"}}.get(kind, needed)
            self.assertLessEqual(needed, set(each), each["name"])
            self.assertEqual(each["threads"], int(threads))
            if kind not in ("ceiling", "pair"):
                self.assertAlmostEqual(each["ratio"], each["floor"] / each["median"])
                rate = max(each["rate"], each["matrix"])
                bounds = each["bytes"] / each["bandwidth"], each["operations"] / rate
                self.assertAlmostEqual(each["floor"], max(bounds), delta=1e-6 * max(bounds))
        rows = {each["name"]: each for each in report["benchmarks"]}
        self.assertLessEqual({DECODE, OF_I4, OVER_F16}, set(rows))
        self.assertEqual(rows[OF_I4]["bytes"], self.bytes_of_i4(heads=8, dim=128, tokens=4096))
        judged = self.run_tool(REPOSITORY / "scripts/bench-attention", "--report", path)
        self.assertRegex(judged.splitlines()[-1], ", 0 without a figure$")

    def bytes_of_i4(self, heads: int, dim: int, tokens: int) -> int:
        """Codes and parameters; but the first 32 tokens of K are f32."""
        codes, parameters = tokens * dim // 2, tokens // 32 * dim * 4
        exact = 32 * dim * 4 - (codes + parameters) * 32 // tokens
        return heads * (2 * (codes + parameters) + exact)

    # scripts/bench-attention

    def test_bars_are_met_or_missed(self):
        output = self.bars(decode(0.86), computing(0.60, PREFILL), computing(0.55, CHUNK))
        self.assertEqual(self.line(output, f"1  {DECODE}")[2:], ["0.860", ">=", "0.85", "met"])
        self.assertEqual(self.line(output, f"5  {PREFILL}")[2:], ["0.600", ">=", "0.68", "missed"])
        self.assertEqual(self.line(output, f"5  {CHUNK}")[2:], ["0.917", ">=", "0.90", "met"])
        self.assertRegex(output.splitlines()[-1], "^2 met, 1 missed, [0-9]+ without a figure$")

    def test_bars_around_one_have_two_sides(self):
        for ratio, verdict in [(0.96, "missed"), (0.98, "met"), (1.02, "met"), (1.04, "missed")]:
            output = self.bars(row(POOL, pair_ratio=ratio))
            self.assertEqual(self.line(output, f"8  {POOL}")[-1], verdict)

    def test_bars_hold_formats_against_half_floats(self):
        for ratio, verdict in [(0.44, "met"), (0.46, "missed")]:
            output = self.bars(row(OVER_F16, pair_ratio=ratio))
            cells = [f"{ratio:.3f}", "<=", "0.45", verdict]
            self.assertEqual(self.line(output, f"3  {OVER_F16}")[2:], cells)

    def test_bars_say_noise_and_the_faster_mode(self):
        output = self.bars(decode(0.86, noisy=1.0, fast_ratio=0.7))
        self.assertIn("met  noisy  0.700 in the faster mode of memory", output)
        self.assertIn("the machine was noisy in 1 of 1 rows: repeat the run", output)
        self.assertNotIn("noisy", self.bars(decode(0.86)))

    def test_history_grows_by_a_line(self):
        report, history = self.write("report.json", decode(0.86)), self.folder / "history.jsonl"
        command = [REPOSITORY / "scripts/bench-attention", "--report", report]
        for _ in range(2):
            self.run_tool(*command, "--history", history)
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        said = {key: lines[0][key] for key in ("commit", "date", "machine", "target")}
        self.assertEqual(said, {"commit": "abc", "date": "d", "machine": "m", "target": "t"})
        figures = {"median": 1e-3, "ratio": 0.86, "noisy": 0.0}
        self.assertEqual([line["rows"] for line in lines], 2 * [{DECODE: figures}])

    def test_bars_refuse_what_is_no_report(self):
        report = self.write_text("report.json", '{"benchmarks": []}')
        command = [REPOSITORY / "scripts/bench-attention", "--report", report]
        said = self.run_tool(*command, status=1)
        self.assertIn(f"error: {report} is no report of a benchmark", said)

    # scripts/plot-benchmarks

    def plot(self, report: Path, status: int = 0) -> str:
        tool, picture = REPOSITORY / "scripts/plot-benchmarks", self.folder / "picture.svg"
        said = self.run_tool(tool, report, "-o", picture, status=status)
        return said if status else picture.read_text()

    def test_picture_has_a_point_for_each_ratio(self):
        longer = DECODE.replace("4096", "16384")
        rows = [decode(0.5), decode(0.8, longer), computing(0.7, PREFILL), row(POOL, pair_ratio=1)]
        picture = ElementTree.fromstring(self.plot(self.write("report.json", *rows)))
        space = "{http://www.w3.org/2000/svg}"
        points = list(picture.iter(f"{space}circle"))
        titles = [point.find(f"{space}title").text for point in points]
        self.assertEqual(titles, ["4096: 0.500", "16384: 0.800", "2048: 0.700"])
        x, y = ([float(point.get(key)) for point in points] for key in ("cx", "cy"))
        self.assertLess(x[0], x[1])  # longer contexts to the right
        self.assertGreater(y[0], y[1])  # higher ratios above
        self.assertEqual(len(list(picture.iter(f"{space}polyline"))), 2)

    def test_picture_needs_ratios(self):
        report = self.write("report.json", row(POOL, pair_ratio=1))
        said = self.plot(report, status=1)
        self.assertEqual(said, f"error: {report} has no row of decode or prefill with a ratio\n")

    def test_picture_refuses_what_is_no_report(self):
        report = self.write_text("report.json", "nothing")
        self.assertIn(f"error: {report} is no report", self.plot(report, status=1))

    # scripts/tabulate-benchmarks

    MARKS = [
        "<!-- scripts/tabulate-benchmarks writes from here -->\n",
        "<!-- to here -->\n",
    ]

    def tabulate(self, *runs: dict, readme: str = "old".join(MARKS), status: int = 0) -> str:
        """What becomes of the readme, or is said of why it stays."""
        history = self.write_text("history.jsonl", "".join(json.dumps(run) + "\n" for run in runs))
        path, tool = self.write_text("README.md", readme), REPOSITORY / "scripts/tabulate-benchmarks"
        said = self.run_tool(tool, "--history", history, "--readme", path, status=status)
        return said if status else path.read_text()

    def recorded(self, *rows: dict) -> dict:
        context = {"commit": "abc", "date": "2026-11-21T20:33:11", "machine": "m", "target": "t"}
        return {**context, "rows": {each["name"]: each for each in rows}}

    def test_table_is_of_the_last_run(self):
        ceiling = {"name": "ceiling/read/threads:1", "ceiling": 40.2e9}
        last = self.recorded(ceiling, decode(0.8, median=0.5e-3), computing(0.7, PREFILL))
        output = self.tabulate(self.recorded(decode(0.5)), last)
        decoded, prefilled = (line for line in output.splitlines() if "tokens |" in line)
        self.assertEqual(decoded, "| decode f32, 4096 tokens | 500 | 0.80 | - | - |")
        self.assertEqual(prefilled, "| prefill bf16, 2048 tokens | - | - | 1000 | 0.70 |")
        self.assertIn("\nm (t), commit abc, 2026-11-21. Its ceilings", output)
        self.assertNotIn("old", output)
        self.assertNotIn("noisy", output)

    def test_table_says_the_ceilings(self):
        ceilings = [{"name": f"ceiling/read/threads:{n}", "ceiling": n * 40.2e9} for n in (1, 2)]
        both = [decode(0.8), decode(0.8, DECODE.replace("threads:1", "threads:2"))]
        output = self.tabulate(self.recorded(*ceilings, *both))
        self.assertIn("with 1 / 2 threads: memory read 40 / 80 GB/s.\n", output)

    def test_table_marks_noisy_rows(self):
        output = self.tabulate(self.recorded(decode(0.8, noisy=1.0)))
        self.assertIn("| 1000\\* | 0.80 |", output)
        self.assertIn("\\*: the machine was noisy.", output)

    def test_table_refuses_what_it_cannot_use(self):
        good = self.recorded(decode(0.8))
        said = self.tabulate(good, readme="nothing", status=1)
        self.assertIn("README.md has no place for the table: <!-- scripts/", said)
        said = self.tabulate(self.recorded(row(POOL, pair_ratio=1)), status=1)
        self.assertIn("error: the run recorded last has none of the table's rows", said)
        for runs in [[], [{"rows": {}}]]:
            said = self.tabulate(*runs, status=1)
            self.assertIn("history.jsonl ends with no run of bench-attention", said)

    def test_readme_has_the_figures_recorded_last(self):
        readme = (REPOSITORY / "README.md").read_text()
        history = (REPOSITORY / "benchmarks/history.jsonl").read_text().splitlines()
        expected = self.tabulate(json.loads(history[-1]), readme=readme)
        self.assertEqual(readme, expected, "run scripts/tabulate-benchmarks")


if __name__ == "__main__":
    unittest.main()
