"""Packages from loopback: builds are compared, not the weather on the network.

A proxy that keeps what it fetched answers apt, and an index made of wheels that pip downloaded
once answers pip. Both are kept between runs; lists of packages for a week.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.set_up.step import run

WHEELS = "wheels.invalid"
"""The host that the Dockerfiles name; only the proxy knows it."""

PYTHON = "3.13"
REQUIREMENTS = ("numpy==2.5.5", "scipy==1.18.1", "pandas==3.1.1")
FURTHER = "requests==2.34.2"
WEEK = 7 * 24 * 3600


def still_good(url: str, age: float) -> bool:
    """Whether what ``url`` gave ``age`` seconds ago can be given again.

    Packages and lists under their own digest never change; other lists do (Debian repository
    format).
    """
    return "/pool/" in url or "/by-hash/" in url or age < WEEK


def index(project: str, files: Iterable[str]) -> str:
    """The page of a project in the simple repository API (PEP 503), empty if it has no wheel."""
    return "\n".join(
        f'<a href="/files/{file}">{file}</a>'
        for file in sorted(files)
        if file.endswith(".whl") and re.sub(r"[-_.]+", "-", file.split("-")[0]).lower() == project
    )


class Packages(ThreadingHTTPServer):
    """``fetched`` counts what had to come from the network."""

    daemon_threads = True

    def __init__(self, store: Path, wheels: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.wheels = wheels
        self.fetched = 0

    @property
    def address(self) -> str:
        """What http_proxy is to be."""
        return f"http://127.0.0.1:{self.server_port}"

    def kept(self, url: str) -> Path:
        """The file with what ``url`` gave; fetched where it is missing or a list too old."""
        path = self.store / hashlib.sha256(url.encode()).hexdigest()
        if path.exists() and still_good(url, time.time() - path.stat().st_mtime):
            return path
        self.fetched += 1
        with (
            urllib.request.urlopen(url, timeout=120) as answer,  # noqa: S310 - http only, see below
            tempfile.NamedTemporaryFile(dir=self.store, delete=False) as file,
        ):
            shutil.copyfileobj(answer, file)
        return Path(file.name).rename(path)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a build that was ended hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Packages

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.scheme != "http":
            self.send_error(501)
        elif url.hostname == WHEELS:
            self._wheels(unquote(url.path))
        else:
            try:
                self._file(self.server.kept(self.path))
            except urllib.error.HTTPError as error:
                self.send_error(error.code)
            except OSError as error:
                self.send_error(502, explain=str(error))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _wheels(self, path: str) -> None:
        """PEP 503, simple repository API, and the files themselves."""
        name = path.rstrip("/").rpartition("/")[2]
        if path.startswith("/files/"):
            self._file(self.server.wheels / name)
            return
        body = index(name, (file.name for file in self.server.wheels.iterdir())).encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self.send_error(404)
            return
        with path.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            if self.command == "GET":
                self.wfile.flush()
                self.connection.sendfile(file)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def wheels(directory: Path) -> Path:
    """The directory of the wheels; pip downloads them where they are not there yet."""
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=directory.parent))
        machine = os.uname().machine
        words = [sys.executable, "-m", "pip", "download", "-q", f"--dest={work}"]
        words += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
        for platform in ("manylinux2014", "manylinux_2_27", "manylinux_2_28"):
            words.append(f"--platform={platform}_{machine}")
        try:
            run([*words, *REQUIREMENTS, FURTHER])
            work.rename(directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return directory


@contextmanager
def serving(home: Path) -> Iterator[Packages]:
    """Serve packages, kept in ``home``, until the block ends. Raises SetupError, OSError."""
    key = hashlib.sha256("\n".join((PYTHON, *REQUIREMENTS, FURTHER)).encode()).hexdigest()[:16]
    store = home / "packages"
    store.mkdir(parents=True, exist_ok=True)
    server = Packages(store, wheels(home / f"wheels-{key}"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
