"""Processes that begin with slow libraries imported: one process imports them, and forks for each piece of code."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Reads one request a line; what it forks is a process of its own in all but the imports.
SERVER = """
import importlib, json, os, sys, traceback

for name in sys.argv[1:]:
    importlib.import_module(name)
sys.argv[1:] = []
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for name, number in (("input", 0), ("output", 1), ("errors", 2)):
                opened = os.open(request[name], os.O_RDONLY if number == 0 else os.O_WRONLY)
                os.dup2(opened, number)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["environment"])
            exec(compile(request["code"], "<code>", "exec"), {"__name__": "__main__"})
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmPython:
    """Runs code as `python -c` does, in a process that has imported some libraries already.

    None of them may read the environment when it is imported. Code that sends or fetches with `hf_xet` was seen to wait
    for ever in such a process: it needs one of its own.
    """

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, code: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run code to its end.

        Args:
            code: Python.
            environment: all of it.
            cwd: the folder to run it in.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, name) for name in ("input", "output", "errors")}
            for path in paths.values():
                path.touch()
            request = {name: str(path) for name, path in paths.items()}
            request |= {"code": code, "environment": environment, "cwd": str(cwd)}
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            output, errors = (paths[name].read_text(encoding="utf-8") for name in ("output", "errors"))
        return subprocess.CompletedProcess([sys.executable], status, output, errors)


@contextmanager
def warm_python(*libraries: str) -> Iterator[WarmPython]:
    """Start it.

    Args:
        libraries: modules to import.
    """
    command = [sys.executable, "-c", SERVER, *libraries]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield WarmPython(server)
