"""Random programs in three meanings: the product (our pipeline and runtime),
the specification (upstream dialects alone) and an oracle in numpy."""

import argparse
import collections
import concurrent.futures
import copy
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

from emit import Printer
from interpret import Run
from oracle import Invalid
from programs import ACCUMULATORS, Maker

# Upstream passes that a user may run before ours.
PASSES = {
    "canonicalize": "builtin.module(canonicalize)",
    "cse": "builtin.module(cse)",
    "licm": "builtin.module(func.func(loop-invariant-code-motion))",
    "control-flow-sink": "builtin.module(func.func(control-flow-sink))",
    "sccp": "builtin.module(sccp)",
    "inline": "builtin.module(inline)",
}
BATCH = 50
RARE = 0.05
STATUS = {
    0: "ok",
    100: "leaks versions",
    101: "breaks an invariant",
    102: "fails without a status",
}
NUMPY = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "i32": np.int32}


class Case:
    """A program with the inputs of a run that the oracle accepts. Of a seed's
    own programs it is the first that has such a run."""

    def __init__(self, seed, program=None):
        self.seed = seed
        if program:
            return self.accept(program)
        for other in range(10):
            try:
                return self.accept(Maker(seed + (other << 32)).make())
            except Invalid:
                pass
        raise Invalid("no valid run")

    def accept(self, program):
        self.program = program
        for attempt in range(20):
            try:
                self.run = Run(program, self.seed * 100 + attempt)
                return
            except Invalid:
                pass
        raise Invalid("no valid run")

    def inputs(self):
        return b"".join(
            encode(values, dtype)
            for values, dtype in [
                (self.run.x, self.program.x_dtype),
                (self.run.q, self.program.q_dtype),
                (self.run.ints, "i32"),
            ]
        )

    def element(self, name):
        types = {"ax": self.program.type.dtype, "aq": self.program.q_dtype, "al": "f32"}
        return types.get(name, "i32")


def encode(values, dtype):
    if dtype == "bf16":
        return (
            (values.astype(np.float32).view(np.uint32) >> 16)
            .astype(np.uint16)
            .tobytes()
        )
    return values.astype(NUMPY[dtype]).tobytes()


def decode(data, dtype):
    values = np.frombuffer(data, NUMPY[dtype])
    if dtype == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


# ===----------------------------------------------------------------------=== #
# Running
# ===----------------------------------------------------------------------=== #


def execute(tool, cases, pipeline):
    """Results of both meanings for each case, the cases that took a snapshot,
    and what went wrong as a whole."""
    with tempfile.TemporaryDirectory(prefix="llm-agreement-") as scratch:
        files = [
            pathlib.Path(scratch) / name
            for name in ("product.mlir", "spec.mlir", "inputs")
        ]
        first_lines = []
        with open(files[0], "w") as product, open(files[1], "w") as spec:
            line = 1
            for number, case in enumerate(cases):
                first_lines.append(line)
                text = Printer(case.program, number, product=True).text()
                line += text.count("\n")
                product.write(text)
                spec.write(Printer(case.program, number, product=False).text())
        files[2].write_bytes(b"".join(case.inputs() for case in cases))
        try:
            done = subprocess.run(
                [tool, *files, *pipeline],
                capture_output=True,
                timeout=60 + 5 * len(cases),
            )
        except subprocess.TimeoutExpired:
            return None, set(), "hangs"
    messages = done.stderr.decode(errors="replace")
    if done.returncode:
        return None, set(), f"exit status {done.returncode}: {messages[-2000:]}"
    lines = [int(l) for l in re.findall(r"^snapshot (\d+)$", messages, re.M)]
    snapshots = {int(np.searchsorted(first_lines, l, side="right")) - 1 for l in lines}
    return parse(done.stdout, cases), snapshots, messages


def parse(data, cases):
    results, at = [], 0

    def take(count, dtype):
        nonlocal at
        start, at = at, at + count * np.dtype(NUMPY[dtype]).itemsize
        return decode(data[start:at], dtype)

    for product in (True, False):
        meaning = []
        for case in cases:
            status = int(take(1, "i32")[0])
            values = {
                name: take(case.program.sizes[name], case.element(name))
                for name in ACCUMULATORS
            }
            if product:
                values["hosts"] = [
                    take(np.size(expected), dtype)
                    for version in case.run.hosts
                    for _, expected, dtype in content(version)
                ]
            meaning.append((status, values))
        results.append(meaning)
    return list(zip(*results))


def content(version):
    """What the host reads of its cache: lengths, then K and V of each layer."""
    t = version.type
    ids = range(t.sequences)
    yield "lengths", [version.length(i) for i in ids], "i32"
    for layer in range(t.layers):
        rows = [version.lookup(layer, i, t.capacity) for i in ids]
        yield f"K of layer {layer}", np.stack([k for k, v in rows]), t.dtype
        yield f"V of layer {layer}", np.stack([v for k, v in rows]), t.dtype


TOLERANCES = {"f32": 1e-5, "f16": 2e-3, "bf16": 1.6e-2}
# The runtime multiplies pages of integers with factors of 16 bits, which scores
# of some tens multiply.
INTEGERS = 1e-3
# Where the CPU has dot products of bf16, weights of values of f8, and of i8
# beside many rows, are rounded to bf16.
WEIGHTS = 2.0**-8
# Where it has those of 16-bit integers, many rows whose log-sum-exp nobody asks
# for, and pages that are not f32, are multiplied as these.
WORDS = 2.0**-10


def tolerances_of_storage(case, meaning):
    """More than rounding may take: from the logarithms, and from results."""
    t = case.program.type
    if meaning != "product":
        return 0, 0
    integers = INTEGERS if {t.k_storage, t.v_storage} & {"i8", "i4"} else 0
    weights = WEIGHTS if t.v_storage in ("i8", "f8E4M3FN") else 0
    words = 0 if "f32" in {t.k_storage or t.dtype, t.v_storage or t.dtype} else WORDS
    return integers, integers + max(weights, words)


def differences(case, name, values, expected, more):
    """Where two results differ by more than rounding may, and `more`."""
    values, expected = np.asarray(values, np.float64), np.asarray(expected, np.float64)
    if name in ("ax", "ai"):
        return np.flatnonzero(~(values == expected))
    logarithms, results = more
    if name == "al":
        return np.flatnonzero(
            ~((values == expected) | (np.abs(values - expected) <= 1e-4 + logarithms))
        )
    # K and V are rounded to the cache's element, the result to q's.
    rounding = max(TOLERANCES["f32"], TOLERANCES[case.program.q_dtype], logarithms)
    bound = max(1.0, np.abs(case.run.x).max()) * (rounding + results)
    return np.flatnonzero(~(np.abs(values - expected) <= bound))


def disagreement(case, result):
    """Why the three do not agree; None if they do."""
    for meaning, (status, values) in zip(("product", "specification"), result):
        if status:
            return f"the {meaning} {STATUS.get(status, f'fails with status {status}')}"
        for name in ACCUMULATORS:
            more = tolerances_of_storage(case, meaning)
            wrong = differences(case, name, values[name], case.run.acc[name], more)
            if len(wrong):
                i = wrong[0]
                return (
                    f"the {meaning} differs in {len(wrong)} of {len(values[name])} elements of %{name}: "
                    f"[{i}] is {values[name][i]}, expected {case.run.acc[name][i]}"
                )
    held = iter(result[0][1]["hosts"])
    for number, version in enumerate(case.run.hosts):
        for part, expected, _ in content(version):
            if not np.array_equal(next(held), np.ravel(expected)):
                return f"the product leaves other {part} in host cache {number}"
    return None


# ===----------------------------------------------------------------------=== #
# Reducing
# ===----------------------------------------------------------------------=== #


def smaller(program):
    """Copies of the program with one op less, a region in place of its op, an
    op that reads less, or one layer."""

    def blocks(p):
        found = [p.body, *p.functions]
        for op in p.walk():
            found += op.blocks
        return found

    for b, block in enumerate(blocks(program)):
        for i, op in enumerate(block.ops):
            if op.kind == "recurse":
                continue
            other = copy.deepcopy(program)
            target = blocks(other)[b]
            removed = target.ops[i]
            substitutes = removed.source or available(other, target, i)
            if removed.result and not substitutes:
                continue
            del target.ops[i]
            replace(
                other, {r: (substitutes * 9)[n] for n, r in enumerate(removed.result)}
            )
            yield other
        for i, op in enumerate(block.ops):
            for inner in range(len(op.blocks)):
                other = copy.deepcopy(program)
                target = blocks(other)[b]
                op = target.ops[i]
                body = op.blocks[inner]
                if len(body.arguments) > len(op.source) or len(op.result) > len(
                    body.yields
                ):
                    continue
                target.ops[i : i + 1] = body.ops
                replace(other, dict(zip(body.arguments, op.source)))
                replace(other, dict(zip(op.result, body.yields)))
                yield other
    for i, op in enumerate(program.walk()):
        for part in ("attention", "lookup", "positions", "loop"):
            if op.kind == "step" and op.p.get(part):
                other = copy.deepcopy(program)
                del list(other.walk())[i].p[part]
                yield other
    if program.type.layers > 1:
        other = copy.deepcopy(program)
        other.type = program.type.of_one_layer()
        yield other
    if program.functions and not any(op.kind == "call" for op in program.walk()):
        other = copy.deepcopy(program)
        other.functions = []
        yield other


def available(program, block, i):
    found = [c for op in block.ops[:i] for c in op.result] + list(block.arguments)
    return found or (program.hosts if block is program.body else [])


def replace(program, names):
    for block in [
        program.body,
        *program.functions,
        *(b for op in program.walk() for b in op.blocks),
    ]:
        block.yields = [names.get(c, c) for c in block.yields]
        for op in block.ops:
            op.source = [names.get(c, c) for c in op.source]


def fails(tool, case, pipeline):
    results, _, messages = execute(tool, [case], pipeline)
    if results is None:
        return messages
    why = disagreement(case, results[0])
    return why and f"{why}\n{messages}"


def reduce(tool, case, pipeline, tries=150):
    progress = True
    while progress:
        progress = False
        for program in smaller(case.program):
            tries -= 1
            if tries < 0:
                return case
            try:
                candidate = Case(case.seed, program)
            except (Invalid, KeyError):
                continue
            if fails(tool, candidate, pipeline):
                case, progress = candidate, True
                break
    return case


# ===----------------------------------------------------------------------=== #
# The run
# ===----------------------------------------------------------------------=== #


def batch(tool, seeds):
    """Each seed plain and after a drawn pass."""
    cases = [Case(seed) for seed in seeds]
    failures, used = [], collections.Counter()
    drawn = list(PASSES)[seeds[0] // BATCH % len(PASSES)]
    for name in (None, drawn):
        pipeline = [PASSES[name]] if name else []
        results, snapshots, messages = execute(tool, cases, pipeline)
        for number, case in enumerate(cases):
            why = (
                disagreement(case, results[number])
                if results
                else fails(tool, case, pipeline)
            )
            if why:
                failures.append((case.seed, name, why))
        if name is None:
            used["snapshot"] = len(snapshots)
    for case in cases:
        used.update(case.program.kinds())
    return len(cases), drawn, failures, used


def show(tool, seed, name, why):
    case = reduce(tool, Case(seed), [PASSES[name]] if name else [])
    kv, text = str(case.program.type), Printer(case.program, 0, product=True).text()
    print(f"!kv = {kv}\n{text.replace(kv, '!kv')}")
    print(f"seed {seed}, {name or 'plain'}: {why.strip()}")
    print(
        "The program above is reduced from its (again: scripts/fuzz-programs "
        f"--count 1 --seed {seed})\n"
    )
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(prog="fuzz-programs", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=1000, help="programs (default %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first program; the others follow (default %(default)s)",
    )
    parser.add_argument(
        "--tool", default="build/release/bin/llm-agreement", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="processes at once (default: one per core)",
    )
    options = parser.parse_args()

    ends = options.seed + options.count
    batches = [range(i, min(i + BATCH, ends)) for i in range(options.seed, ends, BATCH)]
    passed = programs = 0
    failures, used, after = [], collections.Counter(), collections.Counter()
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for count, drawn, wrong, kinds in pool.map(
            batch, [options.tool] * len(batches), batches
        ):
            programs += count
            passed += count - len({seed for seed, *_ in wrong})
            failures += wrong
            used += kinds
            after[drawn] += count
            print(
                f"\r{programs} programs, {len(failures)} failures",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(file=sys.stderr)
    for failure in failures[:3]:
        show(options.tool, *failure)
    for seed, name, why in failures[3:]:
        print(f"seed {seed}, {name or 'plain'}: {why.splitlines()[0]}")
    print(
        "passes:", ", ".join(f"{name} {count}" for name, count in sorted(after.items()))
    )
    print(
        "used by:",
        ", ".join(
            f"{name} {count / max(1, programs):.0%}"
            for name, count in used.most_common()
        ),
    )
    rare = [name for name, count in used.items() if count < RARE * programs]
    failed = programs - passed
    if rare and programs >= 1000:
        print(f"rare (below {RARE:.0%}): {', '.join(rare)}")
        failed += len(rare)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
