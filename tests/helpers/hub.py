"""A small model hub on 127.0.0.1: what huggingface_hub and datasets ask of one, with faults on demand.

``with FakeHub() as hub: hub.add("owner/name", {"config.json": b"{}"})``, then a subprocess with
``hub.environment(home)``, or ``hub.install(monkeypatch, home)`` in this process.
"""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

import datasets
from huggingface_hub import constants

from tests.helpers.hub_uploads import Uploads, is_lfs

RepoType = Literal["model", "dataset"]
TOKEN = "hf_accepted"  # the one that may read gated repositories


@dataclass
class FakeRepository:
    """Files of one commit."""

    files: dict[str, bytes]
    gated: Literal["auto", "manual", False] = False
    private: bool = False

    @property
    def commit(self) -> str:
        """The commit's hash, of 40 digits: another one for other contents."""
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name} {_git_hash(content)}\n".encode())
        return digest.hexdigest()


@dataclass
class Faults:
    """What goes wrong, by file name: connections that end early, contents that are not what was promised."""

    cut_after: dict[str, int] = field(default_factory=dict)
    cuts_left: dict[str, int] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    fails_after: dict[str, int] = field(default_factory=dict)


class FakeHub:
    """A hub of a test's own repositories; ``requests`` is what it was asked: method, path, and range.

    ``repositories`` is what is on ``main``; ``revisions`` has that, other branches, and every commit that ever was.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[RepoType, str], FakeRepository] = {}
        self.revisions: dict[tuple[RepoType, str], dict[str, FakeRepository]] = {}
        self.faults = Faults()
        self.uploads = Uploads()
        self.requests: list[tuple[str, str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The address that stands for https://huggingface.co."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Return this process's environment with the hub in the place of the real one, and ``home`` as its cache."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        return {**kept, **own, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", **more}

    def install(self, monkeypatch: Any, home: Path) -> None:
        """Put the hub in the place of the real one within this process, with ``home`` as an empty cache."""
        url = f"{self.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        values = {"ENDPOINT": self.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": url, "HF_HUB_CACHE": str(home / "hub")}
        for name, value in {**values, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.endpoint)
        for name, folder in (("HF_DATASETS_CACHE", "datasets"), ("HF_MODULES_CACHE", "modules")):
            monkeypatch.setattr(datasets.config, name, home / folder)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)

    def add(
        self,
        name: str,
        files: Mapping[str, bytes] | Path,
        *,
        repo_type: RepoType = "model",
        gated: Literal["auto", "manual", False] = False,
        private: bool = False,
        branch: str = "main",
    ) -> FakeRepository:
        """Serve ``files``, or all files of a folder, as the repository ``name``; another call is another commit."""
        if isinstance(files, Path):
            paths = sorted(path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        repository = FakeRepository(dict(files), gated, private)
        if branch == "main":
            self.repositories[repo_type, name] = repository
        known = self.revisions.setdefault((repo_type, name), {})
        known |= {branch: repository, repository.commit: repository}
        return repository

    def cut(self, file: str, *, after: int, times: int = 1_000) -> None:
        """End the connection once ``after`` bytes of ``file`` were sent, ``times`` times."""
        self.faults.cut_after[file] = after
        self.faults.cuts_left[file] = times

    def fail(self, file: str, *, after: int) -> None:
        """Refuse every request for the content of ``file`` with a server's error, once ``after`` were answered."""
        self.faults.fails_after[file] = after

    def mend(self) -> None:
        """Let nothing go wrong any more."""
        self.faults = Faults()

    def downloads(self, file: str) -> list[str | None]:
        """Return the range of every request for the content of ``file``; ``None`` is all of it."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith(f"/{file}")]


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """Return a file as the tree lists it."""
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git_hash(content)}
    if is_lfs(name):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return entry


def _folders(repository: FakeRepository, under: str) -> list[dict[str, Any]]:
    """Return the folders directly in ``under`` as the tree lists them."""
    inner = [name.removeprefix(under) for name in repository.files if name.startswith(under)]
    names = sorted({under + name.split("/", 1)[0] for name in inner if "/" in name})
    return [{"type": "directory", "path": name, "size": 0, "oid": _git_hash(name.encode())} for name in names]


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path).strip("/")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append((self.command, f"/{path}", self.headers.get("Range")))
            parts = path.split("/")
            written = hub.uploads.answer(hub, self.command, parts, body, allowed=self._token())
            if written is not None:
                self._send(written[0], json.dumps(written[1]).encode(), {"Content-Type": "application/json"})
                return
            if len(parts) >= 4 and parts[0] == "api" and parts[1] in ("models", "datasets"):
                repo_type: RepoType = "model" if parts[1] == "models" else "dataset"
                repository = self._repository(repo_type, "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
                if repository is not None:
                    self._api(repository, "/".join(parts[2:4]), parts[4:], parse_qs(url.query), parse_qs(body.decode()))
                return
            repo_type = "dataset" if parts[0] == "datasets" else "model"
            parts = parts[1:] if repo_type == "dataset" else parts
            if len(parts) >= 5 and parts[2] == "resolve":
                repository = self._repository(repo_type, "/".join(parts[:2]), parts[3])
                if repository is not None:
                    self._resolve(repository, "/".join(parts[4:]))
                return
            self._refuse(404, "RepoNotFound", "Repository not found")

        def _repository(self, repo_type: RepoType, name: str, revision: str) -> FakeRepository | None:
            revisions = hub.revisions.get((repo_type, name))
            if revisions is None or (any(one.private for one in revisions.values()) and not self._token()):
                self._refuse(404, "RepoNotFound", "Repository not found")
                return None
            if revision not in revisions:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return revisions.get(revision)

        def _token(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def _api(
            self,
            repository: FakeRepository,
            name: str,
            rest: list[str],
            query: dict[str, list[str]],
            form: dict[str, list[str]],
        ) -> None:
            if not rest or rest[0] == "revision":
                self._json(self._info(repository, name, blobs="blobs" in query))
            elif rest[0] == "tree":
                under = "".join(f"{part}/" for part in rest[2:])
                files = [_entry(file, content) for file, content in repository.files.items() if file.startswith(under)]
                if query.get("recursive") != ["true"]:
                    files = [one for one in files if "/" not in one["path"].removeprefix(under)]
                    files += _folders(repository, under)
                if files:
                    self._json(files)
                else:
                    self._refuse(404, "EntryNotFound", f"{under} does not exist")
            elif rest[0] == "paths-info":
                asked = form.get("paths", [])
                files = [_entry(file, repository.files[file]) for file in asked if file in repository.files]
                inside = [one for one in asked if any(file.startswith(f"{one}/") for file in repository.files)]
                folders = [
                    {"type": "directory", "path": one, "size": 0, "oid": _git_hash(one.encode())} for one in inside
                ]
                self._json(files + folders)
            else:
                self._refuse(404, None, "Not found")

        def _info(self, repository: FakeRepository, name: str, *, blobs: bool) -> dict[str, Any]:
            siblings = []
            for file, content in repository.files.items():
                sibling: dict[str, Any] = {"rfilename": file}
                if blobs:
                    entry = _entry(file, content)
                    sibling |= {"size": len(content), "blobId": entry["oid"]}
                    if "lfs" in entry:
                        sibling["lfs"] = {**entry["lfs"], "sha256": entry["lfs"]["oid"]}
                siblings.append(sibling)
            own = {
                "id": name,
                "sha": repository.commit,
                "private": repository.private,
                "gated": repository.gated,
                "disabled": False,
            }
            return {**own, "tags": [], "downloads": 0, "siblings": siblings}

        def _resolve(self, repository: FakeRepository, file: str) -> None:
            given = self.headers.get("Authorization", "")
            if repository.gated and given != f"Bearer {TOKEN}":
                self._refuse(403 if given else 401, "GatedRepo", "Access to this repository is restricted.")
                return
            commit = {"X-Repo-Commit": repository.commit}
            if file not in repository.files:
                self._refuse(404, "EntryNotFound", "Entry not found", commit)
                return
            if self.command == "GET" and file in hub.faults.fails_after:
                hub.faults.fails_after[file] -= 1
                if hub.faults.fails_after[file] < 0:
                    self._refuse(500, None, "Internal error", commit)
                    return
            content = repository.files[file]
            entry = _entry(file, content)
            etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            linked = {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))} if "lfs" in entry else {}
            if file in hub.faults.corrupt:
                content = bytes([content[0] ^ 1]) + content[1:]
            asked = self.headers.get("Range", "")
            first = int(asked.removeprefix("bytes=").split("-")[0]) if asked.startswith("bytes=") else 0
            headers = {**commit, **linked, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if asked:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206 if asked else 200, content[first:], headers, cut=self._cut(file))

        def _cut(self, file: str) -> int | None:
            if self.command != "GET" or hub.faults.cuts_left.get(file, 0) < 1:
                return None
            hub.faults.cuts_left[file] -= 1
            return hub.faults.cut_after[file]

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _refuse(self, status: int, code: str | None, message: str, more: Mapping[str, str] | None = None) -> None:
            headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(more or {})}
            self._send(status, json.dumps({"error": message}).encode(), headers)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            if cut is not None:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

    return Handler
