# SPDX-License-Identifier: GPL-2.0-or-later
"""Unknown kernels: the signature of HDBSS among KVM's capabilities, and everything beside it."""

from pathlib import Path

import pytest

from qemu_model import runner
from qemu_model.arch.registers import SysReg
from qemu_model.channel import parse
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine.progress import SilentProgress
from qemu_model.probe import (
    effect_program,
    known,
    loads_buffer,
    probe_program,
    probe_uapi,
    recognise,
    require_boots,
)
from qemu_model.program import parse as parse_program
from qemu_model.runner import Bench
from qemu_model.scenarios.scenario import Uapi
from qemu_model.trace import Kind
from tests.unit.checkers.factory import Event, append, channel_bytes, event, make_trace, mark
from tests.unit.fake_run import FakeMachine, below, fake_bench

GOOD, BAD = "result ret=0 errno=0", "result ret=-1 errno=22 errname=EINVAL"
OFFERED = "result ret=1 errno=0"
SIGNATURE = (GOOD, GOOD, BAD, GOOD, BAD, GOOD)
"""Off when off, on, on when on, off, order 10, off."""
NUMBER = 241
PROGRAM, LINES = probe_program()
BR_WRITTEN = event(Kind.WRITE, SysReg.HDBSSBR_EL2, 0x4800_0000, 0x4800_0000, 0xFFFF)
Says = dict[int, tuple[str, ...]]


def answers(number: int, steps: tuple[str, ...] = SIGNATURE, check: str = OFFERED) -> Says:
    """What a capability says to its lines; no other one is offered."""
    return {line: (said,) for line, said in zip(LINES[number], (check, *steps), strict=True)}


def recognised(says: Says) -> int | None:
    return recognise(parse(channel_bytes(PROGRAM.text, says)), LINES)


# --- the program --------------------------------------------------------------


def test_the_program_can_be_read_back() -> None:
    again = parse_program(PROGRAM.text)
    assert again.operations == PROGRAM.operations
    assert PROGRAM.operations[0].name == "uapi" and PROGRAM.operations[0].number("cap") == 0


def test_the_program_asks_each_capability_on_a_vm_of_its_own() -> None:
    operations = {operation.line: operation for operation in PROGRAM}
    assert NUMBER in LINES and 300 in LINES
    for number, (check, *steps) in LINES.items():
        assert operations[check - 1].name == "vm"
        assert operations[steps[-1] + 1].name == "destroy"
        assert (operations[check].name, operations[check].number("cap")) == ("check-cap", number)
        asked = [operations[line] for line in steps]
        assert {operation.name for operation in asked} == {"enable-cap"}
        assert {operation.number("cap") for operation in asked} == {number}
        assert [(o.number("a0"), o.number("a1")) for o in asked] == [
            (0, 0), (0, 1), (0, 1), (0, 0), (10, 1), (0, 0),
        ]  # fmt: skip


def test_the_program_ends_with_a_guest_that_dirties_a_logged_slot() -> None:
    *_, vm, vcpu, slot, run = PROGRAM.operations
    assert [operation.name for operation in (vm, vcpu, slot, run)] == ["vm", "vcpu", "slot", "run"]
    assert "log" in slot.words and slot.number("pages") == run.number("count") == 16
    assert slot.number("gpa") == run.number("gpa")


# --- the signature ------------------------------------------------------------


@pytest.mark.parametrize("number", [min(LINES), NUMBER, max(LINES)])
def test_the_signature_is_recognised(number: int) -> None:
    assert recognised(answers(number)) == number


def test_a_kernel_without_capabilities_has_none() -> None:
    assert recognised({}) is None
    assert recognise(parse(b""), LINES) is None


@pytest.mark.parametrize("step", range(6))
def test_a_single_other_answer_is_not_the_signature(step: int) -> None:
    other = BAD if SIGNATURE[step] == GOOD else GOOD
    steps = (*SIGNATURE[:step], other, *SIGNATURE[step + 1 :])
    assert recognised(answers(NUMBER, steps)) is None


@pytest.mark.parametrize("step", [0, 1, 3, 5])
def test_a_positive_value_is_not_a_success(step: int) -> None:
    steps = (*SIGNATURE[:step], "result ret=1 errno=0", *SIGNATURE[step + 1 :])
    assert recognised(answers(NUMBER, steps)) is None


@pytest.mark.parametrize("step", [2, 4])
def test_a_wrong_error_does_not_hide_the_capability(step: int) -> None:
    """It is for uapi.matrix to find, which is skipped for a kernel that seems to have none."""
    other = "result ret=-1 errno=16 errname=EBUSY"
    steps = (*SIGNATURE[:step], other, *SIGNATURE[step + 1 :])
    assert recognised(answers(NUMBER, steps)) == NUMBER


@pytest.mark.parametrize("check", ["result ret=0 errno=0", BAD])
def test_a_capability_that_is_not_offered_is_not_the_signature(check: str) -> None:
    assert recognised(answers(NUMBER, check=check)) is None


@pytest.mark.parametrize("place", range(7))
def test_an_answer_that_is_missing_is_not_the_signature(place: int) -> None:
    says = answers(NUMBER)
    says[LINES[NUMBER][place]] = ("cut",)
    assert recognised(says) is None


def test_a_capability_that_takes_everything_does_not_hide_the_right_one() -> None:
    always = answers(min(LINES), (GOOD,) * 6)
    never = answers(min(LINES) + 1, (BAD,) * 6)
    assert recognised(always | never | answers(NUMBER)) == NUMBER


# --- the effect ---------------------------------------------------------------


NOTHING: Says = {line: (BAD,) for lines in LINES.values() for line in lines}
"""What a kernel says that knows no capability."""


def asked_of(says: Says) -> list[int]:
    return known(parse(channel_bytes(PROGRAM.text, NOTHING | says)), LINES)


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("check", [OFFERED, "result ret=0 errno=0"])
def test_what_is_offered_or_enabled_is_tried(step: int, check: str) -> None:
    other = BAD if SIGNATURE[step] == GOOD else GOOD
    says = answers(NUMBER, (*SIGNATURE[:step], other, *SIGNATURE[step + 1 :]), check)
    assert asked_of(says) == ([] if step == 1 and check != OFFERED else [NUMBER])


def test_what_is_neither_is_not_tried() -> None:
    nothing = answers(NUMBER, (GOOD, BAD, BAD, GOOD, BAD, GOOD), "result ret=0 errno=0")
    assert asked_of(nothing) == asked_of({}) == []
    assert known(parse(b""), LINES) == []


def test_the_effect_is_tried_on_a_vm_of_its_own_with_a_guest() -> None:
    program, lines = effect_program([NUMBER, 300])
    assert parse_program(program.text).operations == program.operations
    names = [operation.name for operation in program]
    assert names == ["uapi", *["vm", "vcpu", "enable-cap", "slot", "run", "destroy"] * 2]
    operations = {operation.line: operation for operation in program}
    for line, number in lines.items():
        assert operations[line].name == "run"
        enable = operations[line - 2]
        assert [enable.number(key) for key in ("cap", "a0", "a1")] == [number, 0, 1]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([mark(6), BR_WRITTEN, mark(6, 1)], NUMBER),
        ([mark(12), BR_WRITTEN], 300),
        ([mark(6), mark(6, 1), BR_WRITTEN], None),  # not by a guest's run
        ([mark(7), BR_WRITTEN, mark(7, 1)], None),
        ([mark(6), event(Kind.WRITE, SysReg.HDBSSBR_EL2), mark(6, 1)], None),  # no buffer
        ([mark(6), event(Kind.WRITE, SysReg.VTCR_EL2, 1), mark(6, 1)], None),
    ],
)
def test_a_buffer_that_is_loaded_in_the_line_of_a_capability(
    events: list[Event], found: int | None
) -> None:
    assert loads_buffer(make_trace(events), {6: NUMBER, 12: 300}) == found


# --- the whole probe ----------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    fake = FakeMachine()
    monkeypatch.setattr(runner, "run_machine", fake)
    return fake


def probed(bench: Bench) -> Uapi:
    return probe_uapi(bench, SilentProgress())


def test_a_capability_is_found(tmp_path: Path, machine: FakeMachine) -> None:
    machine.says, machine.events = answers(NUMBER), [BR_WRITTEN]
    assert probed(fake_bench(tmp_path)) == Uapi("cap", NUMBER)
    assert machine.programs == [PROGRAM.text] and machine.specs[0].trace
    assert below(tmp_path / "runs") == []


def test_a_kernel_that_programs_the_buffer_by_itself(tmp_path: Path, machine: FakeMachine) -> None:
    machine.events = [BR_WRITTEN]
    assert probed(fake_bench(tmp_path)) == Uapi("auto")


@pytest.mark.parametrize(
    ("step", "check"),
    [
        *((step, OFFERED) for step in range(6)),
        # Neither offered nor to be had: see the next test.
        *((step, "result ret=0 errno=0") for step in range(6) if step != 1),
    ],
)
def test_a_capability_with_a_wrong_answer_is_no_plain_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, check: str
) -> None:
    """Or its HDBSS would not be tried at all, and everything would agree."""
    other = BAD if SIGNATURE[step] == GOOD else GOOD
    says = NOTHING | answers(NUMBER, (*SIGNATURE[:step], other, *SIGNATURE[step + 1 :]), check)
    (line,) = effect_program([NUMBER])[1]
    first = FakeMachine(says=says)
    second = FakeMachine(events=[mark(line), BR_WRITTEN, mark(line, 1)])
    machines = [first, second]
    monkeypatch.setattr(runner, "run_machine", lambda *a, **k: machines.pop(0)(*a, **k))
    assert probed(fake_bench(tmp_path)) == Uapi("cap", NUMBER)
    assert second.programs == [effect_program([NUMBER])[0].text]


def test_code_for_hdbss_that_nothing_starts_is_no_plain_kernel(
    tmp_path: Path, machine: FakeMachine
) -> None:
    bench = fake_bench(tmp_path)
    image = bench.kernel.image
    image.write_bytes(image.read_bytes().ljust(64, b"\0") + b"\x43\x23\x1c\xd5")
    machine.says = NOTHING
    with pytest.raises(UsageError, match=r"HDBSSBR_EL2, but .* from 220 to 319 .* --uapi"):
        probed(bench)
    assert len(machine.programs) == 1


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event(Kind.WRITE, SysReg.HDBSSPROD_EL2), event(Kind.WRITE, SysReg.VTCR_EL2)],
        [event(Kind.READ, SysReg.HDBSSBR_EL2), append(0, 0)],
    ],
)
def test_a_kernel_that_does_not_know_the_feature(
    tmp_path: Path, machine: FakeMachine, events: list[Event]
) -> None:
    machine.events = events
    assert probed(fake_bench(tmp_path)) == Uapi("none")


def test_a_kept_probe(tmp_path: Path, machine: FakeMachine) -> None:
    probed(fake_bench(tmp_path, keep=tmp_path / "keep"))
    assert "trace.bin" in below(tmp_path / "keep" / "probe.parallel")


def test_a_kernel_that_dies_under_the_probe(tmp_path: Path, machine: FakeMachine) -> None:
    """The message names the files, so they stay."""
    machine.lost = "Oops in kvm_vm_ioctl_enable_cap"
    with pytest.raises(InfrastructureError, match="Oops in kvm_vm") as caught:
        probed(fake_bench(tmp_path))
    (name,) = below(tmp_path / "runs")
    assert str(tmp_path / "runs" / name) in str(caught.value)


def test_a_damaged_channel_is_no_answer(tmp_path: Path, machine: FakeMachine) -> None:
    """What is missing could have been the signature."""
    machine.says, machine.cut_channel = answers(NUMBER), True
    with pytest.raises(InfrastructureError, match="channel is damaged"):
        probed(fake_bench(tmp_path))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_an_interrupted_probe_leaves_nothing(
    tmp_path: Path, machine: FakeMachine, error: BaseException
) -> None:
    machine.error = error
    with pytest.raises(type(error)):
        probed(fake_bench(tmp_path))
    assert len(machine.directories) == 1 and below(tmp_path / "runs") == []


def test_a_kernel_is_booted_once_before_it_is_believed(
    tmp_path: Path, machine: FakeMachine
) -> None:
    require_boots(fake_bench(tmp_path), SilentProgress())
    assert machine.programs == ["vm\n"] and below(tmp_path / "runs") == []
    machine.lost = "no word from the kernel"
    with pytest.raises(InfrastructureError, match="no word from the kernel"):
        require_boots(fake_bench(tmp_path), SilentProgress())


def test_the_probe_tries_what_the_series_can_be() -> None:
    """6.12's own capabilities end with 238, and newer kernels have some more."""
    assert set(range(239, 301)) <= set(LINES)
    assert probe_program()[0].text == PROGRAM.text
    assert len(PROGRAM.operations) < 2000
