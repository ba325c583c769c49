"""Named checks, one process each, so that CTest runs and counts them singly.

A file of checks decorates functions with @check("name") and ends by calling
main(). With --list it prints the names, for CMakeLists.txt, each followed by
its CTest labels; with a name it runs that check. The exit status is 0, 1, or 77
for a check that lacks something it may lack.
"""

import sys
import traceback
from typing import Callable

SKIPPED = 77

Check = Callable[[], None]

_checks: dict[str, tuple[Check, str]] = {}


class Skip(Exception):
    """Raised with what is missing."""


def register(name: str, function: Check, *, label: str = "e2e") -> None:
    """Checks labelled "long" are beyond what scripts/test runs."""
    assert name not in _checks, name
    _checks[name] = function, label


def check(name: str) -> Callable[[Check], Check]:
    def decorate(function: Check) -> Check:
        register(name, function)
        return function

    return decorate


def run(name: str) -> int:
    try:
        _checks[name][0]()
    except Skip as reason:
        print(f"skipped: {reason}")
        return SKIPPED
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        for name, (_, label) in _checks.items():
            print(name, label.replace(";", " "))
        return
    if len(sys.argv) != 2 or sys.argv[1] not in _checks:
        sys.exit(f"usage: {sys.argv[0]} --list | {' | '.join(_checks)}")
    sys.exit(run(sys.argv[1]))
