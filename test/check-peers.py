"""Holds test/peers.txt and the tests together.

Every bug of the list must be cited by a test, with all of its reports:
`peers: report, report ...` in a comment, which may go on in the next line.
Every citation must be that of a bug of the list.

The last line printed is "N of M bugs cited".
"""

import re
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SUFFIXES = {".cpp", ".h", ".mlir", ".py", ".test"}
CITATION = re.compile(r"\bpeers: ((?:[\w./#-]+,\s+)*[\w./#-]+)")
COMMENT = re.compile(r"\n\s*(//|#)\s*")


def reports_of(text: str) -> frozenset[str]:
    return frozenset(report.strip() for report in text.split(","))


def read_list(path: Path) -> dict[frozenset[str], str]:
    bugs = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            what, reports = line.rsplit(": ", 1)
            bugs[reports_of(reports)] = what
    return bugs


def read_citations() -> dict[frozenset[str], Path]:
    citations = {}
    for path in sorted(TESTS.rglob("*")):
        if path.suffix not in SUFFIXES or path == Path(__file__).resolve():
            continue
        text = COMMENT.sub(" ", path.read_text())
        for match in CITATION.finditer(text):
            citations[reports_of(match.group(1))] = path
    return citations


def main() -> int:
    bugs = read_list(TESTS / "peers.txt")
    citations = read_citations()
    problems = [
        f"error: no test cites '{what}': {', '.join(sorted(reports))}"
        for reports, what in bugs.items()
        if reports not in citations
    ] + [
        f"error: {path.relative_to(TESTS)} cites what test/peers.txt has not: "
        f"{', '.join(sorted(reports))}"
        for reports, path in citations.items()
        if reports not in bugs
    ]
    for problem in problems:
        print(problem)
    print(f"{len(bugs.keys() & citations.keys())} of {len(bugs)} bugs cited")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
