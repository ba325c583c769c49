"""Expectations that say by how much they were missed."""

from typing import Any


def equal(what: str, got: Any, wanted: Any) -> None:
    if got == wanted:
        return
    if isinstance(got, list) and isinstance(wanted, list):
        pairs = enumerate(zip(got, wanted))
        same = next((i for i, (a, b) in pairs if a != b), min(len(got), len(wanted)))
        what = f"{what} (the first {same} agree)"
    raise AssertionError(f"{what}: expected {wanted}, got {got}")


def near(what: str, got: float, wanted: float, tolerance: float) -> None:
    print(f"{what}: {got:.6f}, expected {wanted:.6f} within {tolerance:g}")
    if not abs(got - wanted) <= tolerance:
        raise AssertionError(f"{what}: expected {wanted} within {tolerance}, got {got}")


def contains(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise AssertionError(f"expected '{part}' in:\n{text}")
