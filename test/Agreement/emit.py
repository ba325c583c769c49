"""Prints programs as IR."""

import numpy as np

from interpret import frequencies
from programs import ACCUMULATORS, NUM_INTS, NUM_Q, NUM_X


class Printer:
    """One program as functions named @p{number}...; `product` says for which
    meaning: the host's caches are arguments there, and made here."""

    def __init__(self, program, number, product):
        self.program, self.type = program, program.type
        self.number, self.product = number, product
        self.lines, self.names, self.next = [], {}, 0
        t = program.type
        self.kv = str(t)
        self.x, self.q = (
            f"tensor<{NUM_X}x{program.x_dtype}>",
            f"tensor<{NUM_Q}x{program.q_dtype}>",
        )
        self.n = f"tensor<{NUM_INTS}xi32>"
        element = {"ax": t.dtype, "aq": program.q_dtype, "al": "f32", "ai": "i32"}
        self.acc_types = {
            a: f"tensor<{program.sizes[a]}x{element[a]}>" for a in ACCUMULATORS
        }
        self.inputs = f"%x: {self.x}, %q: {self.q}, %n: {self.n}"
        self.input_types = f"{self.x}, {self.q}, {self.n}"

    # Text

    def line(self, text):
        self.lines.append(text)

    def new(self, prefix="v"):
        self.next += 1
        return f"%{prefix}{self.next}"

    def value(self, text):
        name = self.new()
        self.line(f"{name} = {text}")
        return name

    def constant(self, number, type_="index"):
        return self.value(f"arith.constant {number} : {type_}")

    def extract(self, slot):
        return self.value(f"tensor.extract %n[{self.constant(slot)}] : {self.n}")

    def flag(self, slot):
        zero = self.constant(0, "i32")
        return self.value(f"arith.cmpi ne, {self.extract(slot)}, {zero} : i32")

    def index(self, slot):
        return self.value(f"arith.index_cast {self.extract(slot)} : i32 to index")

    def ids(self, slot, count):
        return self.value(
            f"tensor.extract_slice %n[{slot}] [{count}] [1] : {self.n} to tensor<{count}xi32>"
        )

    def rows(self, source, type_, offset, shape):
        """Data from `offset`, a number or a value, in this shape."""
        size = int(np.prod(shape))
        element = type_.split("x")[1][:-1]
        flat = self.value(
            f"tensor.extract_slice {source}[{offset}] [{size}] [1] : {type_} to tensor<{size}x{element}>"
        )
        to = "x".join(map(str, shape)) + f"x{element}"
        dims = ", ".join(map(str, range(len(shape))))
        sizes = ", ".join(map(str, shape))
        return (
            self.value(
                f"tensor.expand_shape {flat} [[{dims}]] output_shape [{sizes}] "
                f": tensor<{size}x{element}> into tensor<{to}>"
            ),
            f"tensor<{to}>",
        )

    # Accumulators

    def acc(self, name):
        return self.names[name]

    def write(self, name, offset, value, shape):
        self.names[name] = self.value(
            "tensor.insert_slice " + self.into(name, offset, value, shape)
        )

    def into(self, name, offset, value, shape, target=None):
        """The flat values and the place for them, as an insertion's text."""
        size, type_ = int(np.prod(shape)), self.acc_types[name]
        element = type_.split("x")[1][:-1]
        if len(shape) > 1:
            dims = ", ".join(map(str, range(len(shape))))
            source = "x".join(map(str, shape)) + f"x{element}"
            value = self.value(
                f"tensor.collapse_shape {value} [[{dims}]] : tensor<{source}> into tensor<{size}x{element}>"
            )
        return (
            f"{value} into {target or self.names[name]}[{offset}] [{size}] [1] "
            f": tensor<{size}x{element}> into {type_}"
        )

    # Regions: caches, then the accumulators

    def carried(self, caches):
        names = [self.names[c] for c in caches] + [self.names[a] for a in ACCUMULATORS]
        return ", ".join(names)

    def types(self, count):
        return ", ".join([self.kv] * count + list(self.acc_types.values()))

    def bind(self, caches, prefix):
        """Names for caches and accumulators, and what they are called now."""
        fresh = [self.new(prefix) for _ in [*caches, *ACCUMULATORS]]
        self.names.update(zip([*caches, *ACCUMULATORS], fresh))
        return fresh

    def region(self, block, terminator, extra=""):
        before = dict(self.names)
        for op in block.ops:
            self.op(op)
        count = len(block.yields)
        self.line(
            f"{terminator} {extra}{self.carried(block.yields)} : {self.types(count)}"
        )
        self.names = before

    def head(self, op):
        return ", ".join(self.new("r") for _ in [*op.result, *ACCUMULATORS])

    def bind_results(self, op, head):
        self.names.update(zip([*op.result, *ACCUMULATORS], head.split(", ")))

    def op(self, op):
        getattr(self, "op_" + op.kind)(op)

    def op_if(self, op):
        flag, head = self.flag(op.p["c"]), self.head(op)
        self.line(f"{head} = scf.if {flag} -> ({self.types(len(op.result))}) {{")
        self.region(op.blocks[0], "scf.yield")
        self.line("} else {")
        self.region(op.blocks[1], "scf.yield")
        self.line("}")
        self.bind_results(op, head)

    def op_index_switch(self, op):
        index, head = self.index(op.p["c"]), self.head(op)
        self.line(f"{head} = scf.index_switch {index} -> {self.types(len(op.result))}")
        for case, block in enumerate(op.blocks):
            self.line("default {" if case == len(op.blocks) - 1 else f"case {case} {{")
            self.region(block, "scf.yield")
            self.line("}")
        self.bind_results(op, head)

    def op_execute_region(self, op):
        head = self.head(op)
        self.line(f"{head} = scf.execute_region -> ({self.types(len(op.result))}) {{")
        self.region(op.blocks[0], "scf.yield")
        self.line("}")
        self.bind_results(op, head)

    def op_for(self, op):
        zero, one, end = self.constant(0), self.constant(1), self.index(op.p["c"])
        inits, head, before = self.carried(op.source), self.head(op), dict(self.names)
        block = op.blocks[0]
        arguments = self.bind(block.arguments, "a")
        pairs = ", ".join(f"{a} = {b}" for a, b in zip(arguments, inits.split(", ")))
        self.line(
            f"{head} = scf.for {self.new('i')} = {zero} to {end} step {one} "
            f"iter_args({pairs}) -> ({self.types(len(op.source))}) {{"
        )
        self.region(block, "scf.yield")
        self.line("}")
        self.names = before
        self.bind_results(op, head)

    def op_while(self, op):
        zero, one, end = self.constant(0), self.constant(1), self.index(op.p["c"])
        inits, head, before = self.carried(op.source), self.head(op), dict(self.names)
        turn, last = self.new("i"), self.new("i")
        first, second = op.blocks
        arguments = [turn, *self.bind(first.arguments, "a")]
        pairs = ", ".join(
            f"{a} = {b}" for a, b in zip(arguments, [zero, *inits.split(", ")])
        )
        taken, passed = self.types(len(op.source)), self.types(len(op.result))
        self.line(
            f"{last}, {head} = scf.while ({pairs}) : (index, {taken}) -> (index, {passed}) {{"
        )
        inner = dict(self.names)
        for child in first.ops:
            self.op(child)
        more = self.value(f"arith.cmpi slt, {turn}, {end} : index")
        self.line(
            f"scf.condition({more}) {turn}, {self.carried(first.yields)} : index, {passed}"
        )
        self.names = inner
        arguments = self.bind(second.arguments, "b")
        turn = self.new("i")
        typed = [
            f"{a}: {t}"
            for a, t in zip(
                [turn, *arguments], ["index", *self.split_types(len(op.result))]
            )
        ]
        self.line("} do {")
        self.line(f"^bb0({', '.join(typed)}):")
        for child in second.ops:
            self.op(child)
        following = self.value(f"arith.addi {turn}, {one} : index")
        self.line(
            f"scf.yield {following}, {self.carried(second.yields)} : index, {taken}"
        )
        self.line("}")
        self.names = before
        self.bind_results(op, head)

    def split_types(self, count):
        return [self.kv] * count + list(self.acc_types.values())

    def op_select(self, op):
        self.select(op, 0)

    def op_select_two(self, op):
        self.select(op, 0)
        self.select(op, 1)

    def select(self, op, number):
        a, b = (self.names[c] for c in op.source)
        flag = self.flag(op.p["c"] + number)
        self.names[op.result[number]] = self.value(
            f"arith.select {flag}, {a}, {b} : {self.kv}"
        )

    def op_poison(self, op):
        flag, source = self.flag(op.p["c"]), self.names[op.source[0]]
        ids, lengths = (self.ids(op.p[s], op.p["count"]) for s in ("ids", "lengths"))
        type_ = f"tensor<{op.p['count']}xi32>"
        maybe, cut, none, result = (self.new() for _ in range(4))
        self.line(f"{maybe} = scf.if {flag} -> ({self.kv}) {{")
        self.line(
            f"{cut} = llm.trim_kv {source}, {ids}, {lengths} : {self.kv}, {type_}, {type_} -> {self.kv}"
        )
        self.line(f"scf.yield {cut} : {self.kv}\n}} else {{")
        self.line(f"{none} = ub.poison : {self.kv}\nscf.yield {none} : {self.kv}\n}}")
        self.line(
            f"{result} = scf.if {flag} -> ({self.kv}) {{\nscf.yield {maybe} : {self.kv}"
        )
        self.line(f"}} else {{\nscf.yield {source} : {self.kv}\n}}")
        self.names[op.result[0]] = result

    # Functions

    def op_call(self, op):
        function = self.program.functions[op.p["function"]]
        self.call(f"f{op.p['function']}", function, op, self.constant(2, "i32"))

    def call(self, name, function, op, depth):
        head = self.head(op)
        taken, given = len(function.arguments), len(function.yields)
        self.line(
            f"{head} = func.call @p{self.number}_{name}({depth}, {self.carried(op.source)}, %x, %q, %n) "
            f": (i32, {self.types(taken)}, {self.input_types}) -> ({self.types(given)})"
        )
        self.bind_results(op, head)

    def op_recurse(self, op):
        functions = self.program.functions
        number = next(i for i, f in enumerate(functions) if any(o is op for o in f.ops))
        head, before = self.head(op), dict(self.names)
        zero, one = self.constant(0, "i32"), self.constant(1, "i32")
        more = self.value(f"arith.cmpi sgt, %depth, {zero} : i32")
        self.line(f"{head} = scf.if {more} -> ({self.types(len(op.result))}) {{")
        self.call(
            f"f{number}",
            functions[number],
            op,
            self.value(f"arith.subi %depth, {one} : i32"),
        )
        self.line(f"scf.yield {self.carried(op.result)} : {self.types(len(op.result))}")
        self.names = before
        self.line("} else {")
        self.line(
            f"scf.yield {self.carried(op.source[: len(op.result)])} : {self.types(len(op.result))}"
        )
        self.line("}")
        self.bind_results(op, head)

    def function(self, name, block, results, depth="%depth: i32, "):
        self.names = {}
        names = self.bind(block.arguments, "c")
        typed = ", ".join(
            f"{a}: {t}" for a, t in zip(names, self.split_types(len(block.arguments)))
        )
        self.line(
            f"func.func private @p{self.number}_{name}({depth}{typed}, {self.inputs}) -> ({self.types(results)}) {{"
        )
        for op in block.ops:
            self.op(op)
        self.line(f"return {self.carried(block.yields)} : {self.types(results)}")
        self.line("}")

    def text(self):
        program = self.program
        for number, block in enumerate(program.functions):
            self.function(f"f{number}", block, len(block.yields))
        body = program.body
        body.arguments = program.hosts
        self.function("body", body, len(body.yields), depth="")
        self.entry()
        return "\n".join(self.lines) + "\n"

    def entry(self):
        count, name = len(self.program.hosts), f"p{self.number}"
        hosts = [self.new("h") for _ in range(count)]
        typed = "".join(f"{h}: {self.kv}, " for h in hosts) if self.product else ""
        results = [
            *([self.kv] * count if self.product else []),
            *self.acc_types.values(),
        ]
        attribute = "" if self.product else " attributes {llvm.emit_c_interface}"
        self.line(
            f"func.func @{name}({typed}{self.inputs}) -> ({', '.join(results)}){attribute} {{"
        )
        if not self.product:
            blocks = self.constant(4)
            hosts = [
                self.value(f"llm.create_kv_cache blocks({blocks}) : {self.kv}")
                for _ in hosts
            ]
        empties = []
        for type_ in self.acc_types.values():
            zero = "0" if type_.endswith("xi32>") else "0.0"
            empties.append(self.value(f"arith.constant dense<{zero}> : {type_}"))
        out = [self.new("o") for _ in range(count + len(ACCUMULATORS))]
        self.line(
            f"{', '.join(out)} = func.call @{name}_body({', '.join(hosts + empties)}, %x, %q, %n) "
            f": ({self.types(count)}, {self.input_types}) -> ({self.types(count)})"
        )
        given = out if self.product else out[count:]
        self.line(f"return {', '.join(given)} : {', '.join(results)}")
        self.line("}")

    # Caches

    def create(self, strategy="", blocks=True, kv=None):
        room = f" blocks({self.constant(8 * self.type.blocks)})" if blocks else ""
        return self.value(f"llm.create_kv_cache{room}{strategy} : {kv or self.kv}")

    def op_create(self, op):
        self.names[op.result[0]] = self.create()

    def op_static(self, op):
        step = op.p["step"]
        self.names[0] = self.create(
            " {strategy = #llm.kv_strategy<static>}", blocks=False
        )
        self.op_step(step)

    def op_forall(self, op):
        p, t = op.p, self.type.of_one_layer()
        end, turn, out, result = self.index(p["c"]), *map(self.new, "ior")
        self.line(
            f"{result} = scf.forall ({turn}) in ({end}) shared_outs({out} = {self.acc('ax')}) "
            f"-> ({self.acc_types['ax']}) {{"
        )
        cache, shape = self.create(kv=t), (p["rows"], p["length"], t.heads, t.dim)
        (k, type_), (v, _) = (
            self.rows("%x", self.x, self.at(p[c], turn, int(np.prod(shape))), shape)
            for c in "kv"
        )
        written = self.value(
            f"llm.append_kv {cache}, {k}, {v} : {t}, {type_}, {type_} -> {t}"
        )
        shape = (p["rows"], p["bound"], t.heads, t.dim)
        size = int(np.prod(shape))
        type_ = "tensor<" + "x".join(map(str, shape)) + f"x{t.dtype}>"
        k, v = self.new(), self.new()
        self.line(f"{k}, {v} = llm.lookup_kv {written} : {t} -> {type_}, {type_}")
        places = [
            self.into("ax", self.at(base, turn, 2 * size), value, shape, out)
            for base, value in [(p["ax"], k), (p["ax"] + size, v)]
        ]
        self.line("scf.forall.in_parallel {")
        for place in places:
            self.line(f"tensor.parallel_insert_slice {place}")
        self.line("}\n}")
        self.names["ax"] = result

    def op_stats(self, op):
        if self.product:
            self.value(
                f"llm.kv_stats {self.names[op.source[0]]} : {self.kv} -> tensor<12xi64>"
            )

    def op_cast(self, op):
        bare = "!llm.paged_kv_cache"
        source = self.names[op.source[0]]
        wide = self.value(f"llm.cast_kv {source} : {self.kv} -> {bare}")
        self.lengths(op.p, wide, bare)
        self.names[op.result[0]] = self.value(
            f"llm.cast_kv {wide} : {bare} -> {self.kv}"
        )

    def op_snapshot_kv(self, op):
        self.names[op.result[0]] = self.value(
            f"llm.snapshot_kv {self.names[op.source[0]]} : {self.kv}"
        )

    def op_append_kv(self, op):
        p, t = op.p, self.type
        shape = (p["rows"], p["length"], t.heads, t.dim)
        (k, type_), (v, _) = (self.rows("%x", self.x, p[c], shape) for c in "kv")
        self.names[op.result[0]] = self.value(
            f"llm.append_kv {self.names[op.source[0]]}, {k}, {v} : {self.kv}, {type_}, {type_} -> {self.kv}"
        )

    def changed(self, op, *slots):
        type_ = f"tensor<{op.p['count']}xi32>"
        operands = [
            self.names[op.source[0]],
            *(self.ids(op.p[s], op.p["count"]) for s in slots),
        ]
        self.names[op.result[0]] = self.value(
            f"llm.{op.kind} {', '.join(operands)} : {self.kv}{f', {type_}' * len(slots)} -> {self.kv}"
        )

    def op_trim_kv(self, op):
        self.changed(op, "ids", "lengths")

    def op_release_kv(self, op):
        self.changed(op, "ids")

    def op_fork_kv(self, op):
        self.changed(op, "ids", "children", "lengths")

    # Reads

    def op_seq_lens(self, op):
        self.lengths(op.p, self.names[op.source[0]], self.kv)

    def lengths(self, p, cache, kv):
        type_ = f"tensor<{p['count']}xi32>"
        ids = self.ids(p["ids"], p["count"])
        lengths = self.value(f"llm.seq_lens {cache}, {ids} : {kv}, {type_} -> {type_}")
        self.write("ai", p["ai"], lengths, [p["count"]])

    def table(self, cache, ids, count):
        width = -(-self.type.capacity // self.type.block_size)
        return (
            self.value(
                f"llm.block_table {cache}, {ids} : {self.kv}, tensor<{count}xi32> -> tensor<{count}x{width}xi32>"
            ),
            f"tensor<{count}x{width}xi32>",
        )

    def blocks(self, op):
        """An explicit table as an extra, of the version that is read."""
        if not op.p["table"]:
            return ""
        ids = self.ids(op.p["ids"], op.p["rows"])
        table, type_ = self.table(self.names[op.source[0]], ids, op.p["rows"])
        return f" blocks({table} : {type_})"

    def op_lookup(self, op):
        self.look(
            op.p, self.names[op.source[0]], op.p["rows"], self.blocks(op), op.p["ax"]
        )

    def look(self, p, cache, rows, extras, offset):
        t = self.type
        shape = (rows, p["bound"], t.heads, t.dim)
        type_ = "tensor<" + "x".join(map(str, shape)) + f"x{t.dtype}>"
        k, v = self.new(), self.new()
        self.line(
            f"{k}, {v} = llm.lookup_kv {cache}{extras} : {self.kv} -> {type_}, {type_}"
        )
        if isinstance(offset, int):
            self.write("ax", offset, k, shape)
            self.write("ax", offset + int(np.prod(shape)), v, shape)
            return
        self.write("ax", offset, k, shape)
        second = self.value(
            f"arith.addi {offset}, {self.constant(int(np.prod(shape)))} : index"
        )
        self.write("ax", second, v, shape)

    def op_attend(self, op):
        p, t = op.p, self.type
        heads = t.heads * self.program.group
        shape = (p["rows"], p["length"], heads, t.dim)
        q, type_ = self.rows("%q", self.q, p["q"], shape)
        extras = self.blocks(op) + self.modifiers(p, shape)
        self.attend(
            p, q, type_, shape, self.names[op.source[0]], extras, p["aq"], p["al"]
        )

    def modifiers(self, p, shape, layer=0):
        text = ""
        for name in ("alibi", "head_sink"):
            if name in p:
                type_ = f"tensor<{len(p[name])}xf32>"
                numbers = ", ".join(f"{x:.9e}" for x in p[name])
                value = self.value(f"arith.constant dense<[{numbers}]> : {type_}")
                text += f" {name}({value} : {type_})"
        if "sink_query" in p:
            offset = self.at(p["sink_query"], layer, self.type.dim)
            rows, type_ = self.rows("%q", self.q, offset, shape)
            text += f" sink_query({rows} : {type_})"
        return text

    def attend(self, p, q, type_, shape, cache, extras, at, lse_at):
        attributes = []
        if p["scale"]:
            attributes.append(f"scale = {p['scale']} : f32")
        if p["softcap"]:
            attributes.append(f"softcap = {p['softcap']} : f32")
        if p["window"]:
            attributes.append(f"window = {p['window']} : i32")
        if not p["causal"]:
            attributes.append("causal = false")
        text = " {" + ", ".join(attributes) + "}" if attributes else ""
        out, lse = self.new(), self.new()
        lse_type = "tensor<" + "x".join(map(str, shape[:-1])) + "xf32>"
        given, types = (
            (f"{out}, {lse}", f"{type_}, {lse_type}") if p["lse"] else (out, type_)
        )
        self.line(
            f"{given} = llm.paged_attention {q}, {cache}{extras}{text} : {type_}, {self.kv} -> {types}"
        )
        self.write("aq", at, out, shape)
        if p["lse"]:
            self.write("al", lse_at, lse, shape[:-1])

    # Steps

    def op_step(self, op):
        p, t = op.p, self.type
        ids, cu = self.ids(p["ids"], p["rows"]), self.ids(p["cu"], p["rows"] + 1)
        begun, step = self.new(), self.new()
        types = f"tensor<{p['rows']}xi32>, tensor<{p['rows'] + 1}xi32>"
        self.line(
            f"{begun}, {step} = llm.begin_step {self.names[op.source[0]]}, {ids}, {cu} : {self.kv}, {types} -> {self.kv}"
        )
        table = None
        if p.get("positions") or p.get("rope") or p.get("rotated"):
            positions = self.value(f"llm.positions {step} : tensor<{p['tokens']}xi32>")
        if p.get("positions"):
            self.write("ai", p["ai"], positions, [p["tokens"]])
        if p.get("rope") or p.get("rotated"):
            numbers = ", ".join(f"{f:.9e}" for f in frequencies(t.dim))
            table = self.value(
                f"llm.rope_table {positions} {{inv_freq = array<f32: {numbers}>}} "
                f": tensor<{p['tokens']}xi32> -> tensor<{p['tokens']}x{t.dim}xf32>"
            )
        state = (p, ids, step, table)
        if p.get("loop"):
            cache = self.loop(begun, *state)
        else:
            cache = begun
            for layer in range(t.layers):
                cache = self.layer(cache, layer, *state)
        if op.result:
            self.names[op.result[0]] = cache

    def loop(self, cache, *state):
        zero, one, end = (
            self.constant(0),
            self.constant(1),
            self.constant(self.type.layers),
        )
        results = [self.new("r") for _ in range(1 + len(ACCUMULATORS))]
        names = [self.new("a") for _ in range(1 + len(ACCUMULATORS))]
        inits = [cache, *(self.names[a] for a in ACCUMULATORS)]
        layer = self.new("l")
        pairs = ", ".join(f"{a} = {b}" for a, b in zip(names, inits))
        self.line(
            f"{', '.join(results)} = scf.for {layer} = {zero} to {end} step {one} iter_args({pairs}) -> ({self.types(1)}) {{"
        )
        self.names.update(zip(ACCUMULATORS, names[1:]))
        cache = self.layer(names[0], layer, *state)
        self.line(
            f"scf.yield {cache}, {', '.join(self.names[a] for a in ACCUMULATORS)} : {self.types(1)}"
        )
        self.line("}")
        self.names.update(zip(ACCUMULATORS, results[1:]))
        return results[0]

    def at(self, base, layer, stride):
        """base + layer * stride; a number where the layer is one."""
        if isinstance(layer, int):
            return base + layer * stride
        product = self.value(f"arith.muli {layer}, {self.constant(stride)} : index")
        return self.value(f"arith.addi {product}, {self.constant(base)} : index")

    def rotate(self, x, type_, angles, pairing):
        tokens, _, lanes = type_.split("x", 2)
        return self.value(
            f"llm.rope {x}, {angles} {{pairing = #llm.rope_pairing<{pairing}>}} "
            f": {type_}, {tokens}x{lanes}"
        )

    def layer(self, cache, layer, p, ids, step, angles):
        t = self.type
        index = self.constant(layer) if isinstance(layer, int) else layer
        at = self.value(f"llm.at_layer {step}[{index}]")
        shape = (p["tokens"], t.heads, t.dim)
        size = int(np.prod(shape))
        (k, type_), (v, _) = (
            self.rows("%x", self.x, self.at(p[c], layer, size), shape) for c in "kv"
        )
        rotation = ""
        if p.get("fused"):
            rotation = (
                f" rope_table({angles} : tensor<{p['tokens']}x{t.dim}xf32>) "
                f"{{pairing = #llm.rope_pairing<{p['rotated']}>}}"
            )
        elif p.get("rotated"):
            k = self.rotate(k, type_, angles, p["rotated"])
        cache = self.value(
            f"llm.append_kv {cache}, {k}, {v} at {at}{rotation} "
            f": {self.kv}, {type_}, {type_} -> {self.kv}"
        )
        if "attention" in p:
            a = p["attention"]
            shape = (p["tokens"], t.heads * self.program.group, t.dim)
            q, type_ = self.rows("%q", self.q, self.at(a["q"], layer, t.dim), shape)
            if p["rope"]:
                q = self.rotate(q, type_, angles, p["rope"])
            lanes = int(np.prod(shape))
            where = self.at(a["aq"], layer, lanes), self.at(
                a["al"], layer, lanes // t.dim
            )
            extras = f" at {at}" + self.modifiers(a, shape, layer)
            self.attend(a, q, type_, shape, cache, extras, *where)
        if "lookup" in p:
            a = p["lookup"]
            extras = f" at {at}"
            if p["table"]:
                table, table_type = self.table(cache, ids, p["rows"])
                extras = f" at {at} blocks({table} : {table_type})"
            size = p["rows"] * a["bound"] * t.heads * t.dim
            self.look(a, cache, p["rows"], extras, self.at(a["ax"], layer, 2 * size))
        return cache
