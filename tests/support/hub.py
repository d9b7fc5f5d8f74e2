"""A small Hub on this machine: repositories in memory, behind the routes by which files are had.

It answers as the Hub does: a commit and an ETag with every file, byte ranges, and its codes for
what is not there. What goes wrong is set on it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from urllib.parse import unquote

import pytest

OWNER, NAME = "someone", "f8k.sgraf"
ADDRESS = f"hf://{OWNER}/{NAME}"
SECRET = "hf_secretsecretsecret"  # of no account


@dataclass
class Hub:
    """One repository: files by commit, and which commit each branch or tag is."""

    endpoint: str
    home: Path
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and file of every request for a file."""
    tokens: set[str] = field(default_factory=set)
    """What requests were authorised by."""
    refusal: tuple[int, str] | None = None
    """The status and the code that every request is answered with."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What is said to be the size of a file, if that is not its size."""
    cut: dict[str, list[int]] = field(default_factory=dict)
    """Of a file, how many bytes the next answers have before the connection is closed."""

    def commit(
        self, folder: Path, revision: str = "main", more: Mapping[str, bytes] = MappingProxyType({})
    ) -> str:
        """Add a commit of what is in a folder, and of more files; the revision is then this one."""
        content = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        } | dict(more)
        text = repr((len(self.files), sorted(content.items())))
        name = hashlib.sha1(text.encode()).hexdigest()  # as git does
        self.files[name], self.refs[revision] = content, name
        return name

    @property
    def fetched(self) -> list[str]:
        """The files whose content was asked for."""
        return [name for method, name in self.requests if method == "GET"]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use this Hub, and nothing of the user's."""
        return {**os.environ, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home)}

    @property
    def assets(self) -> Path:
        """Where the bundles that were made are kept."""
        return self.home / "assets" / "sgraf-deploy"

    def bundles(self) -> list[Path]:
        """The bundles that are there, and what was left of others."""
        return sorted(self.assets.glob("*/*/*")) + sorted(self.assets.glob("*/*/.*"))


class _Server(ThreadingHTTPServer):
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        repository, found, rest = self.path.partition("/resolve/")
        if not found:
            self.refuse(404, "")
            return
        revision, _, quoted = rest.partition("/")
        revision, name = unquote(revision), unquote(quoted)
        self.server.hub.requests.append((self.command, name))
        self.server.hub.tokens.add(self.headers.get("authorization", ""))
        commit = self.server.hub.refs.get(revision, revision)
        if self.server.hub.refusal is not None:
            self.refuse(*self.server.hub.refusal)
        elif repository != f"/{OWNER}/{NAME}":
            self.refuse(404, "RepoNotFound")
        elif commit not in self.server.hub.files:
            self.refuse(404, "RevisionNotFound")
        elif name not in self.server.hub.files[commit]:
            self.refuse(404, "EntryNotFound")
        else:
            self.send(name, commit)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, name: str, commit: str) -> None:
        content = self.server.hub.files[commit][name]
        etag = hashlib.sha256(content).hexdigest()
        begin = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            whole = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", whole)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        size = (
            self.server.hub.sizes.get(name, len(content))
            if self.command == "HEAD"
            else len(content)
        )
        self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = None
        if cuts := self.server.hub.cut.get(name):
            end, self.close_connection = begin + cuts.pop(0), True
        self.wfile.write(content[begin:end])


@contextmanager
def served(home: Path) -> Iterator[Hub]:
    """A Hub on a free port of this machine, gone after the block; `home` is the client's folder."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub = Hub(f"http://127.0.0.1:{server.server_port}", home)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def used(hub: Hub, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have `huggingface_hub` use this Hub in this process, as it would by its environment."""
    import huggingface_hub
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _cache_assets

    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
        "HF_HUB_CACHE": str(hub.home / "hub"),
        "HF_TOKEN_PATH": str(hub.home / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "AGENT_HARNESSES_PATH": str(hub.home / "agents.json"),
    }.items():
        patch.setattr(constants, name, value, raising=False)
    patch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(hub.home / "assets"))
    # It waits a second before it tries again.
    patch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    try:
        yield
    finally:
        huggingface_hub.close_session()
