"""What the ops of the dialect mean, in numpy: a version is a few arrays, and
every op that changes one works on a copy. Written from the dialect's
documentation alone; the lowerings are compared with it."""

import ctypes

import numpy as np


class Invalid(Exception):
    """The program asks for what the dialect does not allow."""


def check(condition: bool, why: str) -> None:
    if not condition:
        raise Invalid(why)


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """To nearest even, as f32."""
    values = np.asarray(values, np.float32)
    if dtype == "f32":
        return values
    if dtype == "f16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


# The magnitudes of a storage, in the order of their codes.
NUMBERS = {
    "i8": np.arange(128.0),
    "f8E4M3FN": np.array(
        [
            m / 8 * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7)
            for e in range(16)
            for m in range(8)
        ][:-1]
    ),
}


def nearest(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """To nearest even, at most the last number."""
    magnitude = np.minimum(np.abs(values.astype(np.float64)), numbers[-1])
    above = np.searchsorted(numbers, magnitude).clip(1)
    low, high = magnitude - numbers[above - 1], numbers[above] - magnitude
    up = (high < low) | ((high == low) & (above % 2 == 0))
    return np.copysign(numbers[np.where(up, above, above - 1)], values)


def store(values: np.ndarray, dtype: str, storage: str) -> np.ndarray:
    """What is read of rows [..., D] that a cache holds in a format, as f32."""
    values = np.asarray(values, np.float32)
    if not storage:
        return round_to(values, dtype)
    numbers = NUMBERS[storage]
    scale = np.abs(values).max(-1, keepdims=True) / np.float32(numbers[-1])
    divisor = np.where(scale == 0, np.float32(1), scale)
    stored = np.where(scale == 0, 0, nearest(values / divisor, numbers))
    return stored.astype(np.float32) * scale


def group(values: np.ndarray) -> np.ndarray:
    """What groups of i4 [..., n] read as."""
    values = np.asarray(values, np.float32)
    least, most = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    bits = (least + np.float32(0)).view(np.uint32)
    down = np.where(least < 0, bits + np.uint32(0xFFFF), bits) & np.uint32(0xFFFF0000)
    minimum = down.view(np.float32)
    exact = ((most - minimum) / np.float32(15)).view(np.uint32)
    step = ((exact + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    steps = (values - minimum) / np.where(step == 0, np.float32(1), step)
    codes = np.where(step == 0, 0, np.rint(steps).clip(0, 15))
    return codes.astype(np.float32) * step + minimum


GROUP = 32


def store_v(values: np.ndarray, dtype: str, storage: str) -> np.ndarray:
    """The same of V, which may be in groups of channels."""
    if storage != "i4":
        return store(values, dtype, storage)
    ends = range(GROUP, np.shape(values)[-1], GROUP)
    return np.concatenate([group(v) for v in np.split(values, ends, -1)], -1)


class Version:
    """K and V [L, S, C, H, D], lengths [L, S]."""

    def __init__(self, type_):
        self.type = type_
        shape = (type_.layers, type_.sequences, type_.capacity, type_.heads, type_.dim)
        self.k, self.v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.lengths = np.zeros(shape[:2], int)

    def copy(self) -> "Version":
        other = Version.__new__(Version)
        other.type = self.type
        other.k, other.v = self.k.copy(), self.v.copy()
        other.lengths = self.lengths.copy()
        return other

    def length(self, sequence: int) -> int:
        return int(self.lengths[:, sequence].max())

    def append(
        self, layer: int, sequence: int, k: np.ndarray, v: np.ndarray
    ) -> "Version":
        new, start = self.copy(), self.lengths[layer, sequence]
        end = start + len(k)
        check(end <= self.type.capacity, "longer than max_seq_len")
        t = self.type
        if t.k_storage == "i4":
            new.k[layer, sequence, start:end] = k
            for g in range(max(1, start // GROUP), end // GROUP):
                tokens = new.k[layer, sequence, g * GROUP : (g + 1) * GROUP]
                tokens[:] = np.moveaxis(group(np.moveaxis(tokens, 0, -1)), -1, 0)
        else:
            new.k[layer, sequence, start:end] = store(k, t.dtype, t.k_storage)
        new.v[layer, sequence, start:end] = store_v(v, t.dtype, t.v_storage)
        new.lengths[layer, sequence] = end
        return new

    def cut(self, sequence: int, length: int) -> "Version":
        check(0 <= length <= self.length(sequence), "trimmed beyond its end")
        new = self.copy()
        new.lengths[:, sequence] = np.minimum(new.lengths[:, sequence], length)
        return new

    def fork(self, parent: int, child: int, length: int) -> "Version":
        check(self.length(child) == 0, "forked onto a sequence")
        check(0 <= length <= self.length(parent), "forked beyond its end")
        new = self.copy()
        new.k[:, child], new.v[:, child] = new.k[:, parent], new.v[:, parent]
        new.lengths[:, child] = np.minimum(new.lengths[:, parent], length)
        return new

    def lookup(self, layer: int, sequence: int, bound: int, source: int = -1):
        """What is held, rounded to the element type."""
        held = self.held(layer, sequence, bound, source)
        return tuple(round_to(rows, self.type.dtype) for rows in held)

    def held(self, layer: int, sequence: int, bound: int, source: int):
        """The first tokens, then zeros; `source` owns the blocks that are read."""
        source = sequence if source < 0 else source
        n = min(bound, self.lengths[layer, sequence])
        check(n <= self.lengths[layer, source], "reads behind the end of blocks")
        k = np.zeros((bound, self.type.heads, self.type.dim), np.float32)
        v = k.copy()
        k[:n], v[:n] = self.k[layer, source, :n], self.v[layer, source, :n]
        return k, v

    def attend(
        self,
        layer,
        sequence,
        q,
        first,
        scale,
        softcap,
        window,
        causal,
        source=-1,
        nearer=None,
        alibi=None,
        head_sink=None,
    ):
        """q [T, Hq, D] at positions first ...; `nearer` is q for sinks. Returns o
        and lse."""
        nearer = q if nearer is None else nearer
        n = self.lengths[layer, sequence]
        k, v = (
            a[:n].astype(np.float64) for a in self.held(layer, sequence, n, source)
        )
        out, lse = np.zeros(q.shape), np.full(q.shape[:2], -np.inf)
        window = min(w for w in (window, self.type.window, 1 << 30) if w)
        positions = np.arange(n)
        for t, h in np.ndindex(*q.shape[:2]):
            head = h // (q.shape[1] // self.type.heads)
            seen = (positions <= first + t) | (not causal)
            sinks = positions < self.type.sinks
            seen &= sinks | (positions > first + t - window)
            rows = np.where(sinks[:, None], nearer[t, h], q[t, h]).astype(np.float64)
            scores = scale * (k[:, head] * rows).sum(axis=1)[seen]
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            if alibi:
                scores += alibi[h] * (positions[seen] - first - t)
            logits = np.append(scores, head_sink[h] if head_sink else [])
            if not logits.size:
                continue
            lse[t, h] = logits.max() + np.log(np.exp(logits - logits.max()).sum())
            out[t, h] = np.exp(scores - lse[t, h]) @ v[seen, head]
        return out, lse


LIBM = ctypes.CDLL("libm.so.6")
for function in (LIBM.cosf, LIBM.sinf):
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float


def rope_exactly(x, positions, frequencies, pairing):
    """x [T, H, D] in f32, bit for bit as compiled code computes it."""
    angles = positions[:, None].astype(np.float32) * np.float32(frequencies)
    cos, sin = (
        np.vectorize(f, otypes=[np.float32])(angles)[:, None]
        for f in (LIBM.cosf, LIBM.sinf)
    )
    return rotate(x.astype(np.float32), cos, sin, pairing)


def rope(x, positions, frequencies, pairing):
    """x [T, H, D] in f64."""
    angles = (positions[:, None].astype(np.float32) * np.float32(frequencies)).astype(
        np.float64
    )
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return rotate(x.astype(np.float64), cos, sin, pairing)


def rotate(x, cos, sin, pairing):
    half = x.shape[2] // 2
    first = slice(0, half) if pairing == "half" else slice(0, None, 2)
    second = slice(half, None) if pairing == "half" else slice(1, None, 2)
    y = x.copy()
    a, b = x[..., first], x[..., second]
    y[..., first], y[..., second] = a * cos - b * sin, a * sin + b * cos
    return y
