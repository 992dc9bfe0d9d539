# SPDX-License-Identifier: GPL-2.0-or-later
"""How is the HDBSS of an unknown kernel driven?  Ask the kernel.

The number of the capability differs between trees, but what it does has a signature
that no other capability of KVM shows: off when off succeeds, on succeeds, on when on is
refused, off succeeds, order 10 is refused.  Which error refuses is not asked here: a
wrong one is for uapi.matrix to find.  A kernel that has none of these and still loads
the buffer's registers when logging starts drives HDBSS by itself.

A kernel whose capability answers otherwise must not pass for one without HDBSS, whose
write protection agrees with everything.  So each capability of which something is known
is tried with a guest, and what loads the registers then is it, whatever it answers.
"""

from collections.abc import Iterable, Mapping, Sequence

from qemu_model.arch.registers import SysReg
from qemu_model.channel import Channel, Result
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine.progress import Progress
from qemu_model.program import Program
from qemu_model.run import Run, load
from qemu_model.runner import Bench, passing_directory, run_program
from qemu_model.scenarios.scenario import PATIENCE, SLOT_GPA, Needs, Uapi
from qemu_model.trace import Kind, RawRecord, Trace
from qemu_model.vmlinux.sites import sets_buffer

_NUMBERS = range(220, 320)
"""Capabilities that are tried; 6.12 itself ends below, series under review add at the end."""
_ON, _OFF = (0, 1), (0, 0)
_STEPS = ((*_OFF, True), (*_ON, True), (*_ON, False), (*_OFF, True), (10, 1, False), (*_OFF, True))
"""args[0], args[1], and whether it has to succeed."""


def probe_program() -> tuple[Program, dict[int, tuple[int, ...]]]:
    """The program that asks, and for each capability the lines of its steps."""
    program = Program()
    program.add("uapi", cap=0)
    lines: dict[int, tuple[int, ...]] = {}
    for number in _NUMBERS:
        program.add("vm")
        check = program.add("check-cap", cap=number)
        steps = [
            program.add("enable-cap", cap=number, a0=order, a1=switch)
            for order, switch, _ in _STEPS
        ]
        program.add("destroy")
        lines[number] = (check, *steps)
    program.add("vm")
    program.add("vcpu", 0)
    _add_guest(program)
    return program, lines


def effect_program(numbers: Iterable[int]) -> tuple[Program, dict[int, int]]:
    """The program that tries capabilities with a guest, and the line in which each one runs."""
    program = Program()
    program.add("uapi", cap=0)
    lines: dict[int, int] = {}
    for number in numbers:
        program.add("vm")
        program.add("vcpu", 0)
        program.add("enable-cap", cap=number, a0=_ON[0], a1=_ON[1])
        lines[_add_guest(program)] = number
        program.add("destroy")
    return program, lines


def _add_guest(program: Program) -> int:
    """A guest that dirties a logged slot; its line."""
    program.add("slot", 0, gpa=hex(SLOT_GPA), pages=16, mem="anon", log=True)
    stores = {"gpa": hex(SLOT_GPA), "count": 16, "stride": 4096, "value": 1}
    return program.add("run", 0, "stride", **stores, limit=PATIENCE)


def _results(channel: Channel) -> dict[int, Result]:
    return {frame.line: frame for frame in channel.frames if isinstance(frame, Result)}


def recognise(channel: Channel, lines: Mapping[int, Sequence[int]]) -> int | None:
    """The capability whose answers have the signature of HDBSS; None if none has."""
    results = _results(channel)
    for number, (check, *steps) in lines.items():
        offered = results.get(check)
        if offered is None or offered.ret <= 0:
            continue
        answers = [results.get(line) for line in steps]
        wanted = [good for _, _, good in _STEPS]
        if [answer is not None and answer.ret == 0 for answer in answers] == wanted:
            return number
    return None


def known(channel: Channel, lines: Mapping[int, Sequence[int]]) -> list[int]:
    """The capabilities that are offered, or could be enabled."""
    results = _results(channel)

    def answer(line: int) -> int:
        return results[line].ret if line in results else -1

    return [
        number
        for number, (check, *steps) in lines.items()
        if answer(check) > 0 or answer(steps[_STEPS.index((*_ON, True))]) == 0
    ]


def _loads_buffer(record: RawRecord) -> bool:
    return record[1] == Kind.WRITE and record[4] == SysReg.HDBSSBR_EL2 and record[5] != 0


def loads_buffer(trace: Iterable[RawRecord], lines: Mapping[int, int]) -> int | None:
    """The capability in whose line a buffer was given to a PE; None if there is none."""
    number = None
    for record in trace:
        if record[1] == Kind.MARK:
            number = None if record[4] & 1 else lines.get(record[4] >> 1)
        elif number is not None and _loads_buffer(record):
            return number
    return None


def require_boots(bench: Bench, progress: Progress) -> None:
    """Boot the kernel once, as far as a VM; InfrastructureError when it does not get there."""
    progress.status("booting the kernel once")
    program = Program()
    program.add("vm")
    _ask(bench, program, progress)


def _ask(bench: Bench, program: Program, progress: Progress, name: str = "probe") -> Run:
    with passing_directory(bench, name) as directory:
        run_program(bench, name, program, Needs(), directory, progress)
        run = load(directory)
        run.observations.require_complete()  # an answer that is missing is not a no
        return run


def probe_uapi(bench: Bench, progress: Progress) -> Uapi:
    """Boot the kernel once and find out; InfrastructureError when it does not get far."""
    progress.status("finding out how the kernel's HDBSS is driven")
    program, lines = probe_program()
    run = _ask(bench, program, progress)
    number = recognise(run.observations, lines)
    if number is not None:
        return Uapi("cap", number)
    if any(map(_loads_buffer, _trace(run))):
        return Uapi("auto")
    program, effects = effect_program(known(run.observations, lines))
    if effects:
        effect = _trace(_ask(bench, program, progress, "probe-effect"))
        number = loads_buffer(effect, effects)
        if number is not None:
            return Uapi("cap", number)
    _require_none(bench)
    return Uapi("none")


def _trace(run: Run) -> Trace:
    if run.trace is None:
        raise InfrastructureError("the probe left no trace")
    return run.trace


def _require_none(bench: Bench) -> None:
    """UsageError if the kernel has code for HDBSS after all."""
    image = bench.kernel.image
    if sets_buffer(image.read_bytes()):
        raise UsageError(
            f"{image} has code that writes HDBSSBR_EL2, but neither dirty logging nor any "
            f"capability from {_NUMBERS[0]} to {_NUMBERS[-1]} makes it do so: tell how it is "
            "driven with --uapi, none for its write protection only"
        )
