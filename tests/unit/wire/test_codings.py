"""Bodies that are packed: one coding is unpacked within bounds, everything else is refused at the head."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from roleplay import BadReplyError, ChatAuthError, ChatUnavailableError
from roleplay.errors import ChatError
from roleplay.wire.codings import PIECE_BYTES, Unpacker, coding_of
from roleplay.wire.heads import WANTED_HEADERS, Head
from roleplay.wire.reply import ReplyDecoder
from roleplay.wire.sse import LINE_LIMIT

TEXT = b"".join(b"The ford is %d miles below the mill. " % number for number in range(5000))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "": TEXT,
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "X-GZIP": gzip.compress(TEXT),
    " identity , gzip ,": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "Deflate": raw_deflate(TEXT),
}


def pieces(unpacker: Unpacker, raw: bytes, step: int) -> list[bytes]:
    given = []
    for at in range(0, len(raw), step):
        unpacker.feed(raw[at : at + step])
        while piece := unpacker.take():
            given.append(piece)
    return given


@pytest.mark.parametrize("step", [1, 7, 8192, 10**7])
@pytest.mark.parametrize("coding", PACKED)
def test_one_coding_is_unpacked(coding: str, step: int) -> None:
    """However it is cut, a body is given whole, in pieces that are not long."""
    unpacker = Unpacker({"content-encoding": coding})
    given = pieces(unpacker, PACKED[coding], step)
    assert b"".join(given) == TEXT
    assert max(map(len, given)) <= PIECE_BYTES
    assert not unpacker.is_cut


@pytest.mark.parametrize("step", [1, 5, 10**7])
def test_members_and_what_stands_behind(step: int) -> None:
    """A gzip file of several parts is one text; what stands behind a body is passed over."""
    many = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    for behind in (b"", b"\x00" * 50, b"\r\n", b"\x1f", b"junk"):
        for coding, raw, text in (("gzip", many, b"one two"), ("deflate", zlib.compress(b"one"), b"one")):
            unpacker = Unpacker({"content-encoding": coding})
            assert b"".join(pieces(unpacker, raw + behind, step)) == text
            assert not unpacker.is_cut


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate"])
def test_a_cut_body(coding: str) -> None:
    """A body that ends within what was packed is known as cut, wherever."""
    whole = PACKED[coding]
    for end in (1, 2, 5, 30, len(whole) // 2, len(whole) - 1):
        unpacker = Unpacker({"content-encoding": coding})
        assert TEXT.startswith(b"".join(pieces(unpacker, whole[:end], 1000)))
        assert unpacker.is_cut, end


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_not_packed(coding: str) -> None:
    with pytest.raises(zlib.error):
        pieces(Unpacker({"content-encoding": coding}), b"not packed at all", 100)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bound(coding: str) -> None:
    """Little that becomes much is given up at the bound, which a whole body of just that length keeps."""
    zeros = bytes(10 * 2**20)
    packed = gzip.compress(zeros) if coding == "gzip" else zlib.compress(zeros)
    with pytest.raises(BadReplyError, match="longer than 1048576 bytes"):
        pieces(Unpacker({"content-encoding": coding}, limit=2**20), packed, 10**7)
    assert b"".join(pieces(Unpacker({"content-encoding": coding}, limit=len(zeros)), packed, 10**7)) == zeros


@pytest.mark.parametrize(
    "coding", ["br", "zstd", "compress", "gzip, gzip", "gzip,deflate", "deflate, identity, gzip", "x"]
)
@pytest.mark.parametrize("status", [200, 401, 503])
def test_other_codings_are_refused_at_the_head(coding: str, status: int) -> None:
    """The error names the coding; a refusal is told by its status all the same. No byte is looked at."""
    assert "content-encoding" in WANTED_HEADERS
    headers = {"content-encoding": coding, "content-type": "application/json"}
    with pytest.raises(BadReplyError, match=coding):
        coding_of(headers)
    decoder = ReplyDecoder(Head(status, headers), streamed=False)
    assert decoder.done
    assert decoder.feed(b'{"choices":[{"message":{"content":"x"}}]}') == []
    with pytest.raises(ChatError) as refused:
        decoder.finish()
    kinds = {200: BadReplyError, 401: ChatAuthError, 503: ChatUnavailableError}
    assert (type(refused.value), refused.value.status) == (kinds[status], status)
    assert (coding in str(refused.value)) is (status == 200)


def document(choices: int) -> bytes:
    one = {"index": 0, "message": {"role": "assistant", "content": "Welcome."}, "finish_reason": "stop"}
    others = [{"index": number} for number in range(1, choices)]
    return json.dumps({"choices": [one, *others]}, separators=(",", ":")).encode()


def read(data: bytes, *, streamed: bool) -> ReplyDecoder:
    decoder = ReplyDecoder(Head(200, {}), streamed=streamed)
    decoder.feed(b"data: " + data + b"\n\ndata: [DONE]\n\n" if streamed else data)
    return decoder


@pytest.mark.parametrize("streamed", [False, True])
def test_many_choices(streamed: bool) -> None:
    """Of many choices ours is read; of more than any service gives, the document is not even parsed."""
    some = read(document(1000), streamed=streamed)
    some.finish()
    assert some.speech == "Welcome."
    many = read(document(240_000), streamed=streamed)
    with pytest.raises(BadReplyError, match="values"):
        many.finish()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,", b'{"a":1},'])
def test_documents_of_many_values(filler: bytes, streamed: bool) -> None:
    """Whatever a document is filled with, and wherever it stands, it is not parsed; a long text is no such filler."""
    filled = b'{"x":[' + filler * 200_000 + b"0]," + document(1)[1:]
    with pytest.raises(BadReplyError):
        read(filled, streamed=streamed).finish()
    text = "Snow, snow, and snow on the pass. " * (LINE_LIMIT // 200)
    long = read(document(1).replace(b"Welcome.", text.encode()), streamed=streamed)
    long.finish()
    assert long.speech.strip() == text.strip()


def test_a_cut_document_of_many_values() -> None:
    """It is not tried whether it can be read to its end."""
    assert not read(document(240_000)[:-2], streamed=False).is_complete()
