"""What tests of benchmarks share: a folder, and programs that run in it."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BENCH_ATTENTION = os.environ.get("BENCH_ATTENTION", "")


class ToolTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write_text(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def run_tool(self, *command, status: int = 0) -> str:
        """What it prints: to stdout, or where it fails to stderr."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stderr if status else done.stdout

    def line(self, output: str, start: str) -> list[str]:
        """The cells of the only line that starts so."""
        lines = [text for text in output.splitlines() if text.startswith(start)]
        self.assertEqual(len(lines), 1, output)
        return lines[0].split()
