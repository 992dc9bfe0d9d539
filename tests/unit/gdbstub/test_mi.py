# SPDX-License-Identifier: GPL-2.0-or-later
"""The gdb/MI session against gdbs that answer, fail, die, keep silent and talk nonsense."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygdbmi.gdbmiparser import parse_response

from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub import mi
from qemu_model.gdbstub.mi import Gdb, GdbError, GdbLost, Stop, find_gdb, well_formed
from qemu_model.machine.child import child
from tests.unit.gdbstub.fake_gdb import connected_gdb, fake_gdb, heard, process

SHORT = 0.4


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the limits short; for when the gdb is up, which may take its time."""

    def now() -> None:
        monkeypatch.setattr(mi, "COMMAND_LIMIT", SHORT)
        monkeypatch.setattr(mi, "SILENCE", SHORT)

    return now


# --- which gdb ----------------------------------------------------------------


def test_no_gdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="apt-get install gdb-multiarch"):
        find_gdb()


def test_the_one_for_all_architectures_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("gdb", "gdb-multiarch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_gdb() == str(tmp_path / name)


def test_a_gdb_that_knows_no_arm64(tmp_path: Path) -> None:
    body = 'ok(); hear()\nsay(\'^error,msg="Undefined item: \\\\"aarch64\\\\"."\')\nserve()'
    with (
        process(tmp_path, body) as running,
        pytest.raises(GdbError, match=r'Undefined item: "aarch64".*apt-get install gdb-multiarch'),
    ):
        Gdb(running)


# --- answers ------------------------------------------------------------------


def test_results_come_in_the_order_of_the_commands(tmp_path: Path) -> None:
    body = """
for n in range(3):
    hear()
    say('=breakpoint-modified,bkpt={number="1"}', '~"words\\\\n"', '&"more"')
    say('*running,thread-id="all"')
    say('^done,n="%d"' % n, "(gdb) ")
"""
    with fake_gdb(tmp_path, body) as gdb:
        assert gdb.command("-a", "-b", "-c") == [{"n": "0"}, {"n": "1"}, {"n": "2"}]
    assert heard(tmp_path)[-3:] == ["-a", "-b", "-c"]


def test_a_result_in_pieces(tmp_path: Path) -> None:
    body = r"""
hear()
for byte in b'^done,value="\303\244\\n"\n(gdb) \n':
    say(bytes([byte]))
    time.sleep(0.002)
serve()
"""
    with fake_gdb(tmp_path, body) as gdb:
        assert gdb.command("-a") == [{"value": "ä\n"}]


def test_an_error_is_told_with_the_command(tmp_path: Path) -> None:
    with (
        fake_gdb(tmp_path, "hear(); say('^error,msg=\"No such thing.\"'); serve()") as gdb,
        pytest.raises(GdbError, match=r"gdb: -do x: No such thing\."),
    ):
        gdb.command("-do x")


def test_registers(tmp_path: Path) -> None:
    body = """
ok(',register-values=[{number="3",value="0x96000004"},{number="1",value="0xffffffffffffffff"}]')
serve()
"""
    with connected_gdb(tmp_path, body) as gdb:
        assert gdb.has("ESR_EL2") and not gdb.has("VTCR_EL2") and not gdb.has("")
        assert gdb.read("x0", "ESR_EL2", thread=2) == ((1 << 64) - 1, 0x9600_0004)
    assert heard(tmp_path)[-1] == "-data-list-register-values --thread 2 x 1 3"


def test_a_register_that_the_stub_does_not_show(tmp_path: Path) -> None:
    with (
        connected_gdb(tmp_path, "serve()") as gdb,
        pytest.raises(GdbError, match="does not show HPFAR_EL2, FAR_EL2"),
    ):
        gdb.read("HPFAR_EL2", "x0", "FAR_EL2")


@pytest.mark.parametrize(
    "payload",
    [
        "",
        ",register-values=[]",
        ',register-values="none"',
        ',register-values=["0x1"]',
        ',register-values=[{number="1"}]',
        ',register-values=[{value="0x1"}]',
        ',register-values=[{number="2",value="0x1"}]',
        ',register-values=[{number="one",value="0x1"}]',
        ',register-values=[{number="1",value="<unavailable>"}]',
        ',register-values=[{number="1",value="-0x1"}]',
        ',register-values=[{number="1",value="0x10000000000000000"}]',
        ',register-values=[{number="1",value={v2="0x1"}}]',
    ],
)
def test_a_register_that_is_not_delivered(tmp_path: Path, payload: str) -> None:
    with (
        connected_gdb(tmp_path, f"ok({payload!r}); serve()") as gdb,
        pytest.raises(GdbError, match="does not deliver register x0"),
    ):
        gdb.read("x0")


@pytest.mark.parametrize("names", ["", ",register-names={}", ",register-names=[{}]"])
def test_no_names_of_registers(tmp_path: Path, names: str) -> None:
    body = f"settings(); hear(); say('^connected'); ok(); ok({names!r}); serve()"
    with process(tmp_path, body) as running:
        gdb = Gdb(running)
        gdb.connect("gdb.sock")
        assert not gdb.has("x0")


def test_threads(tmp_path: Path) -> None:
    body = """ok(',threads=[{id="1",details="x [running]"},{id="2",details="x [halted ]"}]')
ok(',threads=[{id="1"},{id="2",details="[halted ]"},{id="?",details="halted"}]')
ok(); ok(',threads="many"'); serve()"""
    with fake_gdb(tmp_path, body) as gdb:
        assert gdb.threads() == 2
        assert gdb.halted() == {2}
        assert gdb.threads() == 0
        assert gdb.halted() == frozenset()


def test_breakpoints_are_made_once(tmp_path: Path) -> None:
    body = 'for n in range(4, 7): ok(\',bkpt={number="%d",addr="0x1000"}\' % n)\nserve()'
    with fake_gdb(tmp_path, body) as gdb:
        gdb.breakpoints([0x1000, 0x2000], enabled=True)
        gdb.breakpoints([0x2000, 0x3000], enabled=False)
        gdb.enable([0x3000, 0x1000], True)
        gdb.enable([0x2000], False)
        gdb.enable([], True)
    assert heard(tmp_path)[-5:] == [
        "-break-insert -h *0x1000",
        "-break-insert -h *0x2000",
        "-break-insert -h -d *0x3000",
        "-break-enable 6 4",
        "-break-disable 5",
    ]


@pytest.mark.parametrize("payload", ["", ',bkpt="1"', ",bkpt={}", ',bkpt={number="1.1"}'])
def test_a_breakpoint_that_is_not_made(tmp_path: Path, payload: str) -> None:
    with fake_gdb(tmp_path, f"ok({payload!r}); ok({payload!r}); serve()") as gdb:
        with pytest.raises(GdbError, match="does not make a breakpoint at 0x1000"):
            gdb.breakpoints([0x1000], enabled=True)
        with pytest.raises(GdbError, match="does not make a breakpoint at 0x2000"):
            gdb.insert(0x2000)


@pytest.mark.parametrize(
    "payload", ["", ',memory=[{contents="0g"}]', ',memory=[{contents="00"}]', ",memory=[{}]"]
)
def test_memory_that_is_not_delivered(tmp_path: Path, payload: str) -> None:
    with (
        fake_gdb(tmp_path, f"ok({payload!r}); serve()") as gdb,
        pytest.raises(GdbError, match="does not deliver 4 bytes at 0x1000"),
    ):
        gdb.memory(0x1000, 4)


# --- running ------------------------------------------------------------------


def test_several_stops_wait_for_their_turn(tmp_path: Path) -> None:
    body = """
hear(); say("^running", '*running,thread-id="all"', "(gdb) ")
stop(1, 0x1000); stop(2, 0xffff800080001234); stop(1, 0x1004, "end-stepping-range")
serve()
"""
    with fake_gdb(tmp_path, body) as gdb:
        gdb.go(jump=0x4000)
        assert gdb.running
        stops = [gdb.wait(5) for _ in range(3)]
        assert not gdb.running
        assert gdb.wait(0.01) is None
    assert stops == [
        Stop(1, 0x1000, "breakpoint-hit"),
        Stop(2, 0xFFFF_8000_8000_1234, "breakpoint-hit"),
        Stop(1, 0x1004, "end-stepping-range"),
    ]
    assert heard(tmp_path)[-1] == "-exec-jump *0x4000"


def test_what_is_set_before_going_on(tmp_path: Path) -> None:
    with fake_gdb(tmp_path, "serve()") as gdb:
        gdb.go(gdb.setting("x3", 18))
        gdb.write("x4", 0)
    assert heard(tmp_path)[-3:] == ["-gdb-set $x3 = 0x12", "-exec-continue", "-gdb-set $x4 = 0x0"]


@pytest.mark.parametrize(
    "stop",
    [
        '*stopped,reason="x"',
        '*stopped,frame={addr="0x1"}',
        '*stopped,frame={addr="1"},thread-id="1"',
        '*stopped,frame={addr="<unavailable>"},thread-id="1"',
        '*stopped,frame="0x1",thread-id="1"',
        '*stopped,frame={addr="0x1"},thread-id="all"',
        '*stopped,frame={addr="0x1"},thread-id=["1"]',
        '*stopped,frame={addr="0x10000000000000000"},thread-id="1"',
    ],
)
def test_a_stop_without_a_place(tmp_path: Path, stop: str) -> None:
    with (
        fake_gdb(tmp_path, f"hear(); say('^running', {stop!r}); serve()") as gdb,
        pytest.raises(GdbLost, match="a stop without a place"),
    ):
        gdb.go()
        gdb.wait(20)


def test_a_step_that_does_not_end(tmp_path: Path, hurry: Callable[[], None]) -> None:
    with fake_gdb(tmp_path, "serve()") as gdb:
        hurry()
        with pytest.raises(GdbLost, match="gdb cannot stop the machine"):
            gdb.step(SHORT)
    assert {"-exec-step-instruction", "-exec-interrupt --all"} <= set(heard(tmp_path))


# --- QEMU has gone ------------------------------------------------------------


@pytest.mark.parametrize("words", ['*stopped,reason="exited"', '=thread-group-exited,id="i1"'])
def test_qemu_ends(tmp_path: Path, words: str) -> None:
    with fake_gdb(tmp_path, f"hear(); say('^running', {words!r}); serve()") as gdb:
        gdb.go()
        assert gdb.wait(5) is None
        assert gdb.gone


@pytest.mark.parametrize(
    "words",
    [
        "Remote connection closed",
        "The program is not being run.",
        "Remote communication error.  Target disconnected.: Connection reset by peer.",
        "The program has no registers now.",
    ],
)
def test_qemu_has_closed_the_connection(tmp_path: Path, words: str) -> None:
    error = f"hear(); say('^error,msg=\"{words}\"'); serve()"
    with connected_gdb(tmp_path, error) as gdb:
        with pytest.raises(GdbLost, match="QEMU has closed the connection to gdb"):
            gdb.read("x0")
        assert gdb.gone
        assert gdb.wait(5) is None
        assert gdb.interrupt() is None


# --- gdb dies -----------------------------------------------------------------


def test_a_gdb_that_cannot_be_started(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-gdb")
    with (
        child((missing,), stdin=PIPE, stdout=PIPE) as running,
        pytest.raises(GdbLost, match=r"gdb has ended \(status 127\)\n  \| .*No such file"),
    ):
        Gdb(running)


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", -9)]
)
def test_a_gdb_that_dies_instead_of_an_answer(tmp_path: Path, end: str, status: int) -> None:
    body = f"hear(); say('&\"internal-error\\\\n\"', '^do'); {end}"
    with (
        fake_gdb(tmp_path, body) as gdb,
        pytest.raises(GdbLost, match=rf"gdb has ended \(status {status}\)(?s:.*)internal-error"),
    ):
        gdb.command("-a", "-b")


def test_a_gdb_that_dies_while_the_machine_runs(tmp_path: Path) -> None:
    with fake_gdb(tmp_path, "hear(); say('^running'); time.sleep(.2); sys.exit(1)") as gdb:
        gdb.go()
        with pytest.raises(GdbLost, match="gdb has ended"):
            gdb.wait(30)


def test_a_gdb_that_is_dead_before_it_is_asked(tmp_path: Path) -> None:
    with process(tmp_path, "settings(); sys.exit(1)") as running:
        gdb = Gdb(running)
        running.wait(10)
        for _ in range(2):
            with pytest.raises(GdbLost, match="gdb has ended"):
                gdb.command("-a")


# --- silence ------------------------------------------------------------------


def test_no_answer(tmp_path: Path, hurry: Callable[[], None]) -> None:
    with fake_gdb(tmp_path, "hear(); time.sleep(60)") as gdb:
        hurry()
        started = time.monotonic()
        with pytest.raises(GdbLost, match="gdb does not answer to -a"):
            gdb.command("-a")
        assert time.monotonic() - started < 20


def test_a_gdb_that_does_not_listen(tmp_path: Path, hurry: Callable[[], None]) -> None:
    """The pipe is full one day; this must not block for ever."""
    with fake_gdb(tmp_path, "time.sleep(60)") as gdb:
        hurry()
        with pytest.raises(GdbLost, match="gdb does not take -a"):
            gdb.command(*["-a" + "x" * 1000] * 200)


def test_a_gdb_that_talks_while_it_is_talked_to(tmp_path: Path) -> None:
    body = "for _ in range(400):\n    hear(); say('~\"' + 'x' * 2000 + '\"', '^done')"
    with fake_gdb(tmp_path, body) as gdb:
        assert len(gdb.command(*["-a" + "x" * 1000] * 400)) == 400


@pytest.mark.parametrize("how", ["time.sleep(60)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_gdb_that_hangs_while_the_machine_runs(
    tmp_path: Path, hurry: Callable[[], None], how: str
) -> None:
    with fake_gdb(tmp_path, f"hear(); say('^running'); {how}") as gdb:
        gdb.go()
        hurry()
        with pytest.raises(GdbLost, match="gdb does not answer to -gdb-set confirm off"):
            for _ in range(100):
                assert gdb.wait(0.1) is None


def test_a_gdb_that_has_nothing_to_say_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mi, "SILENCE", 0.05)
    with fake_gdb(tmp_path, "hear(); say('^running'); serve()") as gdb:
        gdb.go()
        for _ in range(4):
            assert gdb.wait(0.1) is None
    assert heard(tmp_path).count("-gdb-set confirm off") >= 3


def test_what_is_done_while_gdb_is_silent(tmp_path: Path) -> None:
    # QEMU may wait for it: gdb says nothing before it was done.
    body = f"""
hear(); say("^running")
while not os.path.exists({str(tmp_path / "drained")!r}): time.sleep(0.01)
stop(1, 0x1000)
serve()
"""
    with fake_gdb(tmp_path, body) as gdb:
        gdb.meanwhile = (tmp_path / "drained").touch
        gdb.go()
        assert gdb.wait(20) == Stop(1, 0x1000, "breakpoint-hit")


# --- nonsense -----------------------------------------------------------------

NONSENSE = (
    "^done,x=[",
    "^done,[{a}],b=[]",
    "^done,x={a}",
    '^done,x="unfinished',
    "^done,x=y",
    "^done,",
    "^",
    "^done,x=[" + "[" * 5000 + "]" * 5000 + "]",
    '*stopped,frame={addr="0x1"',
    '*stopped,frame={addr="0x1"}},thread-id="1"',
    r'^done,x="\q"',
    r'^done,x="\777\7"',
    "^done\x00",
    '^done,x="',
    "^done,x=\x00",
    '^done,x="a"garbage,y="b"',
)


@pytest.mark.parametrize("line", NONSENSE)
def test_nonsense_is_no_mi(tmp_path: Path, line: str) -> None:
    with (
        fake_gdb(tmp_path, f"hear(); say({line!r}); serve()") as gdb,
        pytest.raises(GdbLost, match="gdb says what is no MI"),
    ):
        gdb.command("-a")


def test_lines_that_are_no_records_are_kept_for_people(tmp_path: Path) -> None:
    body = r"""
hear()
say("gdb: warning: \x1b[31m", b"\xff\xfe\x00\n", "", "(gdb) ", '@"target"', "^done")
serve()
"""
    with fake_gdb(tmp_path, body) as gdb:
        assert gdb.command("-a") == [{}]
        assert "gdb: warning: \x1b[31m" in gdb.said()
        assert "�" in "".join(gdb.said()) and "(gdb)" not in gdb.said()


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mi, "_LINE_MAX", 1 << 20)
    with (
        fake_gdb(tmp_path, "hear()\nwhile True: say(b'x' * 65536)") as gdb,
        pytest.raises(GdbLost, match="a line of more than 1 MiB"),
    ):
        gdb.command("-a")


VALUES: st.SearchStrategy[str] = st.recursive(
    st.text(st.sampled_from('a0 ,{}[]=\\"'), max_size=6).map(
        lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(inner, max_size=3).map(
            lambda parts: "{" + ",".join(f"k{n}={part}" for n, part in enumerate(parts)) + "}"
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(values=st.lists(VALUES, max_size=3))
def test_what_gdb_may_say_is_understood(values: list[str]) -> None:
    record = "^done" + "".join(f",key-{n}={value}" for n, value in enumerate(values))
    assert well_formed(record)
    payload = parse_response(record)["payload"]
    assert len(payload or {}) == len(values)


@settings(deadline=None, max_examples=500)
@given(text=st.text(st.sampled_from('*^done,,[]{}==""\\ax1\x00'), max_size=30))
def test_what_is_taken_for_mi_is_parsed_to_its_end(text: str) -> None:
    if well_formed(f"^done,x{text}"):
        assert parse_response(f"^done,x{text}")["type"] == "result"


def test_no_process_is_left(tmp_path: Path) -> None:
    with process(tmp_path, "settings(); os.kill(os.getpid(), signal.SIGSTOP)") as running:
        Gdb(running)
    assert running.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)
