# SPDX-License-Identifier: GPL-2.0-or-later
"""A run directory read back, whole or damaged, and what it answers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_model.buffers import BufferLog
from qemu_model.errors import UsageError
from qemu_model.flushes import FlushLog
from qemu_model.model.injection import What
from qemu_model.run import About, load
from qemu_model.trace import Kind
from qemu_model.watchlog import other_line
from tests.unit.checkers.factory import (
    GPA,
    append,
    channel_bytes,
    entry,
    event,
    leave,
    make_run,
    make_trace,
    mark,
)

PROGRAM = "uapi cap=7 # expect ret=0\n# a comment\n  vm dirty=manual   # why\nklog"
Change = Callable[[dict[str, Any]], object]


def record() -> dict[str, Any]:
    return {
        "scenario": "by.hand",
        "feature": True,
        "shared_console": False,
        "machine": {"mode": "deterministic", "seed": 3},
        "kernel": {"description": "Linux 6.12"},
        "command": "hdbss run by.hand",
        "flushes": {"watched": True, "why": ""},
        "buffers": {"watched": True, "why": ""},
        "end": {"how": "complete", "why": "", "seconds": 1.5},
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps(record()))
    (tmp_path / "program.txt").write_text(PROGRAM)
    (tmp_path / "console.log").write_bytes(b"Booting Linux\r\n\xff\xfe")
    (tmp_path / "agent.log").write_bytes(channel_bytes(PROGRAM))
    (tmp_path / "trace.bin").write_bytes(make_trace([mark(3)]).data)
    head = other_line(version=3, page_shift=12, symbol="drain", no_srcu="")
    (tmp_path / "flushes.jsonl").write_text(head + other_line(end=0))
    head = other_line(version=1, page_shift=14)
    (tmp_path / "buffers.jsonl").write_text(head + other_line(end=0))
    return tmp_path


def change(directory: Path, how: Change) -> None:
    content = record()
    how(content)
    (directory / "run.json").write_text(json.dumps(content))


def test_everything_is_read_back(directory: Path) -> None:
    run = load(directory)
    assert run.about == About(
        "by.hand", "deterministic", 3, "Linux 6.12", "hdbss run by.hand", 1.5, True, False
    )
    assert [operation.name for operation in run.program] == ["uapi", "vm", "klog"]
    run.observations.require_complete()
    assert run.trace is not None and run.trace.count == 3
    assert run.console == "Booting Linux\r\n\ufffd\ufffd"
    assert run.flushes == FlushLog(symbol="drain")
    assert run.buffers == BufferLog(page_shift=14)


@pytest.mark.parametrize(
    ("said", "why"),
    [({"watched": False, "why": "no vmlinux was given"}, "no vmlinux was given"),
     ({"watched": False, "why": ""}, "unknown"), (None, "the run is of an older hdbss")],
)  # fmt: skip
def test_why_the_flushes_were_not_watched(directory: Path, said: object, why: str) -> None:
    """A left-over file is not believed."""
    change(directory, lambda r: r.update(flushes=said) if said else r.pop("flushes"))
    assert load(directory).flushes == FlushLog(absent=why)
    change(directory, lambda r: r.update(buffers=said) if said else r.pop("buffers"))
    assert load(directory).buffers == BufferLog(absent=why)


def test_without_the_feature_there_is_no_trace(directory: Path) -> None:
    """Nor is a left-over one believed."""
    change(directory, lambda r: r.update(feature=False))
    assert load(directory).trace is None
    (directory / "trace.bin").unlink()
    assert load(directory).trace is None
    change(directory, lambda r: r.update(feature=True))
    with pytest.raises(UsageError, match=r"trace\.bin: missing"):
        load(directory)


def test_a_shared_console_may_hold_other_text(directory: Path) -> None:
    mixed = b"[  1.0] hello\n" + channel_bytes(PROGRAM)
    (directory / "agent.log").write_bytes(mixed)
    assert load(directory).observations.problems != ()
    change(directory, lambda r: r.update(shared_console=True))
    assert load(directory).observations.problems == ()


@pytest.mark.parametrize(
    "name",
    ["run.json", "program.txt", "console.log", "agent.log", "flushes.jsonl", "buffers.jsonl"],
)
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(UsageError, match=rf"{name}: No such file.*incomplete"):
        load(directory)
    (directory / name).mkdir()
    with pytest.raises(UsageError, match=rf"{name}: Is a directory"):
        load(directory)


def test_no_directory(directory: Path) -> None:
    for path in (directory / "none", directory / "run.json"):
        with pytest.raises(UsageError, match="no such run directory"):
            load(path)


@pytest.mark.parametrize(
    "how",
    [
        lambda r: r.pop("scenario"),
        lambda r: r.pop("feature"),
        lambda r: r.pop("shared_console"),
        lambda r: r.pop("command"),
        lambda r: r.update(machine=None),
        lambda r: r["machine"].pop("mode"),
        lambda r: r["machine"].update(seed="many"),
        lambda r: r["machine"].update(seed=float("inf")),
        lambda r: r["machine"].update(seed=float("nan")),
        lambda r: r.update(kernel=[]),
        lambda r: r["end"].pop("seconds"),  # it is still running, or was interrupted
        lambda r: r["end"].update(seconds=10**400),
        lambda r: r["end"].update(seconds=None),
    ],
)
def test_a_run_json_that_says_too_little(directory: Path, how: Change) -> None:
    change(directory, how)
    with pytest.raises(UsageError, match=r"run\.json: .*not a finished run"):
        load(directory)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", "[" * 100_000, "9" * 5000])
def test_a_run_json_that_is_something_else(directory: Path, text: str) -> None:
    (directory / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json"):
        load(directory)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(deadline=None)  # a busy host's disk
@given(
    key=st.sampled_from(
        [
            *record(),
            "seed",
            "mode",
            "seconds",
            "description",
            "choices",
            "injections",
            "own_injections",
        ]
    ),
    value=JSON,
)
def test_any_value_in_run_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    content = record()
    holder = next((v for v in content.values() if isinstance(v, dict) and key in v), content)
    holder[key] = value
    directory = tmp_path_factory.getbasetemp() / "any"
    directory.mkdir(exist_ok=True)
    for name in ("program.txt", "console.log", "agent.log"):
        (directory / name).touch()
    (directory / "trace.bin").write_bytes(make_trace([]).data)
    (directory / "flushes.jsonl").write_text(
        other_line(version=3, page_shift=12, symbol=None, no_srcu="")
    )
    (directory / "buffers.jsonl").write_text(other_line(version=1, page_shift=12))
    (directory / "run.json").write_text(json.dumps(content))
    try:
        load(directory)
    except UsageError as error:
        assert "run.json" in str(error)


@pytest.mark.parametrize("injections", [[1], [None], [["abort"]], 3])
def test_injections_that_are_no_text(directory: Path, injections: object) -> None:
    change(directory, lambda r: r.update(injections=injections))
    with pytest.raises(UsageError, match=r"run\.json: .*not a finished run"):
        load(directory)


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "program.txt",
        "console.log",
        "agent.log",
        "trace.bin",
        "flushes.jsonl",
        "buffers.jsonl",
    ],
)
def test_a_file_that_is_too_large_is_not_read(directory: Path, name: str) -> None:
    os.truncate(directory / name, 1 << 40)
    with pytest.raises(UsageError, match=rf"{name}: 1099511627776 bytes, where"):
        load(directory)
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(UsageError, match=rf"{name}: no regular file"):
        load(directory)


def test_an_agent_that_tells_of_another_program(directory: Path) -> None:
    channel = channel_bytes(PROGRAM.replace("klog", "vcpu 0"))
    (directory / "agent.log").write_bytes(channel)
    with pytest.raises(UsageError, match=r"line 4 of agent\.log is 'vcpu', of program\.txt 'klog'"):
        load(directory)
    (directory / "agent.log").write_bytes(channel_bytes(PROGRAM + "\nsleep ms=1"))
    with pytest.raises(
        UsageError, match=r"line 5 of agent\.log is 'sleep', of program\.txt 'none'"
    ):
        load(directory)
    said = {4: ["result ret=-1 errno=22 error=parse"]}
    unread = channel_bytes(PROGRAM.replace("klog", "-"), said)
    (directory / "agent.log").write_bytes(unread)
    assert load(directory).observations.problems == ()


def test_lines_of_the_program_without_their_comments() -> None:
    run = make_run(PROGRAM)
    assert [run.line(number) for number in (1, 2, 3, 4)] == [
        "uapi cap=7", "", "vm dirty=manual", "klog",
    ]  # fmt: skip
    assert [run.line(number) for number in (-1, 0, 5, 6, 1 << 70)] == [""] * 5


def test_the_records_about_a_page() -> None:
    hpfar = (GPA + 5 * 4096) >> 12 << 4
    run = make_run(
        "vm\n",
        trace=[
            append(5, 0),
            append(6, 1),
            entry(),
            leave(),
            event(Kind.EXIT, 0x93C0_8047, 0, hpfar),
            event(Kind.REFUSE, GPA + 5 * 4096 + 8, 0x93C0_8047),
            event(Kind.INJECT, What.ABORT, GPA + 5 * 4096),
            event(Kind.INJECT, What.S1PTW, GPA + 5 * 4096),
            event(Kind.LOST, GPA + 5 * 4096),
            event(Kind.WRITE, GPA + 5 * 4096),
        ],
    )
    about = run.records_about(GPA + 5 * 4096 + 0x123)
    assert [text.split()[3] for text in about] == ["APPEND", "EXIT", "REFUSE", "INJECT", "LOST"]
    assert about[0].startswith("#2 PE 0")
    assert len(run.records_about(GPA + 6 * 4096)) == 1
    assert run.records_about(GPA + 7 * 4096) == ()


def test_only_the_last_records_about_a_page_are_shown() -> None:
    run = make_run("vm\n", trace=[append(5, index) for index in range(20)])
    about = run.records_about(GPA + 5 * 4096)
    assert [text.split()[4] for text in about] == [f"INDEX={index}" for index in range(14, 20)]


def test_without_a_trace_there_are_no_records() -> None:
    assert make_run("vm\n", trace=None).records_about(GPA) == ()
