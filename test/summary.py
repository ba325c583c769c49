"""Sums up the reports of several test runs and holds them to the floor.

A leg is one run of CTest with its JUnit report LEG.xml. A leg without a report
has failed to build: it counts as one failed test.

The floor (a JSON object):
  executed                    as many tests must have passed or failed
  skips                       tests that may be skipped, by name or pattern
  skips_without_shared_files  further ones where the shared files are absent;
                              those count as executed

The last line printed is "N passed, N failed", with ", N skipped" where some
were. The exit status is 1 when a test failed, the floor was not reached or a
test was skipped that is not listed.
"""

import argparse
import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Test:
    leg: str
    name: str
    outcome: str  # passed, failed or skipped

    def matches(self, patterns: list[str]) -> bool:
        return any(fnmatchcase(self.name, pattern) for pattern in patterns)


def outcome_of(case: ElementTree.Element) -> str:
    """CTest files what it could not start with what asked to be skipped."""
    skipped = case.find("skipped")
    if skipped is not None:
        asked = skipped.get("message", "").startswith("SKIP_")
        return "skipped" if asked else "failed"
    outcomes = {"run": "passed", "disabled": "skipped"}
    return outcomes.get(case.get("status", ""), "failed")


def read_leg(leg: str, reports: Path) -> list[Test]:
    report = reports / f"{leg}.xml"
    if not report.exists():
        return [Test(leg, "(build)", "failed")]
    cases = ElementTree.parse(report).iter("testcase")
    return [Test(leg, case.get("name", ""), outcome_of(case)) for case in cases]


def shared_files_present() -> bool:
    return Path(os.environ.get("LLM_SHARED") or REPOSITORY.parent / "shared").is_dir()


def check_floor(tests: list[Test], floor: dict) -> list[str]:
    """What is wrong, as sentences."""
    excused = [] if shared_files_present() else floor["skips_without_shared_files"]
    skipped = [test for test in tests if test.outcome == "skipped"]
    executed = len(tests) - len(skipped)
    executed += sum(test.matches(excused) for test in skipped)
    problems = [
        f"{test.leg}: {test.name} was skipped and is not listed"
        for test in skipped
        if not test.matches(floor["skips"] + excused)
    ]
    if executed < floor["executed"]:
        problems.append(
            f"expected at least {floor['executed']} executed tests, got {executed}"
        )
    return problems


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sums up test reports.")
    parser.add_argument("--floor", type=Path, required=True)
    parser.add_argument("--reports", type=Path, required=True)
    parser.add_argument("legs", nargs="+")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    tests: list[Test] = []
    for leg in arguments.legs:
        of_leg = read_leg(leg, arguments.reports)
        counts = Counter(test.outcome for test in of_leg)
        print(f"{leg}: {dict(counts)}")
        tests += of_leg
    for test in tests:
        if test.outcome != "passed":
            print(f"{test.outcome}: {test.leg}: {test.name}")
    problems = check_floor(tests, json.loads(arguments.floor.read_text()))
    for problem in problems:
        print(f"error: {problem}")
    counts = Counter(test.outcome for test in tests)
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['passed']} passed, {counts['failed']} failed{skipped}")
    return 1 if problems or counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
