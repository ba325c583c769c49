"""Compiles every example of the dialect's documentation.

Each ```mlir block of the TableGen files goes through --verify-roundtrip, and
each op that they define must have one.
"""

import pathlib
import re
import subprocess
import sys

DEFINITION = re.compile(r"^def (LLM_\w+)\s*:(.*?)(?=^def |^class |\Z)", re.M | re.S)
EXAMPLE = re.compile(r"```mlir\n(.*?)```", re.S)


def find_examples(file):
    """The examples of a file, each with the name of its definition."""
    for name, body in DEFINITION.findall(file.read_text()):
        examples = EXAMPLE.findall(body)
        if name.endswith("Op") and not examples:
            sys.exit(f"{file.name}: {name} has no example")
        yield from ((name, example) for example in examples)


def check(tool, file, name, example):
    command = [*tool, "--verify-roundtrip", "-"]
    run = subprocess.run(command, input=example, text=True, capture_output=True)
    if run.returncode != 0:
        sys.exit(f"{file.name}: the example of {name}: {run.stderr}")


def main(folder, *tool):
    count = 0
    for file in sorted(pathlib.Path(folder).glob("*.td")):
        for name, example in find_examples(file):
            check(tool, file, name, example)
            count += 1
    print(f"{count} examples")


if __name__ == "__main__":
    main(*sys.argv[1:])
