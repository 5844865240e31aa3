"""A small server of the JSON API of Google Cloud Storage: what gcsfs and tensorstore call for buckets without folders.

It keeps objects in memory, numbers every write (a generation), and can fail on demand.
"""

import base64
import contextlib
import email
import functools
import hashlib
import http.server
import importlib.util
import json
import os
import re
import threading
import urllib.parse

import fsspec.config
import pytest

# not by importing it, because it reads the variables that `start` sets
NEEDED = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="needs the extra remote"
)


class FakeStorage:
    """Objects of all buckets, {"bucket/name": (generation, bytes)}; `fail` decides which requests get which status."""

    def __init__(self):
        self.objects = {}
        self.lock = threading.RLock()
        self.generation = 0
        # uploads in parts: bucket, name and what has arrived
        self.uploads = {}
        # (method, path) -> a status to answer with, or None
        self.fail = lambda method, path: None
        # called with the objects after each change
        self.watch = lambda objects: None

    def put(self, name, data):
        with self.lock:
            self.generation += 1
            self.objects[name] = (self.generation, bytes(data))
            self.watch(self.objects)
            return self.generation

    def forget(self):
        """Removes all objects."""
        with self.lock:
            self.objects.clear()

    def names(self, prefix=""):
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def read(self, name):
        return self.objects[name][1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: FakeStorage

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def do_DELETE(self):
        self._answer("DELETE")

    def _answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query, True).items()}
        if status := self.storage.fail(method, self.path):
            self._send(status, b"{}")
        elif url.path.startswith("/batch"):
            self._batch(body)
        else:
            self._send(*self._call(method, url.path, query, body))

    def _send(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def _call(self, method, path, query, body):
        """Status, body and headers of one call."""
        match = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", path)
        if match is None:
            media = re.fullmatch(r"/download/storage/v1/b/([^/]+)/o/(.+)", path)
            if media is None:
                return 404, b"{}"
            bucket, name, upload = media[1], media[2], None
            query["alt"] = "media"
        else:
            upload, bucket, name = match.groups()
        name = urllib.parse.unquote(name or "")
        if copied := re.fullmatch(r"(.+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.+)", name):
            data = self.storage.objects[f"{bucket}/{copied[1]}"][1]
            _, body, headers = self._write(copied[2], copied[3], data, {})
            return 200, json.dumps({"done": True, "resource": json.loads(body)}).encode(), headers
        if upload:
            return self._upload(bucket, query, body)
        if not name and path.endswith("/o"):
            return self._list(bucket, query)
        if not name:
            return self._json({"name": bucket, "kind": "storage#bucket"})
        key = f"{bucket}/{name}"
        with self.storage.lock:
            generation, data = self.storage.objects.get(key, (0, b""))
            if (wanted := query.get("ifGenerationMatch")) and int(wanted) != generation:
                return 412, b"{}"
            if not generation:
                return 404, b"{}"
            if method == "DELETE":
                del self.storage.objects[key]
                self.storage.watch(self.storage.objects)
                return 204, b""
        if (unwanted := query.get("ifGenerationNotMatch")) and int(unwanted) == generation:
            return 304, b""
        if query.get("alt") != "media":
            return self._json(_resource(bucket, name, generation, data))
        headers = {"x-goog-generation": generation, "ETag": f'"{generation}"'}
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or ""):
            size = len(data)
            start = int(found[1]) if found[1] else max(size - int(found[2]), 0)
            stop = int(found[2]) + 1 if found[1] and found[2] else size
            if start >= size:
                return 416, b""
            part = data[start:stop]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{size}"
            return 206, part, headers
        return 200, data, headers

    def _json(self, value):
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}

    def _upload(self, bucket, query, body):
        if session := query.get("upload_id"):
            bucket, name = self.storage.uploads[session][:2]
            found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
            received = self.storage.uploads[session][2]
            received[int(found[1]) if found[1] else len(received) :] = body
            if found[2] == "*":
                return 308, b"", {"Range": f"bytes=0-{len(received) - 1}"}
            return self._write(bucket, name, bytes(received), {})
        kind = query["uploadType"]
        if kind == "resumable":
            session = str(len(self.storage.uploads))
            name = query.get("name") or json.loads(body)["name"]
            self.storage.uploads[session] = bucket, name, bytearray()
            host = self.headers["Host"]
            where = f"http://{host}/upload/storage/v1/b/{bucket}/o?upload_id={session}"
            return 200, b"{}", {"Location": where}
        if kind == "media":
            return self._write(bucket, query["name"], body, query)
        boundary = re.search(r'boundary="?([^";]+)"?', self.headers["Content-Type"])[1]
        about, content = body.split(b"--" + boundary.encode())[1:3]
        name = json.loads(about[about.index(b"{") :])["name"]
        content = content[re.search(rb"\r?\n\r?\n", content).end() :].removesuffix(b"\n")
        return self._write(bucket, name, content, query)

    def _write(self, bucket, name, data, query):
        with self.storage.lock:
            generation = self.storage.objects.get(f"{bucket}/{name}", (0, b""))[0]
            if (wanted := query.get("ifGenerationMatch")) and int(wanted) != generation:
                return 412, b"{}"
            generation = self.storage.put(f"{bucket}/{name}", data)
        return self._json(_resource(bucket, name, generation, data))

    def _list(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        items, prefixes = [], set()
        for key in self.storage.names(f"{bucket}/{prefix}"):
            name = key.removeprefix(f"{bucket}/")
            if name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            with contextlib.suppress(KeyError):
                items.append(_resource(bucket, name, *self.storage.objects[key]))
        return self._json({"items": items, "prefixes": sorted(prefixes)})

    def _batch(self, body):
        """Several calls in one; only deletions are made so."""
        kind = self.headers["Content-Type"]
        whole = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        answers = []
        for part in whole.get_payload():
            method, path, *_ = part.get_payload().split()
            status, content, *_ = self._call(method, urllib.parse.urlsplit(path).path, {}, b"")
            answers.append(
                "--reply\r\nContent-Type: application/http\r\nContent-ID: <response-"
                f"{part['Content-ID'].strip('<>')}>\r\n\r\nHTTP/1.1 {status} -\r\n\r\n{content.decode()}\r\n"
            )
        text = "".join(answers) + "--reply--"
        headers = {"Content-Type": "multipart/mixed; boundary=reply"}
        self._send(200, text.encode(), headers)


def _resource(bucket, name, generation, data):
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "generation": str(generation),
        "metageneration": "1",
        "size": str(len(data)),
        "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
        "timeCreated": "2026-01-01T00:00:00.000Z",
        "updated": "2026-01-01T00:00:00.000Z",
    }


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # tensorstore opens many connections at once; those that do not fit in the queue wait for seconds or for ever
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """A client that was killed is no error of the server."""


@functools.cache
def start() -> FakeStorage:
    """Starts the server for the rest of this process, and sets the variables with which clients find it.

    Clients, also in processes that are started from here, read the variables once.
    """
    storage = FakeStorage()
    handler = type("_Handler", (Handler,), {"storage": storage})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ |= {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        # neither asks a metadata server who it is
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "FSSPEC_GCS_TOKEN": "anon",
        "NO_GCE_CHECK": "true",
        # otherwise gcsfs asks by gRPC whether the bucket has folders
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "no_proxy": "127.0.0.1",
    }
    # which has read the variables already
    for scheme in ("gcs", "gs"):
        fsspec.config.conf.setdefault(scheme, {})["token"] = "anon"
    return storage
