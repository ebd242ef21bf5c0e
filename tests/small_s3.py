"""A server that talks as much S3 as a store needs, and gives the answers it is told to: what only a server can show.

Objects are kept in memory, by key without the bucket.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit


class SmallS3(ThreadingHTTPServer):
    """`refused` are answers to give instead of doing what is asked, `lost` those to give afterwards: (verb, status)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[int, bytes] = {}
        self.refused: list[tuple[str, int]] = []
        self.lost: list[tuple[str, int]] = []
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SmallS3

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        url, data = urlsplit(self.path), self.rfile.read(int(self.headers["Content-Length"] or 0))
        key, asked = unquote(url.path).split("/", 2)[-1], parse_qs(url.query, keep_blank_values=True)
        verb = "COMPLETE" if "uploadId" in asked and self.command == "POST" else self.command
        with self.server.lock:
            status, body = self._told(self.server.refused, verb) or self._do(verb, key, asked, data)
            status, body = self._told(self.server.lost, verb) or (status, body)
        self.send_response(status)
        self.send_header("ETag", '"etag"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if verb != "HEAD":
            self.wfile.write(body)

    def _told(self, answers: list[tuple[str, int]], verb: str) -> tuple[int, bytes] | None:
        if not answers or answers[0][0] != verb:
            return None
        return answers.pop(0)[1], b"<Error><Code>Told</Code><Message>so</Message></Error>"

    def _do(self, verb: str, key: str, asked: dict[str, list[str]], data: bytes) -> tuple[int, bytes]:
        objects, parts = self.server.objects, self.server.parts
        if verb == "POST" and "delete" in asked:
            for name in (found := re.findall(rb"<Key>(.*?)</Key>", data)):
                objects.pop(name.decode(), None)
            gone = b"".join(b"<Deleted><Key>%b</Key></Deleted>" % name for name in found)
            return 200, b"<DeleteResult>%b</DeleteResult>" % gone
        if verb == "POST":
            return 200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        if "partNumber" in asked:
            parts[int(asked["partNumber"][0])] = data
            return 200, b""
        if verb == "COMPLETE":
            if not parts:
                return 404, b"<Error><Code>NoSuchUpload</Code><Message>none</Message></Error>"
            objects[key] = b"".join(parts[number] for number in sorted(parts))
            parts.clear()
            return 200, b"<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>"
        if verb == "DELETE":
            parts.clear()
            return 204, b""
        if verb == "PUT" and self.headers["If-None-Match"] and key in objects:
            return 412, b""
        if verb == "PUT":
            objects[key] = data
            return 200, b""
        return (200, objects[key]) if key in objects else (404, b"")

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - as http.server wants it


@contextmanager
def serving() -> Iterator[SmallS3]:
    """A server, and the environment in which `s3://bucket` is it."""
    with SmallS3() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ALLOW_HTTP": "true"}
        who = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "here"}
        try:
            with patch.dict(os.environ, where | who):
                yield server
        finally:
            server.shutdown()
