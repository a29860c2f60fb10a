"""Requests that nobody sends by accident, each with the one code it must be refused with.

`BODIES` are bodies for any route that takes a JSON object. `FIELD_VALUES` are JSON values for a field whose value is a
short text, to be placed with `body_with`. `HEADERS` are header lines for an otherwise good request with a JSON body.
`requests(method, target)` are whole requests as bytes, for a raw socket.
None of them needs to know what a route does, so every write route can be held against all of them.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BODY_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class HostileBody:
    """A body that is refused whatever the route."""

    name: str
    body: bytes
    code: str


@dataclass(frozen=True, slots=True)
class HostileValue:
    """A JSON value that no text field takes."""

    name: str
    literal: bytes
    code: str


@dataclass(frozen=True, slots=True)
class HostileHeaders:
    """Header lines added to a good request; `code` is None where the request must succeed as if they weren't there."""

    name: str
    headers: tuple[tuple[bytes, bytes], ...]
    code: str | None


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """All the bytes of a request; the answer is `code`, and the connection is closed after it."""

    name: str
    data: bytes
    code: str


def body_with(field: str, value: HostileValue, **others: object) -> bytes:
    """Build an object that has the hostile value in `field`, beside good `others`."""
    pairs = [json.dumps(name).encode() + b": " + json.dumps(other).encode() for name, other in others.items()]
    return b"{" + b", ".join([*pairs, json.dumps(field).encode() + b": " + value.literal]) + b"}"


def _bodies() -> Iterator[HostileBody]:
    def not_json(name: str, body: bytes) -> HostileBody:
        return HostileBody(name, body, "RQ-102")

    good = rb'{"name": "Ravi", "tags": [1, -2.5e3, true, null], "note": "\u00e9\n"}'
    for length in range(len(good)):
        yield not_json(f"cut after {length} bytes", good[:length])
    for control in range(0x20):
        yield not_json(f"raw control character {control:#04x} in a text", b'{"name": "a' + bytes([control]) + b'b"}')
        if control not in (0x09, 0x0A, 0x0D):
            yield not_json(f"control character {control:#04x} between tokens", b'{"name":' + bytes([control]) + b'"a"}')
    for name, sequence in (
        ("a lone continuation byte", b"\x80"),
        ("the last continuation byte", b"\xbf"),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong NUL", b"\xc0\x80"),
        ("an overlong quote", b"\xc0\xa2"),
        ("an overlong in three bytes", b"\xe0\x80\xaf"),
        ("an overlong in four bytes", b"\xf0\x80\x80\xaf"),
        ("a cut sequence of two", b"\xc3"),
        ("a cut sequence of three", b"\xe2\x82"),
        ("a cut sequence of four", b"\xf0\x9f\x98"),
        ("a high surrogate as bytes", b"\xed\xa0\x80"),
        ("a low surrogate as bytes", b"\xed\xbf\xbf"),
        ("a surrogate pair as bytes", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("a code point beyond the last", b"\xf4\x90\x80\x80"),
        ("a sequence of five", b"\xf8\x88\x80\x80\x80"),
        ("a sequence of six", b"\xfc\x84\x80\x80\x80\x80"),
        ("byte fe", b"\xfe"),
        ("byte ff", b"\xff"),
        ("Latin-1", b"Jos\xe9"),
    ):
        yield not_json(f"{name} in a text", b'{"name": "' + sequence + b'"}')
        yield not_json(f"{name} in a key", b'{"' + sequence + b'": "a"}')
        yield not_json(f"{name} between tokens", b'{"name": ' + sequence + b'"a"}')
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        yield not_json(f"encoded as {encoding}", '{"name": "Ravi é"}'.encode(encoding))
    yield not_json("compressed", gzip.compress(b'{"name": "Ravi"}', mtime=0))
    yield not_json("one NUL", b"\x00")
    yield not_json("a NUL after the object", b'{"name": "a"}\x00')
    for separator in ("\u00a0", "\u2028", "\ufeff", "\u3000", "\x85"):
        yield not_json(f"U+{ord(separator):04X} as white space", f'{{"name":{separator}"a"}}'.encode())

    for literal in (
        *(
            "NaN",
            "nan",
            "Infinity",
            "-Infinity",
            "+Infinity",
            "inf",
            "-NaN",
            "undefined",
            "None",
            "True",
            "TRUE",
            "nil",
        ),
        *("01", "-01", "00", "+1", ".5", "5.", "-.5", "1.e5", "1e", "1e+", "--1", "-", "0x1F", "0b1", "0o7", "1_000"),
        *("1,5", "1 000", "１", "٣", "1n", "1f", "1L", "1/2", "∞", "²"),
        *("1e309", "-1e309", "1e999", "-1e999", "1.8e308", "1E+400", "9e999999999", "9" * 309 + ".0e1"),
    ):
        yield not_json(f"number or word {literal[:16]}", f'{{"name": {literal}}}'.encode())
    for digits in (309, 4299, 4300, 4301, 100_000):
        yield not_json(f"integer of {digits} digits", b'{"name": ' + b"9" * digits + b"}")
        yield not_json(f"negative integer of {digits} digits", b'{"name": -' + b"9" * digits + b"}")

    for escape in (
        *(r"\a", r"\v", r"\0", r"\x41", r"\'", r"\e", r"\ ", r"\U0001F600", r"\101", r"\u", r"\u1", r"\u12", r"\u123"),
        *(r"\u12g4", r"\u{41}", r"\u+041", r"\u-041", r"\u 041", r"\u0x4", "\\u٠٠٤١", "\\\n"),
    ):
        yield not_json(f"escape {escape!r}", f'{{"name": "{escape}"}}'.encode())
    for escapes in (
        *(r"\ud800", r"\udbff", r"\udc00", r"\udfff", r"\uD83D", r"\uDE00", r"\uDE00\uD83D", r"\uD83D\uD83D\uDE00"),
        *(r"\uD83D \uDE00", r"\uD83D\u0041", r"\uD83D\\uDE00", r"a\udC00b", r"\uD83D\uDE00\uDE00", r"\\\ud800"),
    ):
        yield not_json(f"unpaired surrogate {escapes} in a text", f'{{"name": "{escapes}"}}'.encode())
        yield not_json(f"unpaired surrogate {escapes} in a key", f'{{"{escapes}": "a"}}'.encode())
        yield not_json(
            f"unpaired surrogate {escapes} deep inside", f'{{"metadata": {{"a": [["{escapes}"]]}}}}'.encode()
        )

    yield not_json("a key twice", b'{"name": "a", "name": "b"}')
    yield not_json("a key twice with one value", b'{"name": "a", "name": "a"}')
    yield not_json("a key twice, once escaped", rb'{"name": "a", "\u006eame": "b"}')
    yield not_json("a key twice inside", b'{"metadata": {"a": 1, "a": 2}}')
    yield not_json("a key twice in a list", b'{"tags": [{"a": 1, "a": null}]}')
    yield not_json("the empty key twice", b'{"": 1, "": 2}')
    yield not_json("a prototype key twice", b'{"__proto__": 1, "__proto__": 2}')
    yield not_json("a key ten thousand times", b"{" + b'"a":1,' * 9_999 + b'"a":1}')

    for depth in (33, 100, 1_000, 10_000, 100_000):
        yield not_json(f"lists {depth} deep", b"[" * depth + b"]" * depth)
        yield not_json(f"lists {depth} deep and open", b"[" * depth)
    for depth in (33, 1_000, 20_000):
        yield not_json(f"objects {depth} deep", b'{"a":' * depth + b"1" + b"}" * depth)
        yield not_json(f"objects {depth} deep and open", b'{"a":' * depth)
        yield not_json(f"lists and objects {depth} deep", b'[{"a":' * depth + b"1" + b"}]" * depth)

    for name, text in (
        ("an object and another", '{"name": "a"}{"name": "b"}'),
        ("an object and a comma", '{"name": "a"},'),
        ("an object and a bracket", '{"name": "a"}]'),
        ("an object and a comment", '{"name": "a"} // done'),
        ("a comment first", '/* */ {"name": "a"}'),
        ("a comment inside", '{"name": /* */ "a"}'),
        ("a hash comment", '{"name": "a"} # done'),
        ("objects by line", '{"name": "a"}\n{"name": "b"}'),
        ("a hijacking guard", ")]}',\n{}"),
        ("a callback", 'run({"name": "a"})'),
        ("single quotes", "{'name': 'a'}"),
        ("a key without quotes", '{name: "a"}'),
        ("a number as key", '{1: "a"}'),
        ("null as key", '{null: "a"}'),
        ("a comma after the last", '{"name": "a",}'),
        ("a comma after the last of a list", '{"tags": [1,]}'),
        ("a comma first", '{,"name": "a"}'),
        ("two commas", '{"name": "a",, "b": 1}'),
        ("no comma", '{"name": "a" "b": 1}'),
        ("no colon", '{"name" "a"}'),
        ("two colons", '{"name":: "a"}'),
        ("an equals sign", '{"name" = "a"}'),
        ("no value", '{"name": }'),
        ("a key alone", '{"name"}'),
        ("a list closed as an object", '{"tags": [1}}'),
        ("an object closed as a list", '{"name": "a"]'),
        ("a backslash first", '\\{"name": "a"}'),
        ("a form", "name=a&tags=b"),
        ("XML", '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        ("YAML", "name: a\n"),
        ("a template", "${7*7}{{7*7}}<%= 7*7 %>"),
        ("a multipart body", '--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n--x--\r\n'),
        ("a request inside", "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("white space", " \t\r\n "),
    ):
        yield not_json(name, text.encode())

    for name, text in (
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("zero", "0"),
        ("a number", "-12.5e3"),
        ("an empty text", '""'),
        ("a text", '"name"'),
        ("an object as a text", '"{\\"name\\": \\"a\\"}"'),
        ("an empty list", "[]"),
        ("a list with an object", '[{"name": "a"}]'),
        ("a list of pairs", '[["name", "a"]]'),
        ("lists 32 deep", "[" * 32 + "]" * 32),
    ):
        yield HostileBody(f"not an object: {name}", text.encode(), "RQ-101")

    text_that_fills = MAX_BODY_BYTES + 1 - len('{"name": ""}')
    yield HostileBody("one byte too large", b'{"name": "' + b"a" * text_that_fills + b'"}', "RQ-106")
    yield HostileBody("far too large", b'{"name": "' + b"a" * 1_500_000 + b'"}', "RQ-106")
    yield HostileBody("too much white space", b" " * MAX_BODY_BYTES + b'{"name": "a"}', "RQ-106")
    yield HostileBody("too large and not JSON", b"[" * (MAX_BODY_BYTES + 1), "RQ-106")


def _field_values() -> Iterator[HostileValue]:
    for name, literal in (
        ("true", b"true"),
        ("false", b"false"),
        ("zero", b"0"),
        ("one", b"1"),
        ("minus zero", b"-0"),
        ("a fraction", b"1.5"),
        ("a small power", b"1e-400"),
        ("a large power", b"1e308"),
        ("an integer beyond 64 bits", b"18446744073709551616"),
        ("a phone as a number", b"9876543210"),
        ("an integer of 308 digits", b"9" * 308),
        ("an empty list", b"[]"),
        ("a list with a text", b'["a"]'),
        ("an empty object", b"{}"),
        ("an object with a text", b'{"a": "b"}'),
        ("a query operator", b'{"$ne": null}'),
        ("a prototype", b'{"__proto__": {"admin": true}}'),
    ):
        yield HostileValue(name, literal, "RQ-101")
    for code_point in (*range(0x20), 0x7F, 0x80, 0x85, 0x9F):
        yield HostileValue(f"control character U+{code_point:04X}", b'"a\\u%04xb"' % code_point, "RQ-101")
    yield HostileValue("only a NUL", rb'"\u0000"', "RQ-101")
    yield HostileValue("a control character in UTF-8", b'"a\xc2\x85b"', "RQ-101")
    yield HostileValue("a text of 100,000", b'"' + b"a" * 100_000 + b'"', "RQ-101")
    yield HostileValue("60,000 characters of four bytes", b'"' + "😀".encode() * 60_000 + b'"', "RQ-101")
    yield HostileValue("50,000 combining marks", b'"a' + "\u0301".encode() * 50_000 + b'"', "RQ-101")
    for name, literal in (
        ("NaN", b"NaN"),
        ("Infinity", b"Infinity"),
        ("a power beyond a double", b"1e999"),
        ("an integer of 5,000 digits", b"9" * 5_000),
        ("a high surrogate", rb'"\ud800"'),
        ("a low surrogate", rb'"\udc00"'),
        ("a pair the wrong way round", rb'"\ude00\ud83d"'),
        ("a raw NUL", b'"a\x00b"'),
        ("a raw line feed", b'"a\nb"'),
        ("Latin-1", b'"Jos\xe9"'),
        ("lists 40 deep", b"[" * 40 + b"]" * 40),
    ):
        yield HostileValue(name, literal, "RQ-102")


def _headers() -> Iterator[HostileHeaders]:
    for media_type in (
        *(b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"application/xml"),
        *(b"application/jsonp", b"application/json5", b"text/json", b"json", b"application/", b"*/*", b"a" * 4_000),
        *(b"application/json; charset=utf-16", b"application/json; charset=latin1", b"application/json, text/html"),
    ):
        yield HostileHeaders(f"media type {media_type[:40].decode()}", ((b"content-type", media_type),), "RQ-105")
    for encoding in (b"gzip", b"deflate", b"br", b"x-unknown"):
        yield HostileHeaders(f"content encoding {encoding.decode()}", ((b"content-encoding", encoding),), "RQ-105")
    for name, key in (
        ("empty", b""),
        ("256 characters", b"k" * 256),
        ("Latin-1", b"cl\xe9"),
        ("UTF-8", "schlüssel".encode()),
        ("a tab", b"a\tb"),
    ):
        yield HostileHeaders(f"idempotency key: {name}", ((b"idempotency-key", key),), "RQ-101")
    yield HostileHeaders("two idempotency keys", ((b"idempotency-key", b"a"), (b"idempotency-key", b"b")), "RQ-101")
    for name, request_id in (
        ("empty", b""),
        ("65 characters", b"a" * 65),
        ("a line break to be", b"a%0d%0aSet-Cookie:x"),
        ("markup", b"<script>alert(1)</script>"),
        ("a look-up", b"${jndi:ldap://a/b}"),
        ("Latin-1", b"\xe9"),
        ("a space", b"a b"),
        ("8,000 characters", b"a" * 8_000),
    ):
        yield HostileHeaders(f"request id: {name}", ((b"x-request-id", request_id),), None)
    yield HostileHeaders("two request ids", ((b"x-request-id", b"a"), (b"x-request-id", b"b")), None)
    for name, source in (
        ("not an address", b"unknown"),
        ("a statement", b"'; DROP TABLE users; --"),
        ("a thousand", b", ".join([b"1.1.1.1"] * 1_000)),
        ("empty entries", b",,,"),
        ("a scope", b"fe80::1%eth0"),
    ):
        yield HostileHeaders(f"forwarded for: {name}", ((b"x-forwarded-for", source),), None)
    for name, parent in (
        ("empty", b""),
        ("all zero", b"00-00000000000000000000000000000000-0000000000000000-00"),
        ("a version to come", b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("garbage", b"\xff" * 100),
        ("7,000 characters", b"0" * 7_000),
    ):
        yield HostileHeaders(f"trace parent: {name}", ((b"traceparent", parent),), None)
    for name, header in (
        ("a method override", (b"x-http-method-override", b"DELETE")),
        ("another path", (b"x-original-url", b"/platforms")),
        ("another path again", (b"x-rewrite-url", b"/platforms")),
        ("another host", (b"x-forwarded-host", b"evil.example")),
        ("a cookie", (b"cookie", b"session=admin; admin=1")),
        ("a range", (b"range", b"bytes=0-0,1-1")),
        ("an unacceptable answer", (b"accept", b"image/png;q=0.1")),
        ("a foreign origin", (b"origin", b"https://evil.example")),
        ("a call forged between services", (b"aarokya-call-bin", b"AAAA")),
        ("a claimed caller", (b"x-user-id", b"admin")),
        ("an underscore for a hyphen", (b"admin_api_key", b"guess")),
    ):
        yield HostileHeaders(name, (header,), None)
    yield HostileHeaders("80 headers", tuple((b"x-%d" % number, b"a") for number in range(80)), None)


def requests(method: str, target: str) -> Iterator[HostileRequest]:
    """Whole requests for one route: smuggling shapes, broken syntax, and heads that are too large."""
    start = f"{method} {target} HTTP/1.1\r\n".encode()
    host = b"Host: localhost\r\n"
    kind = b"Content-Type: application/json\r\n"
    chunked = start + host + kind + b"Transfer-Encoding: chunked\r\n\r\n"
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def malformed(name: str, data: bytes) -> HostileRequest:
        return HostileRequest(name, data, "RQ-114")

    for name, lines in (
        ("both lengths", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("both lengths the other way round", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("a length twice", b"Content-Length: 2\r\nContent-Length: 2"),
        ("two lengths", b"Content-Length: 2\r\nContent-Length: 44"),
        ("a list of lengths", b"Content-Length: 2, 2"),
        ("a signed length", b"Content-Length: +2"),
        ("a negative length", b"Content-Length: -2"),
        ("a hexadecimal length", b"Content-Length: 0x2"),
        ("an empty length", b"Content-Length:"),
        ("a length of words", b"Content-Length: two"),
        ("a length with a space", b"Content-Length: 2 2"),
        ("a length with a fraction", b"Content-Length: 2.0"),
        ("a length in Arabic digits", "Content-Length: ٢".encode()),
        ("a length beyond 64 bits", b"Content-Length: 99999999999999999999"),
        ("an unknown coding", b"Transfer-Encoding: xchunked"),
        ("the identity coding", b"Transfer-Encoding: identity"),
        ("gzip and chunked", b"Transfer-Encoding: gzip, chunked"),
        ("chunked and gzip", b"Transfer-Encoding: chunked, gzip"),
        ("chunked twice", b"Transfer-Encoding: chunked, chunked"),
        ("chunked and identity in two lines", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("identity and chunked in two lines", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        ("a quoted coding", b'Transfer-Encoding: "chunked"'),
        ("a coding with a parameter", b"Transfer-Encoding: chunked;q=1"),
        ("a coding with a vertical tab", b"Transfer-Encoding: \x0bchunked"),
        ("a coding after a NUL", b"Transfer-Encoding: \x00chunked"),
        ("an empty coding", b"Transfer-Encoding:"),
        ("a folded coding", b"Transfer-Encoding:\r\n chunked"),
        ("a space before the colon of a coding", b"Transfer-Encoding : chunked"),
        ("a tab before the colon of a length", b"Content-Length\t: 2"),
        ("a space before the colon of a length", b"Content-Length : 2"),
        ("a space before a header", b" Transfer-Encoding: chunked"),
        ("a coding after a bare line feed", b"X-A: b\nTransfer-Encoding: chunked"),
        ("a coding after a bare return", b"X-A: b\rTransfer-Encoding: chunked"),
        ("a folded header", b"X-A: b\r\n c"),
        ("a header folded with a tab", b"X-A: b\r\n\tc"),
        ("a header without colon", b"X-A"),
        ("a header without name", b": b"),
        ("a NUL in a name", b"X-\x00A: b"),
        ("a NUL in a value", b"X-A: b\x00c"),
        ("a control character in a value", b"X-A: b\x01c"),
        ("a delete character in a value", b"X-A: b\x7fc"),
        ("a return in a value", b"X-A: b\rc"),
        ("a slash in a name", b"X/A: b"),
        ("an at sign in a name", b"X@A: b"),
        ("a letter beyond ASCII in a name", b"X-\xe9: b"),
        ("a quote in a name", b'"X-A": b'),
        ("a second host", b"Host: localhost"),
        ("another host", b"Host: evil.example"),
        ("a websocket", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"),
    ):
        yield malformed(name, start + host + kind + lines + b"\r\n\r\n{}\r\n0\r\n\r\n" + smuggled)

    for name, line in (
        ("no host", b""),
        ("an empty host", b"Host:\r\n"),
        ("a host with a path", b"Host: localhost/a\r\n"),
        ("a host with a user", b"Host: a@localhost\r\n"),
        ("a host with a space", b"Host: local host\r\n"),
        ("two hosts in one line", b"Host: localhost, evil.example\r\n"),
        ("a host with markup", b'Host: "><script>\r\n'),
        ("a host with a port that is none", b"Host: localhost:80a\r\n"),
    ):
        yield malformed(name, start + line + b"\r\n")

    for name, first_line in (
        ("no version", f"{method} {target}"),
        ("version 0.9", f"{method} {target} HTTP/0.9"),
        ("version 1.2", f"{method} {target} HTTP/1.2"),
        ("version 2.0", f"{method} {target} HTTP/2.0"),
        ("version 3", f"{method} {target} HTTP/3"),
        ("version 1", f"{method} {target} HTTP/1"),
        ("version 11", f"{method} {target} HTTP/11"),
        ("version 1.10", f"{method} {target} HTTP/1.10"),
        ("another protocol", f"{method} {target} HTTQ/1.1"),
        ("a small protocol", f"{method} {target} http/1.1"),
        ("a space at the end", f"{method} {target} HTTP/1.1 "),
        ("a space in the target", f"{method} {target} x HTTP/1.1"),
        ("a small method", f"{method.lower()} {target} HTTP/1.1"),
        ("an unknown method", f"BREW {target} HTTP/1.1"),
        ("a long method", f"{'A' * 1_000} {target} HTTP/1.1"),
        ("a method with a colon", f"{method}: {target} HTTP/1.1"),
        ("a tab for a space", f"{method}\t{target}\tHTTP/1.1"),
        ("no target", f"{method} HTTP/1.1"),
        ("a target without slash", f"{method} {target[1:]} HTTP/1.1"),
        ("a target with a scheme", f"{method} http://localhost{target} HTTP/1.1"),
        ("a target elsewhere", f"{method} https://evil.example{target} HTTP/1.1"),
        ("a target with another scheme", f"{method} file://{target} HTTP/1.1"),
        ("a target with a fragment", f"{method} {target}#fragment HTTP/1.1"),
        ("a target of one star", f"{method} * HTTP/1.1"),
        ("a target with a backslash", f"{method} \\{target} HTTP/1.1"),
        ("a target with a NUL", f"{method} {target}\x00 HTTP/1.1"),
        ("a target with a control character", f"{method} {target}\x01 HTTP/1.1"),
        ("a target with a delete character", f"{method} {target}\x7f HTTP/1.1"),
        ("a target beyond ASCII", f"{method} {target}é HTTP/1.1"),
        ("a tunnel", "CONNECT localhost:80 HTTP/1.1"),
        ("the second protocol's preface", "PRI * HTTP/2.0"),
    ):
        yield malformed(name, first_line.encode() + b"\r\n" + host + b"\r\n")

    yield malformed("bare line feeds", start.replace(b"\r\n", b"\n") + b"Host: localhost\n\n")
    yield malformed("a bare line feed at the end of the headers", start + host + b"\n")
    yield malformed("a bare return at the end of the headers", start + host + b"\r\r")
    yield malformed("the start of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100)
    yield malformed("the start of SSH", b"SSH-2.0-OpenSSH_9.2\r\n")
    yield malformed("a mail greeting", b"HELO localhost\r\n")
    yield malformed("a proxy's preface", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + start + host + b"\r\n")
    yield malformed("a store's command", b"*1\r\n$4\r\nPING\r\n")
    yield malformed("NULs", b"\x00" * 200)
    yield malformed("high bytes", b"\xff" * 200)
    yield malformed("a chunked body in version 1.0", chunked.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n")

    long = b"a" * 9_000
    for name, data in (
        ("a long target", f"{method} {target}".encode() + long + b" HTTP/1.1\r\n" + host + b"\r\n"),
        ("a long query", f"{method} {target}?".encode() + long + b" HTTP/1.1\r\n" + host + b"\r\n"),
        ("a long target without end", f"{method} {target}".encode() + long * 4),
        ("a long value", start + host + b"X-A: " + long * 2 + b"\r\n\r\n"),
        ("a long value without end", start + host + b"X-A: " + long * 4),
        ("a long name", start + host + long * 2 + b": b\r\n\r\n"),
        ("long values", start + host + (b"X-A: " + long + b"\r\n") * 3 + b"\r\n"),
        ("101 headers", start + host + b"X-A: b\r\n" * 100 + b"\r\n"),
        ("20,000 headers", start + host + b"X-A: b\r\n" * 20_000 + b"\r\n"),
    ):
        yield HostileRequest(name, data, "RQ-115")


def broken_chunks(method: str, target: str) -> Iterator[HostileRequest]:
    """Requests whose head is good and whose body cannot be framed, for a route and credential that get to the body."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    for name, body in (
        ("a size of words", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("a hexadecimal prefix", b"0x2\r\n{}\r\n0\r\n\r\n"),
        ("a negative size", b"-2\r\n{}\r\n0\r\n\r\n"),
        ("a signed size", b"+2\r\n{}\r\n0\r\n\r\n"),
        ("an empty size", b"\r\n{}\r\n0\r\n\r\n"),
        ("a space after the size", b"2 \r\n{}\r\n0\r\n\r\n"),
        ("a space before the size", b" 2\r\n{}\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a bare line feed after the size", b"2\n{}\r\n0\r\n\r\n"),
        ("a bare line feed in an extension", b"2;a=\n{}\r\n0\r\n\r\n"),
        ("a bare line feed after the chunk", b"2\r\n{}\n0\r\n\r\n"),
        ("a chunk longer than its size", b"2\r\n{}{}\r\n0\r\n\r\n"),
        ("a NUL after the size", b"2\x00\r\n{}\r\n0\r\n\r\n"),
        ("a broken trailer", b"2\r\n{}\r\n0\r\nX\x00: a\r\n\r\n"),
    ):
        yield HostileRequest(name, chunked + body, "RQ-114")


BODIES = tuple(_bodies())
FIELD_VALUES = tuple(_field_values())
HEADERS = tuple(_headers())
