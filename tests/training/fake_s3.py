"""A small server of the API of S3, as fake_gcs.py: what s3fs calls for objects of a bucket in its path."""

import functools
import hashlib
import importlib.util
import os
import re
import threading
import urllib.parse
from xml.sax.saxutils import escape

import fake_gcs
import pytest

NEEDED = pytest.mark.skipif(
    importlib.util.find_spec("s3fs") is None, reason="needs the extra remote"
)
_DATE = "2026-01-01T00:00:00.000Z"


class Handler(fake_gcs.Handler):
    def do_HEAD(self):
        self._answer("HEAD")

    def _answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query, True).items()}
        if status := self.storage.fail(method, self.path):
            return self._send(status, _error("AccessDenied" if status == 403 else "SlowDown"))
        bucket, _, name = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        self._send(*self._call(method, bucket, name, query, body))

    def _send(self, status, body=b"", headers=()):
        if self.command == "HEAD" and status != 200:
            body = b""
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _call(self, method, bucket, name, query, body):
        key = f"{bucket}/{name}"
        if not name:
            if method == "POST" and "delete" in query:
                for found in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                    self._drop(f"{bucket}/{found}")
                return 200, b"<DeleteResult></DeleteResult>"
            return self._list(bucket, query) if method == "GET" else (200, b"")
        if method == "PUT":
            if source := self.headers.get("x-amz-copy-source"):
                data = self.storage.read(urllib.parse.unquote(source).lstrip("/"))
                self.storage.put(key, data)
                text = f"<CopyObjectResult><ETag>{_tag(data)}</ETag></CopyObjectResult>"
                return 200, text.encode()
            if self.headers.get("If-None-Match") == "*" and key in self.storage.objects:
                return 412, _error("PreconditionFailed")
            self.storage.put(key, body)
            return 200, b"", {"ETag": _tag(body)}
        if method == "DELETE":
            self._drop(key)
            return 204, b""
        if key not in self.storage.objects:
            return 404, _error("NoSuchKey")
        data = self.storage.read(key)
        headers = {"ETag": _tag(data), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return 200, data, headers

    def _drop(self, key):
        with self.storage.lock:
            if self.storage.objects.pop(key, None):
                self.storage.watch(self.storage.objects)

    def _list(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for key in self.storage.names(f"{bucket}/{prefix}"):
            name = key.removeprefix(f"{bucket}/")
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                size = len(self.storage.read(key))
                items.append(
                    f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size>"
                    f"<LastModified>{_DATE}</LastModified></Contents>"
                )
        folders = (
            f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in prefixes
        )
        text = f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
        text += f"<KeyCount>{len(items) + len(prefixes)}</KeyCount><IsTruncated>false</IsTruncated>"
        text += "".join([*items, *folders]) + "</ListBucketResult>"
        return 200, text.encode(), {"Content-Type": "application/xml"}


def _tag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


def _error(code):
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


@functools.cache
def start():
    """As `fake_gcs.start`."""
    storage = fake_gcs.FakeStorage()
    handler = type("_Handler", (Handler,), {"storage": storage})
    server = fake_gcs._Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1",
    }
    return storage
