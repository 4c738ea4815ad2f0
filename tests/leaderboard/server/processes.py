"""Servers of stubs in processes of their own."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx


class started:
    """A server of stubs in a process of its own, at `url`."""

    def __init__(self, home: Path, database: str, **limits: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        limits = {"reads": 10**9, "changes": 10**9} | limits
        code = (
            f"import stubs\nif __name__ == '__main__': stubs.main({str(home)!r}, {database!r}, '{port}', **{limits!r})"
        )
        (home / "main.py").write_text(code)
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen([sys.executable, home / "main.py"], env=os.environ | {"PYTHONPATH": path})

    def __enter__(self):
        def up():
            assert self.process.poll() is None, "the server ended"
            try:
                return httpx.get(f"{self.url}/health").status_code == 200
            except httpx.ConnectError:
                return False

        until(up)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def until(holds, seconds: float = 60):
    """Waits until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.1)


def in_a_loop(coroutine):
    """What a coroutine gives, in a loop of a thread of its own: a browser's loop may be running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
