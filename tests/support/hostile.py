"""A server of raw bytes that answers wrongly in as many ways as a line names: ``way:NAME`` in what a session is sent.

``WAYS`` are those that cost nothing; those of ``HEAVY`` send many megabytes. Each is given what was asked, and gives
the bytes of its answer piece by piece, after which the connection is closed.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple
from urllib.parse import quote

#: Holds what JSON, a URL and an HTML page write otherwise.
KEY = 'hunter2/my+private"key&0'
HEADER = "header-secret-4711"
QUERY = "query-secret-4712"
#: What no way of writing the secrets changes.
TRACES = ("hunter2", "private", "header-secret", "query-secret")
ELSEWHERE = "127.0.0.2"

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIPE = OK + b"Content-Type: text/event-stream\r\n\r\n"


class Asked(NamedTuple):
    """What is known of a request: whether a stream was asked for, and the secrets that came with it."""

    stream: bool
    key: str
    header: str
    query: str
    port: int

    @property
    def all(self) -> str:
        return f"{self.key} {self.header} {self.query}"


Way = Callable[[Asked], Iterable[bytes]]
WAYS: dict[str, Way] = {}
HEAVY: dict[str, Way] = {}


def answer(body: bytes, status: str = "200 OK", kind: str = "application/json", *more: bytes) -> bytes:
    """A whole answer."""
    head = [f"HTTP/1.1 {status}".encode(), f"Content-Type: {kind}".encode(), b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join([*head, b"", body])


def said(value: Any) -> bytes:
    """JSON as an answer, or as the only event of one."""
    return answer(json.dumps(value).encode())


def completion(text: str = "The road is long.", **more: Any) -> dict[str, Any]:
    """A whole reply."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]} | more


def delta(text: Any, reason: Any = None, **more: Any) -> dict[str, Any]:
    """A piece of a stream."""
    return {"id": "1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]} | more


def events(*values: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """A stream's bytes without their head."""
    return b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in values) + end


def good(asked: Asked) -> bytes:
    """What a server should say."""
    if asked.stream:
        return PIPE + events(delta("The road "), delta("is long."), delta("", "stop"))
    return said(completion())


def _reply(asked: Asked, text: str, **more: Any) -> bytes:
    """A reply that says ``text``, of a stream letter by letter."""
    if asked.stream:
        return PIPE + events(*(delta(letter, **more) for letter in text), delta("", "stop"))
    return said(completion(text, **more))


def plain(name: str, *answers: bytes) -> None:
    """Add a way that says the same to all."""
    WAYS[name.replace(" ", "_")] = lambda _: answers


def body(name: str, text: bytes | str) -> None:
    """Add two ways: a JSON body, and an event of a stream behind one that is good."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    plain(f"body-{name}", answer(data))
    plain(
        f"event-{name}", PIPE + events(delta("The road "), end=b"") + b"data: " + data + b"\n\n" + b"data: [DONE]\n\n"
    )


def value(name: str, what: Any) -> None:
    """Add the two ways of ``body`` for a JSON value."""
    body(name, json.dumps(what))


def forever(head: bytes, piece: bytes, pause_s: float = 0.0) -> Way:
    """A way that begins so and goes on, until whoever reads it has gone."""

    def talk(_: Asked) -> Iterator[bytes]:
        yield head
        for one in repeat(piece):
            yield one
            time.sleep(pause_s)

    return talk


def times(head: bytes, piece: bytes, number: int, end: bytes = b"") -> Way:
    """A way that sends ``piece`` so often."""

    def talk(_: Asked) -> Iterator[bytes]:
        yield head
        yield from repeat(piece, number)
        yield end

    return talk


WAYS["good"] = lambda asked: [good(asked)]

# Heads
GOOD = json.dumps(completion()).encode()
plain("no-bytes")
plain("half-head", OK + b"Content-Ty")
plain("head-alone", OK + b"\r\n")
plain("no-head", GOOD)
plain("noise", bytes(range(256)) * 8)
plain("page-without-head", b"<html><title>hello</title></html>")
plain("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
plain("http2-settings", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00")
plain("tls-alert", b"\x15\x03\x01\x00\x02\x02\x28")
plain("other-protocol", b"SSH-2.0-OpenSSH_9.6\r\n")
plain("version-9", b"HTTP/9.9 200 OK\r\n\r\n" + GOOD)
plain("version-0", b"HTTP/1.0 200 OK\r\n\r\n" + GOOD)
for code in (b"", b"abc", b"-1", b"0", b"99", b"600", b"999", b"1000", b"200200", b"2 0 0", b"\xb2\xb0\xb0"):
    plain(f"status-{code!r}", b"HTTP/1.1 " + code + b" OK\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
plain("status-line-alone", b"HTTP/1.1 200\r\n\r\n" + GOOD)
plain("status-line-long", b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n" + GOOD)
WAYS["head-endless"] = forever(OK, b"X-More: and more\r\n")
WAYS["header-endless"] = forever(OK + b"X-More: ", b"and more " * 100)
plain("header-many", OK + b"X: y\r\n" * 3000 + b"\r\n" + GOOD)
plain("header-nul", OK + b"X-\x00: \x00\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
plain("header-folded", OK + b"Content-Type: application/json;\r\n  charset=utf-8\r\n\r\n" + GOOD)
plain("header-folded-first", OK + b"  folded\r\n\r\n" + GOOD)
plain("header-bare-cr", OK + b"X: a\rContent-Length: 3\r\n\r\n" + GOOD)
plain("header-no-colon", OK + b"no header at all\r\n\r\n" + GOOD)
plain("header-no-name", OK + b": nameless\r\n\r\n" + GOOD)
plain("header-letters", OK + "Überschrift: größer\r\n\r\n".encode() + GOOD)
plain("header-injected", OK + b"X: a\n\nHTTP/1.1 401 No\r\n\r\n" + GOOD)
plain("headers-cookie", OK + b"Set-Cookie: a=" + b"b" * 5000 + b"\r\n\r\n" + GOOD)
plain("retry-after", answer(b"{}", "429 Slow", "text/plain", b"Retry-After: 9" + b"9" * 4000))
plain("retry-after-date", answer(b"{}", "503 No", "text/plain", b"Retry-After: Mon, 99 Foo 99999 99:99:99 +9999"))
for length in (
    b"-1",
    b"-9999999999",
    b"9" * 30,
    b"12abc",
    b"1e3",
    b"0x10",
    b"",
    b"+5",
    b"5, 6",
    b"\xb2",
    b"3",
    b"100000",
):
    plain(f"length-{length.decode('latin-1')[:12]}", OK + b"Content-Length: " + length + b"\r\n\r\n" + GOOD)
plain("length-twice", OK + b"Content-Length: 5\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
plain("length-and-chunks", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
plain("coding-unknown", OK + b"Transfer-Encoding: smoke\r\n\r\n" + GOOD)
plain("coding-twice", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
for code in (
    "101 Switching Protocols",
    "204 No Content",
    "205 Reset Content",
    "206 Partial Content",
    "304 Not Modified",
):
    plain(f"status-{code[:3]}", answer(GOOD, code))
for code in ("300", "301", "302", "303", "307", "308"):
    WAYS[f"redirect-{code}"] = lambda asked, code=code: [
        answer(b"", f"{code} There", "text/html", f"Location: http://{ELSEWHERE}:{asked.port}/v1/chat".encode())
    ]
plain("redirect-nowhere", answer(b"", "302 There", "text/html", b"Location: \x00\xff://///[::"))
plain("interim-flood", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 20_000 + answer(GOOD))
plain("interim-alone", b"HTTP/1.1 100 Continue\r\n\r\n")
plain("interim-then-cut", b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200")
plain("two-answers", answer(GOOD) + answer(b'{"error": "late"}', "500 No"))

# Chunks
EVENT = events(delta("The road is long."), end=b"")
for size in (b"zz", b"-5", b"", b" ", b"F" * 16, b"F" * 400, b"0x5", b"5 5", b"\xff", b"+1"):
    plain(f"chunk-{size.decode('latin-1')[:17]!r}", CHUNKED + size + b"\r\n" + EVENT + b"\r\n0\r\n\r\n")
chunk = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
WAYS["chunk-line-endless"] = forever(CHUNKED, b"0" * 1000)
WAYS["chunk-extension-endless"] = forever(CHUNKED + b"5;x=", b"y" * 1000)
plain("chunk-extension-long", CHUNKED + b"5;x=" + b"y" * 60_000 + b"\r\nhello\r\n0\r\n\r\n")
plain("chunk-no-end", CHUNKED + chunk)
plain("chunk-no-break", CHUNKED + b"3\r\ndata" + b"0\r\n\r\n")
plain("chunk-short", CHUNKED + b"ffff\r\n" + EVENT)
plain("chunk-after-end", CHUNKED + chunk + b"0\r\n\r\n" + chunk)
plain("trailers", CHUNKED + chunk + b"0\r\nContent-Length: 3\r\nX: y\r\n\r\n")
plain("trailers-broken", CHUNKED + chunk + b"0\r\nno trailer\r\n\x00\r\n\r\n")
WAYS["chunks-of-one"] = times(CHUNKED, b"1\r\n:\r\n", 20_000)

# Kinds of content
for kind in (
    "image/png",
    "text/html",
    "multipart/mixed; boundary=x",
    "",
    "x" * 9000,
    "application/json; charset=utf-16",
):
    plain(f"kind-{kind[:20]}", answer(GOOD, kind=kind))
plain("kind-stream-of-json", answer(GOOD, kind="text/event-stream"))
plain("kind-json-of-stream", answer(EVENT + events(delta("", "stop")), kind="application/json"))
for name in ("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "utf-7"):
    plain(f"letters-{name}", answer(GOOD.decode().encode(name)))

# JSON
for name, text in {
    "empty": "",
    "blank": " \r\n\t ",
    "null": "null",
    "true": "true",
    "number": "0",
    "nan": '{"choices": NaN}',
    "infinity": '{"choices": [{"index": Infinity, "delta": {"content": "a"}}]}',
    "text": '"The road is long."',
    "list": "[]",
    "list-of-null": "[null]",
    "deep-list": "[" * 100_000,
    "deep-object": '{"a":' * 100_000,
    "deep-closed": "[" * 50_000 + "]" * 50_000,
    "deep-error": '{"error":' * 900 + "1" + "}" * 900,
    "deep-error-text": '{"error":' * 5000 + '"x"' + "}" * 5000,
    "number-long": '{"usage": {"prompt_tokens": ' + "9" * 6000 + "}}",
    "number-huge": '{"usage": {"prompt_tokens": 1e999999999}, "choices": []}',
    "exponent": '{"created": 1e400, "choices": []}',
    "not-closed": '{"choices": [{"message": {"content": "The road',
    "trailing": GOOD.decode() + "and more",
    "twice": GOOD.decode() * 2,
    "same-name": '{"choices": 1, "choices": [], "choices": null}',
    "half-emoji": '{"choices": [{"delta": {"content": "\\ud83d"}, "message": {"content": "\\ud83d"}}]}',
    "nul": '{"choices": [{"delta": {"content": "a\\u0000b\x00"}, "message": {"content": "a\\u0000b"}}]}',
    "single-quotes": "{'choices': []}",
    "python": "{'error': None, 'choices': [True]}",
    "page": "<html><head><title>502 Bad Gateway</title></head></html>",
    "page-endless-title": "<title>" + "x" * 50_000,
}.items():
    body(name, text)
body("bytes", b"\xff\xfe\xfd" * 100)
body("broken-utf-8", b'{"choices": [{"delta": {"content": "\xc3\x28\xf0\x9f"}, "message": {"content": "\xf0\x9f"}}]}')
JUNK: list[Any] = [None, 0, -1, 2**63, 1.5, True, "", "x", [], [None], {}, {"a": None}, [[[]]]]
for number, junk in enumerate(JUNK):
    value(f"choices-{number}", {"choices": junk})
    value(f"choice-{number}", {"choices": [junk, junk]})
    value(f"part-{number}", {"choices": [{"index": junk, "delta": junk, "message": junk, "finish_reason": junk}]})
    inner = {"role": junk, "content": junk, "reasoning_content": junk, "reasoning_details": junk, "tool_calls": junk}
    value(f"inside-{number}", {"choices": [{"delta": inner, "message": inner}]})
    value(f"content-{number}", {"choices": [{"delta": {"content": [junk]}, "message": {"content": [junk]}}]})
    facts = dict.fromkeys(("id", "created", "model", "usage", "base_resp", "input_sensitive", "object"), junk)
    value(f"facts-{number}", completion(**facts))
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"), junk)
    value(f"usage-{number}", completion(usage=counts, base_resp={"status_code": junk, "status_msg": junk}))
    value(f"error-{number}", {"error": junk, "errors": junk, "detail": junk, "code": junk, "message": junk})
    value(f"errors-{number}", {"error": {"message": junk, "code": junk, "type": junk, "metadata": {"raw": junk}}})
    plain(f"refused-{number}", answer(json.dumps(junk).encode(), "400 No"))
    plain(f"refused-inside-{number}", answer(json.dumps({"error": {"message": junk, "code": junk}}).encode(), "500 No"))
value("usage-negative", completion(usage={"prompt_tokens": -5, "completion_tokens": -(2**70), "total_tokens": 2**63}))
value("index-jumps", {"choices": [{"index": n, "delta": {"content": "x"}} for n in (7, 0, 7, -1)]})

# Streams
plain("stream-end-alone", PIPE + b"data: [DONE]\n\n")
plain("stream-end-first", PIPE + b"data: [DONE]\n\n" + EVENT)
plain("stream-cr", PIPE + events(delta("The road is long."), delta("", "stop")).replace(b"\n", b"\r"))
plain("stream-mixed-ends", PIPE + EVENT.replace(b"\n\n", b"\r\n\n") + events(delta("", "stop")).replace(b"\n", b"\r\n"))
plain("stream-marks", PIPE + b"\xef\xbb\xbf" * 3 + events(delta("The road\u2028is\u2029long.\x85"), delta("", "stop")))
plain("stream-lines-parted", PIPE + 'data: {"choices":\u2028 []}\n\ndata: x\x85y\n\n'.encode())
plain("stream-blank-data", PIPE + b"data:\n\n" * 5000 + events(delta("x", "stop")))
plain("stream-fields", PIPE + b"id: \x00\nretry: " + b"9" * 5000 + b"\nfoo\n:\n::\n\n" + events(delta("x", "stop")))
plain("stream-nul", PIPE + b"\x00\n\x00data: {}\n\n" + events(delta("x", "stop")))
plain("stream-half-event", PIPE + EVENT + b'data: {"choices": [{"del')
plain("stream-no-finish", PIPE + EVENT)
plain("stream-kind-error", PIPE + EVENT + b"event: error\ndata: \n\n")
plain("stream-error-field", PIPE + EVENT + b"error: it broke\n\n")
plain("stream-error-first", PIPE + events({"error": {"message": "no", "code": 1000}}))
plain("stream-error-after-text", PIPE + events(delta("The road "), {"error": {"message": "no"}}))
plain("stream-error-after-finish", PIPE + events(delta("x", "stop"), {"error": {"message": "late"}}))
plain("stream-finish-twice", PIPE + events(delta("x", "stop"), delta("y", "length"), delta("z")))
plain("stream-tags", PIPE + events(*[delta("</think><think>")] * 500, delta("", "stop")))
plain("stream-tags-apart", PIPE + events(*map(delta, "<think>a</thi<think>nk>b</think>" * 50), delta("", "stop")))
plain("stream-text-types", PIPE + events(delta({"a": 1}), delta(["x", 1, None]), delta(7)))
WAYS["stream-drip"] = forever(PIPE, EVENT, 0.1)
WAYS["stream-comments-drip"] = forever(PIPE, b": still here\n\n", 0.1)
WAYS["stream-silent"] = forever(PIPE + EVENT, b"", 0.1)
WAYS["body-drip"] = forever(OK + b"Content-Length: 90000\r\n\r\n{", b" ", 0.1)
WAYS["body-silent"] = forever(OK + b"Content-Length: 90000\r\n\r\n{", b"", 0.1)
WAYS["refusal-drip"] = forever(b"HTTP/1.1 500 No\r\nContent-Length: 90000\r\n\r\n", b"n", 0.1)
WAYS["silent"] = forever(b"", b"", 0.1)

# A good answer that is cut
for at in range(0, 420, 23):
    WAYS[f"cut-{at}"] = lambda asked, at=at: [good(asked)[:at]]
for at in range(0, 400, 31):
    WAYS[f"broken-{at}"] = lambda asked, at=at: [good(asked)[:at] + b"\xff\x00" + good(asked)[at + 2 :]]


# What was asked is repeated
def _refusals(name: str, make: Callable[[Asked], Any]) -> None:
    """Add ways that refuse with the JSON that ``make`` gives: at once, in a 200, in a stream, and behind some text."""

    def data(asked: Asked) -> bytes:
        return json.dumps(make(asked)).encode()

    WAYS[f"echo-{name}-401"] = lambda asked: [answer(data(asked), "401 Unauthorized")]
    WAYS[f"echo-{name}-500"] = lambda asked: [answer(data(asked), "500 No", "text/html")]
    WAYS[f"echo-{name}-200"] = lambda asked: [answer(data(asked))]
    WAYS[f"echo-{name}-event"] = lambda asked: [PIPE + b"data: " + data(asked) + b"\n\n"]
    WAYS[f"echo-{name}-late"] = lambda asked: [PIPE + EVENT + b"event: error\ndata: " + data(asked) + b"\n\n"]


_refusals("message", lambda asked: {"error": {"message": f"Invalid key {asked.all}.", "code": "invalid_api_key"}})
_refusals("far", lambda asked: {"error": {"message": "x" * 285 + f" {asked.all}"}})
_refusals("often", lambda asked: {"error": {"message": f"{asked.all} " * 900}})
_refusals("status", lambda asked: {"base_resp": {"status_code": 1004, "status_msg": f"login fail: {asked.all}"}})
_refusals("flat", lambda asked: {"object": "error", "message": asked.all, "type": asked.key, "code": asked.key})
_refusals("detail", lambda asked: {"detail": [{"loc": ["header", asked.key, asked.header], "msg": asked.query}]})
_refusals("inner", lambda asked: {"error": {"message": "no", "metadata": {"raw": json.dumps({"message": asked.all})}}})
_refusals("nested", lambda asked: {"error": json.dumps({"error": json.dumps({"message": asked.all})})})
_refusals("encoded", lambda asked: {"error": f"?key={quote(asked.key)}&{quote(asked.key, safe='')}&{asked.query}"})
_refusals("page-inside", lambda asked: {"error": f"<title>{html.escape(asked.all)}</title>"})
_refusals("head", lambda asked: {"error": f"Authorization: Bearer {asked.key}\r\nX-Tenant-Secret: {asked.header}"})
_refusals("codes", lambda asked: {"error": {"code": asked.key, "type": asked.header, "param": asked.query}})
_refusals("too-long", lambda asked: {"error": {"message": f"{asked.key} maximum context length is 4096 tokens"}})
for name, make in {
    "page": lambda asked: f"<html><title>401 {html.escape(asked.all)}</title><p>{asked.all}</html>",
    "text": lambda asked: f"no such key: {asked.all}",
    "text-cut": lambda asked: "x" * (64 * 1024 - 10) + asked.key,
    "text-long": lambda asked: (asked.key + " ") * 4000,
    "half-json": lambda asked: '{"error": {"message": "' + asked.all,
    "not-json": lambda asked: "{'error': '" + asked.all + "'}",
    "escaped": lambda asked: json.dumps(asked.all).replace("/", "\\/"),
    "letters": lambda asked: '{"error": "' + "".join(f"\\u{ord(one):04x}" for one in asked.all) + '"}',
}.items():
    WAYS[f"echo-{name}-401"] = lambda asked, make=make: [answer(make(asked).encode(), "401 No", "text/html")]
    WAYS[f"echo-{name}-503"] = lambda asked, make=make: [answer(make(asked).encode(), "503 No", "text/plain")]
    WAYS[f"echo-{name}-200"] = lambda asked, make=make: [answer(make(asked).encode())]
    WAYS[f"echo-{name}-late"] = lambda asked, make=make: [PIPE + EVENT + b"data: " + make(asked).encode() + b"\n\n"]
    WAYS[f"echo-{name}-json"] = lambda asked, make=make: [PIPE + EVENT + b"data: {" + make(asked).encode() + b"\n\n"]
WAYS["echo-reason"] = lambda asked: [answer(b"", f"401 {asked.all}")]
WAYS["echo-headers"] = lambda asked: [
    answer(b"{}", "401 No", f"text/plain; key={asked.key}", f"X-Echo: {asked.all}".encode(), b"Retry-After: 1")
]
WAYS["echo-header-broken"] = lambda asked: [OK + f"{asked.all}\r\n{asked.key}: x\r\n\r\n".encode() + GOOD]
WAYS["echo-status-line"] = lambda asked: [f"HTTP/1.1 {asked.key} no\r\n\r\n".encode()]
WAYS["echo-no-head"] = lambda asked: [asked.all.encode() * 20]
WAYS["echo-length"] = lambda asked: [OK + f"Content-Length: {asked.key}\r\n\r\n".encode() + GOOD]
WAYS["echo-chunk"] = lambda asked: [CHUNKED + asked.key.encode() + b"\r\n" + EVENT]
WAYS["echo-trailer"] = lambda asked: [CHUNKED + chunk + f"0\r\nX-Echo: {asked.all}\r\n\r\n".encode()]
WAYS["echo-cookie"] = lambda asked: [answer(GOOD, "200 OK", "application/json", f"Set-Cookie: a={asked.key}".encode())]
WAYS["echo-redirect"] = lambda asked: [
    answer(b"", "307 There", "text/html", f"Location: http://{ELSEWHERE}:{asked.port}/?{quote(asked.key)}".encode())
]
WAYS["echo-speech"] = lambda asked: [_reply(asked, f"The key is {asked.all} and no other.")]
WAYS["echo-speech-end"] = lambda asked: [_reply(asked, f"The key is {asked.key}")]
WAYS["echo-speech-half"] = lambda asked: [_reply(asked, f"The key is {asked.key[:-3]}")]
WAYS["echo-speech-cut"] = lambda asked: [_reply(asked, f"The key is {asked.key}").rpartition(b"\ndata: {")[0]]
WAYS["echo-speech-tags"] = lambda asked: [_reply(asked, f"It is {asked.key[:6]}<think>a</think>{asked.key[6:]} here.")]
WAYS["echo-thoughts"] = lambda asked: [_reply(asked, f"<think>I know {asked.all}</think>The road is long.")]
WAYS["echo-thoughts-back"] = lambda asked: [_reply(asked, f"I know {asked.all}</think>The road is long.")]
WAYS["echo-facts"] = lambda asked: [
    _reply(asked, "Long.", id=asked.all, model=asked.key, base_resp={"status_code": 0, "status_msg": asked.all})
]
WAYS["echo-choices"] = lambda asked: [said({"choices": asked.all})]
for name in ("reasoning_content", "reasoning", "refusal", "tool_calls"):
    WAYS[f"echo-{name}"] = lambda asked, name=name: [
        PIPE + events(*({"choices": [{"delta": {name: one}}]} for one in asked.all), delta("", "stop"))
        if asked.stream
        else said({"choices": [{"message": {name: asked.all, "content": "Long."}, "finish_reason": "stop"}]})
    ]
WAYS["echo-finish"] = lambda asked: [
    PIPE + events(delta("Long.", asked.key))
    if asked.stream
    else said({"choices": [{"message": {"content": "Long."}, "finish_reason": asked.key}]})
]
WAYS["echo-finish-silent"] = lambda asked: [
    said({"choices": [{"message": {"content": ""}, "finish_reason": asked.key}]})
]

# Many megabytes
MEGABYTE = b"x" * 2**20
HEAVY["endless-body"] = times(OK + b"\r\n", MEGABYTE, 60)
HEAVY["endless-line"] = times(PIPE + b"data: ", MEGABYTE, 60)
HEAVY["event-of-16-mb"] = times(PIPE + b'data: {"choices": "', MEGABYTE, 16, b'"}\n\n')
HEAVY["endless-refusal"] = times(b"HTTP/1.1 500 No\r\n\r\n", MEGABYTE, 60)
HEAVY["comments"] = times(PIPE, b": " + b"y" * 65_533 + b"\n", 1600, events(delta("x", "stop")))
HEAVY["echo-line"] = lambda asked: [PIPE, b"data: ", *repeat(f"{asked.all} ".encode() * 1000, 80)]

# Packed answers, heads and ends that come slowly: what they must not cost stands in both lists.
HOSTILE_CODINGS: dict[str, Way] = {}
HEAVY_CODINGS: dict[str, Way] = {}


def packed(data: bytes, *codings: str, head: bytes = OK) -> bytes:
    """A body that is said to be packed."""
    return head + f"Content-Encoding: {', '.join(codings)}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


for name, data, codings in (
    ("gzip", gzip.compress(GOOD), ["gzip"]),
    ("x-gzip", gzip.compress(GOOD), ["x-gzip"]),
    ("gzip-twice", gzip.compress(gzip.compress(GOOD)), ["gzip", "gzip"]),
    ("gzip-cut", gzip.compress(GOOD)[:-12], ["gzip"]),
    ("gzip-and-more", gzip.compress(GOOD) + b"more", ["gzip"]),
    ("gzip-members", gzip.compress(GOOD[:50]) + gzip.compress(GOOD[50:]), ["gzip"]),
    ("gzip-none", GOOD, ["gzip"]),
    ("deflate", zlib.compress(GOOD), ["deflate"]),
    ("deflate-bare", zlib.compress(GOOD)[2:-4], ["deflate"]),
    ("deflate-none", GOOD, ["deflate"]),
    ("deflate-gzip", gzip.compress(zlib.compress(GOOD)), ["deflate", "gzip"]),
    ("br", b"\x0b\x02\x80hello\x03", ["br"]),
    ("zstd", b"\x28\xb5\x2f\xfd", ["zstd"]),
    ("unknown", GOOD, ["smoke"]),
    ("identity", GOOD, ["identity", "identity"]),
    ("many", GOOD, ["gzip"] * 500),
):
    HOSTILE_CODINGS[f"packed-{name}"] = lambda _, data=data, codings=codings: [packed(data, *codings)]
    HOSTILE_CODINGS[f"packed-{name}-401"] = lambda _, data=data, codings=codings: [
        packed(data, *codings, head=b"HTTP/1.1 401 No\r\n")
    ]
HOSTILE_CODINGS["packed-transfer"] = lambda _: [OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
HOSTILE_CODINGS["packed-echo"] = lambda asked: [
    packed(gzip.compress(json.dumps({"error": asked.all}).encode()), "gzip", head=b"HTTP/1.1 401 No\r\n")
]
HOSTILE_CODINGS["trailers-endless"] = forever(CHUNKED + chunk + b"0\r\n", b"X-More: and more\r\n")
HOSTILE_CODINGS["head-drip"] = forever(OK + b"X-Slow: ", b"a", 0.1)
HOSTILE_CODINGS["status-line-drip"] = forever(b"HTTP/1.1 200 O", b"K", 0.1)
HOSTILE_CODINGS["headers-drip"] = forever(OK, b"X-Slow: a\r\n", 0.1)
HOSTILE_CODINGS["continue-drip"] = forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1)
HOSTILE_CODINGS["chunk-line-drip"] = forever(CHUNKED, b"0", 0.1)
HOSTILE_CODINGS["chunk-extension-drip"] = forever(CHUNKED + b"5;x=", b"y", 0.1)
HOSTILE_CODINGS["chunk-drip"] = forever(CHUNKED + b"ffff\r\n", b":", 0.1)
HOSTILE_CODINGS["trailer-drip"] = forever(CHUNKED + chunk + b"0\r\nX: ", b"y", 0.1)


@cache
def bomb() -> bytes:
    """300 MB of nothing, packed; one that is packed twice has a few kilobytes."""
    return gzip.compress(bytes(300 * 2**20), 1)


HEAVY_CODINGS["bomb-gzip"] = lambda _: [packed(bomb(), "gzip")]
HEAVY_CODINGS["bomb-gzip-twice"] = lambda _: [packed(gzip.compress(bomb()), "gzip", "gzip")]
HEAVY_CODINGS["bomb-deflate"] = lambda _: [packed(zlib.compress(bytes(300 * 2**20), 1), "deflate")]
HEAVY_CODINGS["bomb-401"] = lambda _: [packed(bomb(), "gzip", head=b"HTTP/1.1 401 No\r\n")]
HEAVY_CODINGS["bomb-members"] = lambda _: [packed(gzip.compress(bytes(2**20)) * 300, "gzip")]
HEAVY_CODINGS["choices"] = lambda _: [said({"choices": [{"index": 0, "delta": {}}] * 240_000})]
HEAVY_CODINGS["choices-empty"] = lambda _: [said({"choices": [{}] * 2_000_000})]


class Hostile:
    """The server. Who comes to ``ELSEWHERE``, where no key may go, is counted in ``strayed``."""

    def __init__(self, ways: dict[str, Way]) -> None:
        self._ways = ways
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.strayed = 0
        self._elsewhere = socket.create_server((ELSEWHERE, self.port))
        threading.Thread(target=self._serve, daemon=True).start()
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._elsewhere.accept()
            except OSError:
                return
            self.strayed += 1
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = self._request(connection)
                for piece in self._answer(request):
                    connection.sendall(piece)
                    if not piece and _has_gone(connection):
                        return
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # a reset would take back what was not read yet
                    pass
            except OSError:
                return  # who asked has gone, as it should

    def _answer(self, request: bytes) -> Iterable[bytes]:
        if not request:
            return []
        head, _, body = request.partition(b"\r\n\r\n")
        name = re.findall(r"way:(\S+) ", json.loads(body)["messages"][-1]["content"])[-1]
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        by_name = {field.lower(): text for field, text in fields.items()}
        key = by_name["authorization"].removeprefix("Bearer ")
        query = head.partition(b"sig=")[2].partition(b" ")[0].decode()
        asked = Asked(json.loads(body)["stream"], key, by_name["x-tenant-secret"], query, self.port)
        assert asked[1:4] == (KEY, HEADER, QUERY)
        return self._ways[name](asked)

    @staticmethod
    def _request(connection: socket.socket) -> bytes:
        read = b""
        while b"\r\n\r\n" not in read:
            if not (piece := connection.recv(65536)):
                return b""
            read += piece
        length = int(read.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(read.partition(b"\r\n\r\n")[2]) < length:
            read += connection.recv(65536)
        return read

    def close(self) -> None:
        """Stop listening."""
        for one in (self._socket, self._elsewhere):
            one.shutdown(socket.SHUT_RDWR)
            one.close()


def _has_gone(connection: socket.socket) -> bool:
    connection.settimeout(0.001)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return False
    finally:
        connection.settimeout(None)
