# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin as a guest of QEMU: options, versions, the end of a run, the summary."""

import ctypes
import signal
import subprocess
import time
from pathlib import Path

import pytest

from qemu_model.checkers.mirror import check_trace
from qemu_model.machine.command import MACHINE, Mode
from qemu_model.trace import Kind, count_records, read_trace
from tests.plugin.conftest import RUN_LIMIT, Bench


class _Version(ctypes.Structure):
    _fields_ = (("min", ctypes.c_int), ("cur", ctypes.c_int))


class _Info(ctypes.Structure):
    _fields_ = (
        ("target_name", ctypes.c_char_p),
        ("version", _Version),
        ("system_emulation", ctypes.c_bool),
        ("smp_vcpus", ctypes.c_int),
        ("max_vcpus", ctypes.c_int),
    )


def install(plugin: Path, least: int, current: int, target: bytes = b"aarch64") -> int:
    """Call the plugin's entry as a QEMU with these API versions would, without options."""
    ctypes.CDLL("libglib-2.0.so.0", ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(plugin))
    assert ctypes.c_int.in_dll(library, "qemu_plugin_version").value == 7
    entry = library.qemu_plugin_install
    entry.argtypes = (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    info = _Info(target, _Version(least, current), True, 1, 1)
    return int(entry(1, ctypes.byref(info), 0, None))


@pytest.mark.parametrize(
    ("least", "current", "target", "text"),
    [
        (1, 6, b"aarch64", "offers plugin API versions 1 to 6, the plugin needs 7"),
        (8, 9, b"aarch64", "offers plugin API versions 8 to 9, the plugin needs 7"),
        (7, 7, b"x86_64", "QEMU for x86_64, the plugin needs qemu-system-aarch64"),
        (7, 7, b"aarch64", "option ram= is missing"),  # the version is right
    ],
)
def test_versions(
    plugin: Path,
    capfd: pytest.CaptureFixture[str],
    least: int,
    current: int,
    target: bytes,
    text: str,
) -> None:
    assert install(plugin, least, current, target) != 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hdbss: ")
    assert text in lines[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("trace=/nowhere/trace.bin", "option ram= is missing"),
        ("ram={ram},trace=/no/such/directory/trace.bin", "No such file or directory"),
        ("ram={ram},tracer=x", "unknown option tracer"),
        ("ram={ram},trace-limit=many", "trace-limit=many"),
        ("ram={ram},trace-limit=1", "trace-limit=1"),
        ("ram={ram},trace-limit=-5", "trace-limit=-5"),
        ("ram={ram},trace-limit=99999999999999999999", "trace-limit=9"),
        ("ram={ram},inject=abord", "inject=abord"),
        ("ram={ram},inject=abort:append=0", "inject=abort"),
        ("ram={ram}" + ",inject=fill" * 17, "one too many"),
        ("ram={ram},visibility=often", "visibility=often: the choice has no such value"),
        ("ram={ram},zero_ahead=", "zero_ahead=: the choice has no such value"),
        ("ram={ram},flush-fd=x", "flush-fd=x: it is no open file"),
        ("ram={ram},flush-fd=977", "flush-fd=977: it is no open file"),
        ("ram={ram},flush-fd=-1", "flush-fd=-1"),
        ("ram={ram},flush-at=", "flush-at=: give at most 64"),
        ("ram={ram},flush-at=12:", "flush-at=12:"),
        ("ram={ram},flush-at=12;13", "flush-at=12;13"),
        ("ram={ram},flush-at=" + "1:" * 64 + "1", "flush-at=1:1:"),
        ("ram=/no/such/ram", "cannot open ram=/no/such/ram"),
        ("ram=/dev/null", "is not the machine's RAM"),
    ],
)
def test_bad_options(bench: Bench, tmp_path: Path, options: str, text: str) -> None:
    run = bench.run("append", tmp_path, plugin_options=options.format(ram=tmp_path / "ram"))
    assert run.code != 0
    lines = [line for line in run.stderr.splitlines() if line.startswith("hdbss: ")]
    assert len(lines) == 1
    assert text in lines[0]


def refused(argv: list[str]) -> list[str]:
    """What a machine says that ends before it has begun."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("ram", "share", "text"),
    [("ram", "off", "is not shared"), ("another", "on", "is not the machine's RAM")],
)
def test_ram_that_is_not_the_machines(
    bench: Bench, tmp_path: Path, ram: str, share: str, text: str
) -> None:
    """Nothing would ever be appended; without a word of it that is hard to find out."""
    with (tmp_path / "another").open("wb") as file:
        file.truncate(256 << 20)
    argv = bench.argv("append", tmp_path, plugin_options=f"ram={tmp_path / ram}")
    lines = refused([word.replace("share=on", f"share={share}") for word in argv])
    assert [text in line for line in lines] == [True]


@pytest.mark.parametrize(
    ("word", "instead", "text"),
    [
        # HAFDBS = 4 would promise an access flag that nobody sets
        ("max", "cortex-a57", "no FEAT_HAFDBS: use -cpu max"),
        (MACHINE, MACHINE.replace("virtualization=on,", ""), "use -M virt,virtualization=on"),
    ],
)
def test_a_cpu_that_will_not_do(
    bench: Bench, tmp_path: Path, word: str, instead: str, text: str
) -> None:
    argv = bench.argv("append", tmp_path)
    assert instead != word in argv
    lines = refused([instead if part == word else part for part in argv])
    assert len(lines) == 1
    assert lines[0].startswith("hdbss: QEMU's CPU has no ")
    assert text in lines[0]


def test_ram_file_that_is_longer(bench: Bench, tmp_path: Path) -> None:
    """Left by a larger machine: a buffer behind the RAM of this one is in no RAM."""
    with (tmp_path / "ram").open("wb") as file:
        file.truncate(512 << 20)
    run = bench.run("hostile", tmp_path)
    assert run.report.complete
    assert "hostile.buffers" not in run.failed
    assert run.trace.header.ram_size == 256 << 20


def test_drop_in(bench: Bench, tmp_path: Path) -> None:
    """Without a trace: the feature exists, a summary comes at exit, and no file is written."""
    run = bench.run("smp", tmp_path, smp=2, plugin_options=f"ram={tmp_path / 'ram'}")
    assert run.failed == []
    summary = [line for line in run.stderr.splitlines() if line.startswith("hdbss: PE ")]
    assert len(summary) == 2
    entries = sum(int(line.split(":")[2].split()[0]) for line in summary)
    assert entries >= 12 * 480
    assert list(tmp_path.iterdir()) == []


def test_trace_limit(bench: Bench, tmp_path: Path) -> None:
    options = f"ram={tmp_path / 'ram'},trace={tmp_path / 'trace.bin'},trace-limit=20"
    run = bench.run("append", tmp_path, plugin_options=options)
    assert run.failed == []
    records = list(run.trace)
    assert len(records) == 20
    assert records[-1][1] == Kind.END
    assert records[-1][4:6] == (1, 20)
    assert check_trace(run.trace) == []
    assert run.trace_file.stat().st_size == 64 * 21


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.DETERMINISTIC])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals(bench: Bench, tmp_path: Path, how: signal.Signals, mode: Mode) -> None:
    """A trace is complete after a signal that QEMU can catch, and whole records after SIGKILL."""
    trace = tmp_path / "trace.bin"
    argv = bench.argv("forever", tmp_path, mode=mode)
    argv[argv.index("-serial") + 1] = "null"
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            deadline = time.monotonic() + RUN_LIMIT
            while count_records(trace) < 20000 and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(how)
            process.wait(RUN_LIMIT)
        finally:
            process.kill()
    (tmp_path / "ram").unlink()
    written = read_trace(trace)
    assert written.count >= 20000
    assert check_trace(written) == []
    if how is signal.SIGKILL:
        assert written.end is None
    else:
        assert written.end == 0
        assert trace.stat().st_size == 64 * (written.count + 1)
