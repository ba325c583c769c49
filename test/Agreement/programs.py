"""Random programs over cache values: made as trees, run by the oracle, printed
as IR.

A program's function takes data (%x for K and V, %q for queries) and integers
(%n: conditions, trip counts, ids, lengths), so that no pass can fold it away.
Running a program chooses the integers: each is drawn when the first op needs
it, valid for the state at that moment. What is read is written into four
accumulators, which every region carries: %ax (lookups, exact), %aq (attention),
%al (log-sum-exp) and %ai (lengths and positions).
"""

import dataclasses
import random

from oracle import Invalid

NUM_X, NUM_Q, NUM_INTS = 2048, 1024, 320
MOST_TURNS = 3  # of a loop
ACCUMULATORS = ["ax", "aq", "al", "ai"]


@dataclasses.dataclass
class CacheType:
    layers: int
    heads: int
    dim: int
    dtype: str
    block_size: int
    capacity: int
    sequences: int
    window: int
    sinks: int
    k_storage: str  # "" is the dtype
    v_storage: str

    def __str__(self):
        window = f", window = {self.window}" if self.window else ""
        window += f", sinks = {self.sinks}" if self.sinks else ""
        formats = {"k": self.k_storage, "v": self.v_storage}
        storage = ", ".join(f"{of} = {f}" for of, f in formats.items() if f)
        storage = f", storage = #llm.kv_storage<{storage}>" if storage else ""
        return (
            f"!llm.paged_kv_cache<{self.layers}x{self.heads}x{self.dim}x{self.dtype}, "
            f"block_size = {self.block_size}, max_seq_len = {self.capacity}, "
            f"max_sequences = {self.sequences}{window}{storage}>"
        )

    def of_one_layer(self):
        return dataclasses.replace(self, layers=1)

    @property
    def blocks(self):
        return self.sequences * -(-self.capacity // self.block_size)


@dataclasses.dataclass
class Op:
    """One op, or a few that belong together. `source` and `result` are caches."""

    kind: str
    source: list
    result: list
    p: dict = dataclasses.field(default_factory=dict)
    blocks: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Block:
    arguments: list
    ops: list
    yields: list


class Program:
    def __init__(self, type_, group, x_dtype, q_dtype):
        self.type, self.group = type_, group
        self.x_dtype, self.q_dtype = x_dtype, q_dtype
        self.hosts = []  # caches that the host passes
        self.functions = []  # blocks; "recurse" calls the function it is in
        self.body = Block([], [], [])
        self.sizes = dict.fromkeys(ACCUMULATORS, 1)

    def walk(self, block=None):
        for b in [block] if block else [self.body, *self.functions]:
            for op in b.ops:
                yield op
                for inner in op.blocks:
                    yield from self.walk(inner)

    def kinds(self):
        storage = {f"K or V in {f}" for f in (self.type.k_storage, self.type.v_storage)}
        used = {name for op in self.walk() for name in features(op)}
        return used | storage - {"K or V in "}


def features(op):
    """What the statistics count an op as."""
    yield op.kind
    for name in ("table", "window", "softcap", "lse", "rope", "rotated", "loop", "positions"):
        if op.p.get(name):
            yield name
    attention = op.p.get("attention", op.p)
    for name in ("alibi", "head_sink", "sink_query"):
        if attention.get(name) is not None:
            yield name
    if op.p.get("causal") is False:
        yield "not causal"


# ===----------------------------------------------------------------------=== #
# Making
# ===----------------------------------------------------------------------=== #


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.next_cache = self.next_int = 0
        r = self.r
        dtype = r.choice(["f32", "f16", "bf16"])
        layers = r.choice([1, 1, 2, 3])
        window = r.choice([0, 0, 0, 3, 7])
        self.type = CacheType(
            layers,
            r.choice([1, 2, 3]),
            r.choice([2, 3, 4, 8]),
            dtype,
            r.choice([1, 3, 4, 16]),
            r.choice([13, 24, 40]),
            r.randint(2, 5),
            window,
            r.choice([0, 1, 2, 5]) if window else 0,
            r.choice(["", "", "i8", "f8E4M3FN"]),
            r.choice(["", "", "i8", "f8E4M3FN"]),
        )
        inputs = ["f32", "f32", "f16", "bf16"]
        self.program = Program(
            self.type, r.choice([1, 2, 4]), r.choice(inputs), r.choice(inputs)
        )
        self.hold_groups(random.Random(f"groups {seed}"))

    def hold_groups(self, r):
        """Three caches of eight hold i4: long sequences of K, or wide rows of V."""
        kind = r.choice(["", "", "", "", "", "K", "K", "V"])
        if not kind:
            return
        t = self.type
        t.v_storage = "i4" if kind == "V" else r.choice(["", "i8", "i4", "i4"])
        t.layers, t.heads = min(t.layers, 2), min(t.heads, 2)
        t.dim = r.choice([33, 40]) if kind == "V" else r.choice([2, 3, 4])
        self.program.group = 1
        if kind == "V":
            t.layers = t.heads = 1
            return
        t.k_storage = "i4"
        t.block_size, t.capacity, t.sequences = r.choice([32, 64]), 180, 2

    def cache(self):
        self.next_cache += 1
        return self.next_cache

    def ints(self, count):
        self.next_int += count
        if self.next_int > NUM_INTS:
            raise Invalid("too many integers")
        return self.next_int - count

    def offset(self, end, size):
        """Where data of this size begins in an input."""
        if size > end:
            raise Invalid("too much data")
        return self.r.randint(0, end - size)

    def accumulate(self, name, size):
        offset = self.program.sizes[name]
        self.program.sizes[name] += size
        return offset

    def make(self):
        program = self.program
        hosts = [self.cache() for _ in range(self.r.choice([1, 1, 2]))]
        for _ in range(self.r.choice([0, 0, 1])):
            program.functions.append(self.function())
        body = self.block(hosts, [], 2, self.r.randint(3, 5))
        program.hosts = hosts
        body.ops += self.last_reads(body, hosts)
        body.yields = hosts if self.r.random() < 0.3 else self.distinct(body, hosts)
        program.body = body
        return program

    def distinct(self, body, hosts):
        """What the host's objects become: any versions, old ones included."""
        return [self.pick(self.visible(body, hosts)) for _ in hosts]

    @staticmethod
    def visible(body, before):
        return before + [c for op in body.ops for c in op.result]

    def pick(self, caches):
        """A recent version, most of the time."""
        if self.r.random() < 0.7:
            caches = caches[-3:]
        return self.r.choice(caches)

    def last_reads(self, body, hosts):
        visible = self.visible(body, hosts)
        return [self.step(c) for c in self.r.sample(visible, 1)]

    def function(self):
        caches = [self.cache() for _ in range(self.r.choice([1, 1, 2]))]
        reads_only = self.r.random() < 0.3
        recursive = self.r.random() < 0.5
        block = self.block([], caches, 1, self.r.randint(1, 2), reads_only)
        if recursive:
            visible = self.visible(block, caches)
            source = [self.pick(visible) for _ in caches]
            block.ops.append(Op("recurse", source, [self.cache() for _ in caches]))
        visible = self.visible(block, caches)
        block.yields = [self.pick(visible) for _ in caches]
        if reads_only and not recursive:
            block.yields = []
        if recursive:
            block.ops[-1].result = block.ops[-1].result[: len(block.yields)]
        return block

    def block(self, outer, arguments, depth, size, reads_only=False):
        block = Block(arguments, [], [])
        for _ in range(size):
            visible = self.visible(block, outer + arguments)
            block.ops.append(self.op(visible, depth, reads_only))
            if block.ops[-1].kind == "append_kv":
                block.ops += self.reads_of(block.ops[-1])
        return block

    def reads_of(self, append):
        """An op without a step reads what such an op wrote."""
        p, ops = append.p, []
        if self.r.random() < 0.8:
            ops.append(
                self.attend(append.result[0], p["rows"], self.r.randint(1, p["length"]))
            )
        if self.r.random() < 0.5:
            ops.append(self.lookup(append.result[0]))
        return ops

    def region(self, visible, arguments, depth, yields):
        block = self.block(visible, arguments, depth - 1, self.r.randint(0, 2))
        inner = self.visible(block, visible + arguments)
        block.yields = [self.pick(inner) for _ in range(yields)]
        return block

    def op(self, visible, depth, reads_only):
        source = self.pick(visible)
        if reads_only:
            return self.read(source)
        regions = (
            {
                "if": 6,
                "for": 6,
                "while": 5,
                "index_switch": 4,
                "execute_region": 3,
                "call": 6,
            }
            if depth
            else {}
        )
        choices = {
            "step": 22,
            "change": 14,
            "read": 10,
            "select": 6,
            "select_two": 4,
            "poison": 3,
            "create": 3,
            "static": 3,
            "forall": 3,
            "stats": 3,
            "cast": 4,
            **regions,
        }
        kind = self.r.choices(list(choices), choices.values())[0]
        if kind == "step":
            return self.step(source)
        if kind == "read":
            return self.read(source)
        if kind == "change":
            return self.change(source)
        if kind == "select":
            return Op(
                kind, [source, self.pick(visible)], [self.cache()], {"c": self.ints(1)}
            )
        if kind == "select_two":
            pair = [source, self.pick(visible)]
            return Op(kind, pair, [self.cache(), self.cache()], {"c": self.ints(2)})
        if kind == "poison":
            return Op(
                kind,
                [source],
                [self.cache()],
                {"c": self.ints(1), **self.changing("trim_kv")},
            )
        if kind == "create":
            return Op(kind, [], [self.cache()])
        if kind == "static":
            return Op(kind, [], [], {"step": self.step(0)})
        if kind == "forall":
            return self.forall()
        if kind == "stats":
            return Op(kind, [source], [])
        if kind == "cast":
            return Op(kind, [source], [self.cache()], self.reading_lengths())
        make = {
            "if": self.branch,
            "for": self.for_loop,
            "while": self.while_loop,
            "index_switch": self.index_switch,
            "execute_region": self.execute_region,
            "call": self.call,
        }
        return make[kind](visible, depth)

    # Reads and changes

    def attention(self, tokens):
        r, t = self.r, self.type
        p = {
            "scale": r.choice([None, 0.25, 1.0]),
            "softcap": r.choice([0, 0, 0, 2.0]),
            "window": r.choice([0, 0, 0, 1, 2, 3]),
            "causal": r.random() > 0.2,
            "lse": r.random() < 0.4,
        }
        heads = t.heads * self.program.group
        if r.random() < 0.25:
            p["alibi"] = [r.randint(-16, 32) / 64 for _ in range(heads)]
        if r.random() < 0.25:
            p["head_sink"] = [r.randint(-64, 96) / 32 for _ in range(heads)]
        if t.window and p["window"] > t.window:
            p["window"] = t.window
        lanes = tokens * heads * t.dim
        p["q"] = self.offset(NUM_Q - 3 * t.dim, lanes)
        if t.sinks and r.random() < 0.5:
            p["sink_query"] = self.offset(NUM_Q - 3 * t.dim, lanes)
        p["aq"] = self.accumulate("aq", lanes * t.layers)
        p["al"] = self.accumulate("al", tokens * heads * t.layers)
        return p

    def bound(self, rows):
        bound = self.r.choice(
            [1, self.r.randint(1, self.type.capacity), self.type.capacity]
        )
        t = self.type
        size = rows * bound * t.heads * t.dim
        return {"bound": bound, "ax": self.accumulate("ax", 2 * size * t.layers)}

    def data(self, tokens):
        t = self.type
        size = tokens * t.heads * t.dim * t.layers
        return {
            "k": self.offset(NUM_X, size),
            "v": self.offset(NUM_X, size),
        }

    def step(self, source):
        r, t = self.r, self.type
        rows = r.randint(1, min(3, t.sequences))
        tokens = r.randint(1, 9 if t.capacity > 13 else 5)
        if t.k_storage == "i4":
            rows, tokens = r.choice([(rows, tokens), (1, 50), (1, 50), (1, 80)])
        p = {
            "rows": rows,
            "tokens": tokens,
            "ids": self.ints(rows),
            "cu": self.ints(rows + 1),
        }
        p.update(self.data(tokens))
        p["loop"] = t.layers > 1 and r.random() < 0.4
        if r.random() < 0.75:
            p["attention"] = self.attention(tokens)
            even = self.program.q_dtype == "f32" and t.dim % 2 == 0
            p["rope"] = (
                r.choice(["half", "adjacent"]) if even and r.random() < 0.4 else None
            )
        if r.random() < 0.6:
            p["lookup"] = self.bound(rows)
            p["table"] = r.random() < 0.25
        if r.random() < 0.3:
            p["positions"] = True
            p["ai"] = self.accumulate("ai", tokens)
        if self.program.x_dtype == "f32" and t.dim % 2 == 0 and r.random() < 0.4:
            p["rotated"] = r.choice(["half", "adjacent"])
            p["fused"] = r.random() < 0.5
        p.update(
            {
                k: v
                for k, v in p.get("attention", {}).items()
                if k in ("window", "softcap", "lse", "causal")
            }
        )
        return Op("step", [source], [self.cache()], p)

    def reading_lengths(self):
        count = self.r.randint(1, self.type.sequences)
        return {
            "count": count,
            "ids": self.ints(count),
            "ai": self.accumulate("ai", count),
        }

    def read(self, source):
        if self.type.layers == 1 and self.r.random() < 0.6:
            return self.lookup(source)
        return Op("seq_lens", [source], [], self.reading_lengths())

    def lookup(self, source):
        rows = self.r.randint(1, self.type.sequences)
        p = {"rows": rows, "table": self.r.random() < 0.5, "ids": self.ints(rows)}
        return Op("lookup", [source], [], {**p, **self.bound(rows)})

    def attend(self, source, rows, length):
        p = {
            "rows": rows,
            "length": length,
            "table": self.r.random() < 0.5,
            "ids": self.ints(rows),
        }
        return Op("attend", [source], [], {**p, **self.attention(rows * length)})

    def changing(self, kind):
        count = self.r.randint(1, min(2, self.type.sequences - (kind == "fork_kv")))
        p = {"count": count, "ids": self.ints(count), "lengths": self.ints(count)}
        if kind == "fork_kv":
            p["children"] = self.ints(count)
        return p

    def change(self, source):
        kinds = [
            "fork_kv",
            "fork_kv",
            "trim_kv",
            "trim_kv",
            "release_kv",
            "snapshot_kv",
        ]
        if self.type.layers == 1:
            kinds += ["append_kv", "append_kv"]
        kind = self.r.choice(kinds)
        p = {}
        if kind == "append_kv":
            p = {
                "rows": self.r.randint(1, self.type.sequences),
                "length": self.r.randint(1, 5),
            }
            p.update(self.data(p["rows"] * p["length"]))
        elif kind != "snapshot_kv":
            p = self.changing(kind)
        return Op(kind, [source], [self.cache()], p)

    # Control flow

    def carried(self, visible, least=0):
        return [self.pick(visible) for _ in range(self.r.randint(least, 2))]

    def results(self, count):
        return [self.cache() for _ in range(count)]

    def branch(self, visible, depth):
        count = self.r.randint(0, 2)
        blocks = [self.region(visible, [], depth, count) for _ in range(2)]
        return Op("if", [], self.results(count), {"c": self.ints(1)}, blocks)

    def index_switch(self, visible, depth):
        count = self.r.randint(0, 2)
        blocks = [
            self.region(visible, [], depth, count) for _ in range(self.r.randint(1, 3))
        ]
        return Op("index_switch", [], self.results(count), {"c": self.ints(1)}, blocks)

    def execute_region(self, visible, depth):
        count = self.r.randint(0, 2)
        blocks = [self.region(visible, [], depth, count)]
        return Op("execute_region", [], self.results(count), {}, blocks)

    def for_loop(self, visible, depth):
        source = self.carried(visible)
        arguments = self.results(len(source))
        blocks = [self.region(visible, arguments, depth, len(source))]
        return Op("for", source, self.results(len(source)), {"c": self.ints(1)}, blocks)

    def forall(self):
        """Turns without an order, each with a cache of its own."""
        p = {
            "c": self.ints(1),
            "rows": self.r.randint(1, self.type.sequences),
            "length": self.r.randint(1, 3),
            "bound": self.r.randint(1, 4),
        }
        lanes = p["rows"] * self.type.heads * self.type.dim
        size = MOST_TURNS * p["length"] * lanes
        p.update({c: self.offset(NUM_X, size) for c in "kv"})
        p["ax"] = self.accumulate("ax", MOST_TURNS * 2 * p["bound"] * lanes)
        return Op("forall", [], [], p)

    def while_loop(self, visible, depth):
        source = self.carried(visible)
        passed = self.r.randint(0, 2)
        before_arguments, after_arguments = self.results(len(source)), self.results(
            passed
        )
        before = self.region(visible, before_arguments, depth, passed)
        after = self.region(visible, after_arguments, depth, len(source))
        return Op(
            "while", source, self.results(passed), {"c": self.ints(1)}, [before, after]
        )

    def call(self, visible, depth):
        if not self.program.functions:
            return self.branch(visible, depth)
        number = self.r.randrange(len(self.program.functions))
        function = self.program.functions[number]
        source = [self.pick(visible) for _ in function.arguments]
        return Op(
            "call", source, self.results(len(function.yields)), {"function": number}
        )
