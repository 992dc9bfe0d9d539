# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's channel: every kind, every damage, and arbitrary bytes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.channel import (
    FRAME_MAX,
    PROBLEMS_MAX,
    Begin,
    Bye,
    ChannelError,
    Decoder,
    Fatal,
    Hello,
    Pages,
    Result,
    TextLine,
    What,
    decode,
    integer,
    parse,
)


def frame(seq: int, text: str, line: int = 0) -> bytes:
    body = f"{line} {text}"
    crc = zlib.crc32(f"{seq} {body}".encode())
    return f"@HDBSS {seq} {crc:08x} {body}\n".encode()


HELLO = frame(1, "hello version=1 cpus=4 pagesize=4096")
BYE = frame(2, "bye lines=3")


def test_every_kind() -> None:
    data = b"".join(
        [
            HELLO,
            frame(2, "begin op=get", 7),
            frame(3, "pages slot=0 what=reported list=0-511,600", 7),
            frame(4, "pages slot=1 what=differs list=-", 7),
            frame(5, "line text=a%20b%3D%25", 7),
            frame(6, "result op=run ret=-1 errno=22 errname=EINVAL esr=0x5a000000", 7),
            frame(7, "fatal text=no%20kvm"),
            frame(8, "bye lines=3"),
        ]
    )
    channel = parse(data)
    assert channel.problems == ()
    channel.require_complete()
    assert channel.frames == (
        Hello(1, 0, 1, 4, 4096),
        Begin(2, 7, "get"),
        Pages(3, 7, 0, What.REPORTED, ((0, 511), (600, 600))),
        Pages(4, 7, 1, What.DIFFERS, ()),
        TextLine(5, 7, "a b=%"),
        Result(6, 7, "run", -1, 22, {"errname": "EINVAL", "esr": "0x5a000000"}),
        Fatal(7, 0, "no kvm"),
        Bye(8, 0, 3),
    )


def test_carriage_returns_are_the_terminals() -> None:
    assert parse((HELLO + BYE).replace(b"\n", b"\r\n")).problems == ()


@pytest.mark.parametrize("cut", range(1, len(HELLO)))
def test_fed_in_pieces(cut: int) -> None:
    decoder = Decoder()
    frames = decoder.feed(HELLO[:cut]) + decoder.feed(HELLO[cut:] + BYE)
    decoder.close()
    assert (frames, decoder.problems) == (list(parse(HELLO + BYE).frames), [])


def test_shared_console() -> None:
    data = b"[    0.1] Booting\n[  1.0] half " + HELLO + b"[ 2.0] more\nno newline " + BYE + b"[ 3"
    channel = parse(data, shared=True)
    assert channel.problems == ()
    assert [type(f) for f in channel.frames] == [Hello, Bye]


def test_printk_inside_a_frame_is_noticed() -> None:
    cut = HELLO[:20] + b"[    1.0] printk\n" + HELLO[20:]
    channel = parse(cut + BYE, shared=True)
    assert len(channel.frames) == 1
    assert "not a frame" in channel.problems[0]
    assert "1 frame(s) missing before frame 2" in channel.problems[1]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (HELLO, "the agent's bye is missing"),
        (b"", "the agent's bye is missing"),
        (BYE, "1 frame(s) missing before frame 2"),
        (HELLO + frame(3, "bye lines=0"), "1 frame(s) missing before frame 3"),
        (HELLO + HELLO + BYE, "frame 1 comes again or too late"),
        (HELLO + BYE + frame(3, "begin op=vm"), "frame 3 after the bye"),
        (HELLO + BYE[:-5], "ends inside a frame"),
        (HELLO.replace(b"cpus=4", b"cpus=5") + BYE, "frame 1 has a wrong checksum"),
        (b"noise\n" + HELLO + BYE, "text that is no frame"),
        (b"@HDBSS \n", "not a frame"),
        (b"@HDBSS 1 0000000g 0 bye lines=0\n", "not a frame"),
        (frame(1, "unknown a=1"), "unknown kind unknown"),
        (frame(1, "hello version=1 cpus=4"), "has no pagesize="),
        (frame(1, "hello version=1 cpus=x pagesize=1"), "'x' is not a number"),
        (frame(1, "bye lines=99999999999999999999"), "does not fit in 64 bits"),
        (frame(1, "bye lines"), "bad field b'lines'"),
        (frame(1, "bye lines=1 lines=1"), "bad field b'lines=1'"),
        (frame(1, "pages slot=0 what=mystery list=-"), "mystery"),
        (frame(1, "pages slot=0 what=changed list=5-1"), "not in ascending order"),
        (frame(1, "line text=" + "a" * FRAME_MAX), "a frame longer than 4096 bytes"),
        (b"@HDBSS " + b"9" * 100 + b" 00000000 0 bye lines=0\n", "not a frame"),
        (b"@HDBSS 1 " + b"%08x" % zlib.crc32(b"1 0 bye l\xff=1") + b" 0 bye l\xff=1\n",
         "bad field"),
    ],
)  # fmt: skip
def test_damage_is_named(data: bytes, problem: str) -> None:
    channel = parse(data)
    assert any(problem in text for text in channel.problems), channel.problems
    with pytest.raises(ChannelError, match="the agent's channel is damaged"):
        channel.require_complete()


def test_the_longest_frame_is_accepted() -> None:
    room = FRAME_MAX - len(frame(1, "line text="))
    assert len(frame(1, "line text=" + "a" * room)) == FRAME_MAX
    assert len(parse(frame(1, "line text=" + "a" * room)).frames) == 1
    assert len(parse(frame(1, "line text=" + "a" * (room + 1))).frames) == 0


def test_an_endless_line_is_skipped_in_bounded_memory() -> None:
    decoder = Decoder()
    for _ in range(1000):
        assert decoder.feed(b"x" * 10000) == []
        assert len(decoder._buffer) <= 2 * FRAME_MAX
    assert decoder.feed(b"tail of it\n" + HELLO) == [Hello(1, 0, 1, 4, 4096)]
    assert decoder.problems == ["a line longer than 4096 bytes"]


def test_problems_are_bounded() -> None:
    assert len(parse(b"noise\n" * 10000).problems) == PROBLEMS_MAX


@given(st.lists(st.one_of(st.binary(), st.just(b"@HDBSS "), st.just(HELLO), st.just(b"\n"))))
def test_arbitrary_bytes_never_raise(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    for shared in (False, True):
        decoder = Decoder(shared)
        frames = [f for piece in pieces for f in decoder.feed(piece)]
        decoder.close()
        assert tuple(frames) == parse(data, shared).frames


@given(st.text(alphabet="0123456789abcdefx- @=,", max_size=60))
def test_arbitrary_fields_with_a_right_checksum_never_raise(text: str) -> None:
    parse(frame(1, text))


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_integers(value: int) -> None:
    assert integer(str(value)) == value
    if value >= 0:
        assert integer(hex(value)) == value


@pytest.mark.parametrize("text", ["", "1_000", "\u0663", "0b1", "1.0", "--1", "9" * 5000, " 1"])
def test_bad_integers(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        integer(text)


def test_decode_one() -> None:
    assert decode(BYE.rstrip()) == Bye(2, 0, 3)
    with pytest.raises(ChannelError, match="not a frame"):
        decode(b"hello")
