"""What a hub answers to one who writes: a new repository, which way each file goes, large files, and a commit."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import yaml

LFS = ("*.safetensors", "*.bin", "*.pth", "*.parquet", "*.gguf", "spm.model")
Answer = tuple[int, dict[str, Any]]


def is_lfs(name: str) -> bool:
    """Return whether a file of this name is kept outside of git."""
    return any(fnmatch(name.rsplit("/", 1)[-1], pattern) for pattern in LFS)


@dataclass
class Uploads:
    """What came: large files by SHA-256, and the messages of commits; ``refuses`` is a status for every commit."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refuses: int | None = None

    def answer(self, hub: Any, method: str, parts: list[str], body: bytes, *, allowed: bool) -> Answer | None:
        """Return status and JSON, or ``None`` for what is no writing."""
        if method == "PUT" and parts[0] == "upload":
            return self._take(parts[1], body)
        if method == "POST" and parts == ["api", "validate-yaml"]:
            return _check_card(json.loads(body)["content"])
        writes = {("api", "repos", "create"): self._create, ("lfs", "objects", "batch"): self._announced}
        found = writes.get(tuple(parts[-3:])) if method == "POST" else None
        if found is None and method == "POST" and len(parts) > 4:
            found = {"preupload": self._preupload, "commit": self._commit}.get(parts[4])
        if found is None:
            return None
        return found(hub, parts, body) if allowed else (401, {"error": "Invalid credentials in Authorization header"})

    def _take(self, sha256: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != sha256:
            return 400, {"error": "not what was announced"}
        self.blobs[sha256] = body
        return 200, {}

    def _announced(self, hub: Any, parts: list[str], body: bytes) -> Answer:
        objects = json.loads(body)["objects"]
        return 200, {"transfer": "basic", "objects": [self._place(hub, one) for one in objects]}

    def _preupload(self, hub: Any, parts: list[str], body: bytes) -> Answer:
        names = [one["path"] for one in json.loads(body)["files"]]
        ways = {name: "lfs" if is_lfs(name) else "regular" for name in names}
        return 200, {"files": [{"path": n, "uploadMode": way, "shouldIgnore": False} for n, way in ways.items()]}

    def _create(self, hub: Any, parts: list[str], body: bytes) -> Answer:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if ("model", name) in hub.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{hub.endpoint}/{name}"}
        hub.add(name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
        return 200, {"url": f"{hub.endpoint}/{name}"}

    def _place(self, hub: Any, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.blobs:
            return one
        return {**one, "actions": {"upload": {"href": f"{hub.endpoint}/upload/{one['oid']}"}}}

    def _commit(self, hub: Any, parts: list[str], body: bytes) -> Answer:
        name = "/".join(parts[2:4])
        if self.refuses is not None:
            return self.refuses, {"error": "The hub is not well"}
        before = hub.repositories["model", name]
        files = dict(before.files)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    self.messages.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = hub.add(name, files, private=before.private).commit
        return 200, {"commitUrl": f"{hub.endpoint}/{name}/commit/{commit}", "commitOid": commit}


def _check_card(content: str) -> Answer:
    """Return what the hub says of a card's metadata: a model index must be whole."""
    try:
        metadata = yaml.safe_load(content.split("---\n")[1])
        for model in metadata.get("model-index", []):
            for result in model["results"]:
                given = result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]
                values = [metric["value"] for metric in result["metrics"] if metric["type"]]
                if not all(given) or not values or not model["name"]:
                    raise ValueError("empty")
    except (IndexError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        return 400, {"errors": [{"message": f"bad metadata: {error}"}]}
    return 200, {"errors": [], "warnings": []}
