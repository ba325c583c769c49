"""Reports of measurements: rows of figures by their names, and where they stand.

Both bench-attention and scripts/bench-model write what `read_report` reads.
"""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BINARIES = REPOSITORY / "build/release/bin"
REPORTS = REPOSITORY / "build/reports"

CEILINGS = {  # its rows' name: what it is, its unit, and that unit in 1 / s
    "read": ("memory read", "GB/s", 1e9),
    "copy": ("copied", "GB/s", 1e9),
    "fma": ("f32 FMA", "GFLOP/s", 1e9),
    "bf16dot": ("bf16 dot products", "GFLOP/s", 1e9),
    "int8dot": ("int8 dot products", "GOP/s", 1e9),
    "bf16matrix": ("bf16 tiles", "GFLOP/s", 1e9),
}


def read_report(path: Path) -> tuple[dict, dict[str, dict]]:
    """The report's context, and its rows by their names, in their order."""
    try:
        report = json.loads(path.read_text())
        return report["context"], {row["name"]: row for row in report["benchmarks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path} is no report of a benchmark: {error!r}")


def build(*targets: str) -> None:
    """Brings programs of the release preset up to date."""
    if not (BINARIES.parent / "CMakeCache.txt").exists():
        sys.exit("error: build/release is not configured: run cmake --preset release")
    command = ["cmake", "--build", "--preset", "release", "--target", *targets]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stdout + done.stderr
        sys.exit(f"{said}error: cannot build {' and '.join(targets)}")


def draw(report: Path) -> None:
    """The picture beside a report."""
    picture = ["-o", report.with_suffix(".svg")]
    subprocess.run([REPOSITORY / "scripts/plot-benchmarks", report, *picture], check=True)


def append_history(context: dict, rows: dict[str, dict], keys: list[str], path: Path) -> None:
    """One line more: of the context what says which run it was, of rows `keys`."""
    said = ("commit", "date", "machine", "target", "model", "peers")
    line = {key: context[key] for key in said if key in context}
    line["rows"] = {
        name: {key: float(f"{row[key]:.4g}") for key in keys if key in row}
        for name, row in rows.items()
    }
    with path.open("a") as history:
        history.write(json.dumps(line) + "\n")
