"""A stand-in of the Hugging Face Hub, which speaks as much of its HTTP as huggingface_hub asks of it here.

`TOKEN` writes to the user `org` and reads what is private there. Weights and pictures go by LFS, other files
in the commit, as on the Hub.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "may_write"


class Repo:
    def __init__(self, private=False):
        self.private, self.gated, self.pulls = private, False, 0
        self.branches, self.commits = {}, {}
        self.commit("main", {})

    def commit(self, branch, files):
        sha = hashlib.sha1(repr((branch, len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def sha(self, revision):
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision="main"):
        return self.commits[self.sha(revision)]


class Refused(Exception):
    def __init__(self, status, code="", message="", content=None, **head):
        self.status, self.content = status, content or {}
        self.head = {"X-Error-Code": code, "X-Error-Message": message, **head}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    routes = (  # method, path, what answers
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", r"/api/models/(\w+/\w+)(?:/revision/([^/]+))?", "info"),
        ("POST", r"/api/models/(\w+/\w+)/branch/([^/]+)", "branch"),
        ("GET", r"/api/models/(\w+/\w+)/tree/([^/]+)", "tree"),
        ("POST", r"/api/models/(\w+/\w+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/(\w+/\w+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/(\w+)", "put"),
        ("POST", r"/api/models/(\w+/\w+)/commit/([^/]+)", "take"),
        ("GET", r"/(\w+/\w+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def handle_any(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        method, url = "GET" if self.command == "HEAD" else self.command, urlsplit(self.path)
        self.query, self.hub = url.query, self.server.hub
        self.hub.asked.append((self.command, url.path))
        for known, pattern, name in self.routes:
            if known == method and (found := re.fullmatch(pattern, url.path)):
                try:
                    answer = getattr(self, name)(*(part and unquote(part) for part in found.groups()))
                except Refused as refused:
                    return self.reply(refused.status, refused.content, refused.head)
                return self.reply(200, *answer) if isinstance(answer, tuple) else self.reply(200, answer)
        return self.reply(404, {"error": "the stand-in knows nothing of this"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def reply(self, status, content, head=()):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**dict(head), "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass

    @property
    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def repo(self, name, write=False):
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token != TOKEN):
            raise Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if repo.gated:
            raise Refused(403, "GatedRepo")
        if write and not self.token:
            raise Refused(401, "", "Invalid username or password.")
        if write and self.token != TOKEN:
            raise Refused(403, "", "you have no write access")
        return repo

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization'] or 'org'}/{asked['name']}"
        if not self.token:
            raise Refused(401, "", "Invalid username or password.")
        if self.token != TOKEN or not name.startswith("org/"):
            raise Refused(403, "", "You don't have the rights to create a model under this namespace")
        if name in self.hub.repos:
            raise Refused(409, content={"url": f"{self.hub.address}/{name}"})
        self.hub.repos[name] = Repo(asked.get("visibility") == "private" or bool(asked.get("private")))
        return {"url": f"{self.hub.address}/{name}"}

    def validate(self):
        front = json.loads(self.body)["content"].split("---\n")[1]
        assert isinstance(yaml.safe_load(front), dict)
        return {"errors": [], "warnings": []}

    def info(self, name, revision):
        repo = self.repo(name)
        sha = self.at(repo, revision or "main")
        return {"id": name, "sha": sha, "private": repo.private, "tags": [], "siblings": []}

    def at(self, repo, revision):
        if (sha := repo.sha(revision)) is None:
            raise Refused(404, "RevisionNotFound")
        return sha

    def branch(self, name, branch):
        repo = self.repo(name, write=True)
        if branch in repo.branches:
            raise Refused(409, "", "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        return {}

    def tree(self, name, revision):
        files = self.repo(name).commits[self.at(self.repo(name), revision)]
        return [
            {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
            for p, c in files.items()
        ]

    def preupload(self, name, revision):
        self.at(self.repo(name, write="create_pr" not in self.query), revision)
        modes = {True: "lfs", False: "regular"}
        asked = json.loads(self.body)["files"]
        lfs = [(one["path"], modes[one["path"].endswith((".safetensors", ".png"))]) for one in asked]
        return {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in lfs]}

    def batch(self, name):
        objects = json.loads(self.body)["objects"]
        there = [
            {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
            for one in objects
        ]
        return {"transfer": "basic", "objects": there}

    def put(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        return {}

    def take(self, name, revision):
        pull = "create_pr=1" in self.query
        repo = self.repo(name, write=not pull)
        files = dict(repo.commits[self.at(repo, revision)])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self.hub.messages.append(value["summary"])
        repo.pulls += pull
        sha = repo.commit(f"refs/pr/{repo.pulls}" if pull else revision, files)
        url = f"{self.hub.address}/{name}/commit/{sha}"
        more = {"pullRequestUrl": f"{self.hub.address}/{name}/discussions/{repo.pulls}"} if pull else {}
        return {"commitUrl": url, "commitOid": sha, **more}

    def resolve(self, name, revision, path):
        repo = self.repo(name)
        sha = self.at(repo, revision)
        if path not in repo.commits[sha]:
            raise Refused(404, "EntryNotFound", **{"X-Repo-Commit": sha})
        content = repo.commits[sha][path]
        etag = hashlib.sha256(content).hexdigest()
        return content, {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "none"}


class Hub:
    def __init__(self):
        self.repos, self.objects, self.messages, self.asked, self.address = {}, {}, [], [], ""


@contextmanager
def hub_server():
    """A Hub of this process alone, empty at first."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    server.hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
