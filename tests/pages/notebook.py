"""A process in which snippets run as in a notebook, one cell after the other."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROGRAM = """
import ast, io, json, os, sys, traceback
from contextlib import redirect_stderr, redirect_stdout

for line in sys.stdin:
    code, folder = json.loads(line)
    os.chdir(folder)
    cell, names, out, err, answer = ast.parse(code), {}, io.StringIO(), io.StringIO(), {}
    last = cell.body.pop() if isinstance(cell.body[-1], ast.Expr) else None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            exec(compile(cell, "cell", "exec"), names)
            if last is not None:
                answer["value"] = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        except Exception:
            answer = {"error": traceback.format_exc()}
    answer |= {"out": out.getvalue(), "err": err.getvalue()}
    print(json.dumps(answer, default=repr), flush=True)
"""


@dataclass(frozen=True)
class Cell:
    """What a cell has said, and the value of its last line, as JSON, if that is an expression."""

    out: str
    err: str
    value: Any = None


class Notebook:
    """Runs cells, each with no names but its own. What is imported stays imported.

    Its environment says where the Hub is: huggingface_hub reads that once, so it needs its own process.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self._log = folder / "stderr.txt"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def run(self, *parts: str, folder: Path | None = None) -> Cell:
        """Run the parts as one cell, which must not fail, in a folder, by default the notebook's own."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(["\n".join(parts), str(folder or self.folder)]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return Cell(**answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)
