"""Runs a program by the oracle, and chooses its integers on the way."""

import random

import numpy as np

from oracle import Invalid, Version, check, rope, rope_exactly, round_to
from programs import MOST_TURNS, NUM_INTS, NUM_Q, NUM_X


def frequencies(dim):
    return np.float32([10.0 ** (-i / max(1, dim // 2)) for i in range(dim // 2)])


class Run:
    """`x`, `q` and `ints` are the inputs; `acc` and `hosts` what comes out."""

    def __init__(self, program, seed):
        self.program, self.type = program, program.type
        self.r = random.Random(seed)
        numbers = np.random.default_rng(seed)
        self.x = round_to(numbers.standard_normal(NUM_X), program.x_dtype)
        self.q = round_to(2 * numbers.standard_normal(NUM_Q), program.q_dtype)
        self.ints = np.zeros(NUM_INTS, np.int32)
        self.chosen = set()
        self.fuel = 400
        self.acc = {
            name: np.zeros(size, np.int32 if name == "ai" else np.float64)
            for name, size in program.sizes.items()
        }
        env = {host: Version(self.type) for host in program.hosts}
        self.hosts = self.block(program.body, env, 0)

    def choose(self, slot, count, draw):
        """The integers of a slot: drawn by whoever needs them first."""
        if slot not in self.chosen:
            self.chosen.add(slot)
            self.ints[slot : slot + count] = draw()
        return [int(i) for i in self.ints[slot : slot + count]]

    def flag(self, slot):
        return self.choose(slot, 1, lambda: [self.r.randint(0, 1)])[0] != 0

    def ids(self, slot, count):
        return self.choose(
            slot, count, lambda: self.r.sample(range(self.type.sequences), count)
        )

    # Blocks

    def block(self, block, env, depth):
        env = dict(env)
        for op in block.ops:
            self.fuel -= 1
            check(self.fuel > 0, "runs too long")
            source = [env[c] for c in op.source]
            env.update(
                zip(op.result, getattr(self, "run_" + op.kind)(op, source, env, depth))
            )
        return [env[c] for c in block.yields]

    def region(self, block, env, depth, arguments=()):
        return self.block(
            block, {**env, **dict(zip(block.arguments, arguments))}, depth
        )

    def run_if(self, op, source, env, depth):
        return self.region(op.blocks[0 if self.flag(op.p["c"]) else 1], env, depth)

    def run_index_switch(self, op, source, env, depth):
        case = self.choose(op.p["c"], 1, lambda: [self.r.randint(0, 3)])[0]
        return self.region(op.blocks[min(case, len(op.blocks) - 1)], env, depth)

    def run_execute_region(self, op, source, env, depth):
        return self.region(op.blocks[0], env, depth)

    def run_for(self, op, source, env, depth):
        for _ in range(
            self.choose(op.p["c"], 1, lambda: [self.r.choice([0, 1, 2, 2, MOST_TURNS])])[0]
        ):
            source = self.region(op.blocks[0], env, depth, source)
        return source

    def run_while(self, op, source, env, depth):
        turns = self.choose(op.p["c"], 1, lambda: [self.r.choice([0, 1, 1, 2])])[0]
        for turn in range(turns + 1):
            passed = self.region(op.blocks[0], env, depth, source)
            if turn < turns:
                source = self.region(op.blocks[1], env, depth, passed)
        return passed

    def run_call(self, op, source, env, depth):
        return self.call(self.program.functions[op.p["function"]], source, 2)

    def call(self, function, source, depth):
        return self.block(function, dict(zip(function.arguments, source)), depth)

    def run_recurse(self, op, source, env, depth):
        functions = self.program.functions
        function = next(f for f in functions if any(o is op for o in f.ops))
        if depth > 0:
            return self.call(function, source, depth - 1)
        return source[: len(op.result)]

    def run_select(self, op, source, env, depth):
        return [source[0 if self.flag(op.p["c"]) else 1]]

    def run_select_two(self, op, source, env, depth):
        return [source[0 if self.flag(op.p["c"] + i) else 1] for i in range(2)]

    def run_poison(self, op, source, env, depth):
        if self.flag(op.p["c"]):
            return self.run_trim_kv(op, source, env, depth)
        return source

    # Caches

    def run_create(self, op, source, env, depth):
        return [Version(self.type)]

    def run_static(self, op, source, env, depth):
        self.run_step(op.p["step"], [Version(self.type)], env, depth)
        return []

    def run_forall(self, op, source, env, depth):
        p, t = op.p, self.type.of_one_layer()
        shape = (p["rows"], p["length"], t.heads, t.dim)
        rows, read = range(p["rows"]), 2 * p["rows"] * p["bound"] * t.heads * t.dim
        turns = self.choose(p["c"], 1, lambda: [self.r.randint(0, MOST_TURNS)])[0]
        for turn in range(turns):
            version = Version(t)
            k, v = (self.rows(p[c] + turn * int(np.prod(shape)), shape) for c in "kv")
            for row in rows:
                version = version.append(0, row, k[row], v[row])
            self.look({**p, "ax": p["ax"] + turn * read}, version, 0, rows, rows)
        return []

    def run_stats(self, op, source, env, depth):
        return []

    def run_cast(self, op, source, env, depth):
        self.run_seq_lens(op, source, env, depth)
        return source

    def run_snapshot_kv(self, op, source, env, depth):
        return source

    def run_append_kv(self, op, source, env, depth):
        version, p, t = source[0], op.p, self.type
        shape = (p["rows"], p["length"], t.heads, t.dim)
        k, v = (self.rows(p[c], shape) for c in "kv")
        for row in range(p["rows"]):
            version = version.append(0, row, k[row], v[row])
        return [version]

    def run_trim_kv(self, op, source, env, depth):
        version, p = source[0], op.p
        ids = self.ids(p["ids"], p["count"])
        lengths = self.choose(
            p["lengths"],
            p["count"],
            lambda: [
                self.r.randint(max(0, version.length(i) - 4), version.length(i))
                for i in ids
            ],
        )
        for sequence, length in zip(ids, lengths):
            version = version.cut(sequence, length)
        return [version]

    def run_release_kv(self, op, source, env, depth):
        version = source[0]
        for sequence in self.ids(op.p["ids"], op.p["count"]):
            version = version.cut(sequence, 0)
        return [version]

    def run_fork_kv(self, op, source, env, depth):
        version, p, every = source[0], op.p, range(self.type.sequences)
        free = [i for i in every if version.length(i) == 0]
        check(
            len(free) >= p["count"] or p["children"] in self.chosen, "no free sequence"
        )
        children = self.choose(
            p["children"], p["count"], lambda: self.r.sample(free, p["count"])
        )
        parents = self.choose(
            p["ids"],
            p["count"],
            lambda: [
                self.r.choice([i for i in every if i not in children] or [0])
                for _ in children
            ],
        )
        lengths = self.choose(
            p["lengths"],
            p["count"],
            lambda: [self.r.randint(0, version.length(i)) for i in parents],
        )
        check(not set(children) & set(parents), "a child is a parent")
        for parent, child, length in zip(parents, children, lengths):
            version = version.fork(parent, child, length)
        return [version]

    # Reads

    def rows(self, offset, shape):
        return self.x[offset : offset + int(np.prod(shape))].reshape(shape)

    def write(self, name, offset, values):
        values = np.asarray(values).reshape(-1)
        self.acc[name][offset : offset + len(values)] = values

    def run_seq_lens(self, op, source, env, depth):
        ids = self.ids(op.p["ids"], op.p["count"])
        self.write("ai", op.p["ai"], [source[0].length(i) for i in ids])
        return []

    def owners(self, op, version, rows):
        """Whose blocks the rows read: with a table, those of any longer one."""
        if not op.p["table"]:
            return list(rows)

        def draw():
            return [
                self.r.choice(
                    [
                        o
                        for o in range(self.type.sequences)
                        if version.length(o) >= version.length(row)
                    ]
                )
                for row in rows
            ]

        return self.choose(op.p["ids"], len(rows), draw)

    def run_lookup(self, op, source, env, depth):
        rows = range(op.p["rows"])
        self.look(op.p, source[0], 0, rows, self.owners(op, source[0], rows))
        return []

    def look(self, p, version, layer, rows, owners):
        pairs = [version.lookup(layer, i, p["bound"], o) for i, o in zip(rows, owners)]
        k, v = (np.stack([pair[c] for pair in pairs]) for c in range(2))
        offset = p["ax"] + layer * 2 * k.size
        self.write("ax", offset, k)
        self.write("ax", offset + k.size, v)

    def run_attend(self, op, source, env, depth):
        version, p = source[0], op.p
        rows = range(p["rows"])
        owners = self.owners(op, version, rows)
        for i in rows:
            check(version.length(i) >= p["length"], "fewer tokens than queries")
        firsts = [version.length(i) - p["length"] for i in rows]
        tokens = p["rows"] * p["length"]
        self.attend(
            p,
            version,
            0,
            self.queries(p["q"], tokens),
            [
                (i, row * p["length"], p["length"], first, owner)
                for row, (i, first, owner) in enumerate(zip(rows, firsts, owners))
            ],
        )
        return []

    def queries(self, offset, tokens, layer=0):
        heads = self.type.heads * self.program.group
        offset += layer * self.type.dim
        size = tokens * heads * self.type.dim
        return self.q[offset : offset + size].reshape(tokens, heads, self.type.dim)

    def attend(self, p, version, layer, q, rows):
        """`rows`: sequence, first token in q, tokens, first position, owner."""
        scale = p["scale"] or float(np.float32(1 / np.sqrt(self.type.dim)))
        nearer = q
        if "sink_query" in p:
            nearer = self.queries(p["sink_query"], len(q), layer)
        out, lse = np.zeros(q.shape), np.zeros(q.shape[:2])
        for sequence, token, count, first, owner in rows:
            part = slice(token, token + count)
            out[part], lse[part] = version.attend(
                layer,
                sequence,
                q[part],
                first,
                scale,
                p["softcap"],
                p["window"],
                p["causal"],
                owner,
                nearer[part],
                p.get("alibi"),
                p.get("head_sink"),
            )
        self.write("aq", p["aq"] + layer * out.size, out)
        if p["lse"]:
            self.write("al", p["al"] + layer * lse.size, lse)

    # Steps

    def splits(self, version, ids, tokens):
        room = [self.type.capacity - version.length(i) for i in ids]
        for _ in range(30):
            cuts = sorted(self.r.randint(0, tokens) for _ in ids[1:])
            cu = [0, *cuts, tokens]
            if all(b - a <= space for a, b, space in zip(cu, cu[1:], room)):
                return cu
        raise Invalid("no room for the step")

    def run_step(self, op, source, env, depth):
        version, p, t = source[0], op.p, self.type
        ids = self.ids(p["ids"], p["rows"])
        cu = self.choose(
            p["cu"], len(ids) + 1, lambda: self.splits(version, ids, p["tokens"])
        )
        starts = [version.length(i) for i in ids]
        positions = np.concatenate(
            [start + np.arange(b - a) for start, a, b in zip(starts, cu, cu[1:])]
        )
        if p.get("positions"):
            self.write("ai", p["ai"], positions)
        shape = (p["tokens"], t.heads, t.dim)
        size = int(np.prod(shape))
        for layer in range(t.layers):
            k, v = (self.rows(p[c] + layer * size, shape) for c in "kv")
            if p.get("rotated"):
                k = rope_exactly(k, positions, frequencies(t.dim), p["rotated"])
            for i, a, b in zip(ids, cu, cu[1:]):
                version = version.append(layer, i, k[a:b], v[a:b])
            if "attention" in p:
                q = self.queries(p["attention"]["q"], p["tokens"], layer)
                if p["rope"]:
                    q = rope(q, positions, frequencies(t.dim), p["rope"])
                rows = [
                    (i, a, b - a, start, i)
                    for i, a, b, start in zip(ids, cu, cu[1:], starts)
                ]
                self.attend(p["attention"], version, layer, q, rows)
            if "lookup" in p:
                self.look(p["lookup"], version, layer, ids, ids)
        return [version]
