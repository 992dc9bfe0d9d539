# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``hdbss``: arguments in, exit code out, nothing else."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qemu_model import bench, bugs, conformance, session
from qemu_model.checkers import equivalence
from qemu_model.checkers.judge import judge
from qemu_model.errors import InfrastructureError, Unsupported, UsageError
from qemu_model.hunt import Hunt, control, hunt_all
from qemu_model.hunt import exit_code as hunt_code
from qemu_model.jobs import interrupt_on_signals
from qemu_model.machine.command import SMP_MAX, Mode
from qemu_model.machine.doctor import examine
from qemu_model.machine.progress import Progress, progress_for
from qemu_model.prompted import run_shell
from qemu_model.report import bugs as bugs_report
from qemu_model.report import difference, text
from qemu_model.report import json as json_report
from qemu_model.report.result import Exit, Result, exit_code
from qemu_model.run import load
from qemu_model.runner import Bench, dry_run, require_holds, run_scenarios
from qemu_model.scenarios.catalogue import SCENARIOS, select

_PARTS = ("kernel", "debug-kernel", "bugs-kernel", "agent", "plugin", "qemu", "all")
_UAPI = re.compile(r"(?:cap|cap:[1-9][0-9]{0,8}|auto|none)\Z")  # to the agent, 0 is none
_JOBS_MAX = 64


def _uapi(value: str) -> str:
    if _UAPI.match(value) is None:
        raise argparse.ArgumentTypeError(f"{value!r} is none of cap, cap:N, auto, none")
    return value


def _number(low: int, high: int) -> type[int]:
    class Number(int):
        """An argument with bounds."""

        def __new__(cls, value: str) -> "Number":
            try:
                number = int(value, 0)
            except ValueError:
                raise argparse.ArgumentTypeError(f"{value!r} is not a number") from None
            if not low <= number <= high:
                raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
            return super().__new__(cls, number)

    return Number


def parser() -> argparse.ArgumentParser:
    """The command line of ``hdbss``."""
    top = argparse.ArgumentParser(
        prog="hdbss",
        description="Test bench for KVM/arm64 kernels that use FEAT_HDBSS, on stock QEMU.",
        epilog="Exit codes: 0 all agree, 1 a divergence, 2 usage, 3 infrastructure or a machine "
        "that was lost, 4 everything was skipped, 5 a bug of hdbss, 130 interrupted.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("doctor", help="what is here, what is missing, how to get it")
    commands.add_parser("list", help="the scenarios, and what each one is for")

    build = commands.add_parser("build", help="build or fetch what runs need")
    build.add_argument("part", nargs="?", choices=_PARTS, default="all")

    machine = argparse.ArgumentParser(add_help=False)
    kernel = machine.add_argument_group("the kernel under test (default: 6.12 with our series)")
    kernel.add_argument("--kernel", type=Path, metavar="IMAGE", help="an arm64 Image")
    kernel.add_argument("--vmlinux", type=Path, help="the vmlinux that belongs to it")
    kernel.add_argument("--linux", type=Path, metavar="TREE", help="a tree that was built")
    kernel.add_argument(
        "--debug", action="store_true", help="our kernel with lockdep, page poisoning.."
    )
    kernel.add_argument(
        "--bug", metavar="NAME", help="our kernel with a seeded bug (`hdbss bugs --list`), or none"
    )
    kernel.add_argument(
        "--uapi",
        type=_uapi,
        metavar="cap|cap:N|auto|none",
        help="how HDBSS is driven: a VM capability (number N), by itself, not at all; "
        "default: found out",
    )
    kernel.add_argument(
        "--flush-symbol",
        metavar="NAME",
        help="the function at whose return a flush of an HDBSS buffer has reached the dirty "
        "bitmaps; default: when HDBSSPROD_EL2.INDEX becomes 0",
    )
    _add_machine(machine)
    machine.add_argument(
        "--choices",
        default="",
        metavar="best|worst|random|NAME=VALUE[,..]",
        help="what the PEs do where the architecture leaves it open; random goes by the seed",
    )
    machine.add_argument(
        "--inject",
        action="append",
        default=[],
        metavar="WHAT[,KEY=VALUE..]",
        help="what is to go wrong, and when: abort, gpf, cas-lost, fill, s1ptw, fetch, index=V, "
        "unknown; may be repeated",
    )

    run = commands.add_parser("run", parents=[machine], help="run scenarios and judge them")
    run.add_argument("names", nargs="*", metavar="NAME", help="scenarios or globs; default: all")
    run.add_argument("--mode", choices=[str(mode) for mode in Mode], default=str(Mode.PARALLEL))
    run.add_argument("--jobs", type=_number(1, _JOBS_MAX), default=1, metavar="N")
    run.add_argument(
        "--small",
        action="store_true",
        help="small programs of the same meaning: page counts as in gdb mode",
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="print commands and programs, run nothing",
    )
    run.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")

    shell = commands.add_parser(
        "shell", parents=[machine], help="debug the machine of a scenario, in gdb mode, at a prompt"
    )
    shell.add_argument("name", metavar="SCENARIO")
    shell.add_argument(
        "--stop-at",
        metavar="SYMBOL[+OFFSET]",
        help="where the prompt comes first; default: at the machine's first instruction",
    )
    shell.set_defaults(mode=str(Mode.GDB), small=True)

    check = commands.add_parser(
        "check", help="judge a kept run again, or compare two of them, without QEMU"
    )
    check.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    check.add_argument(
        "--against",
        type=Path,
        metavar="REFERENCE",
        help="compare RUN_DIR with this run of the same program, of another mode, QEMU or "
        "interceptor, and explain the first difference",
    )

    seeded = commands.add_parser("bugs", help="find the seeded bugs of our own kernel, and count")
    seeded.add_argument("names", nargs="*", metavar="NAME", help="bugs or globs; default: all")
    seeded.add_argument("--list", action="store_true", help="print them, run nothing")
    seeded.add_argument("--jobs", type=_number(1, _JOBS_MAX), default=1, metavar="N")
    _add_machine(seeded)
    seeded.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")

    commands.add_parser("bench", help="what the bench itself costs, as ratios")
    _add_conformance(commands)
    return top


def _add_machine(parser: argparse.ArgumentParser) -> None:
    """The options of everything that starts machines."""
    parser.add_argument("--qemu", type=Path, help="the qemu-system-aarch64 to use")
    parser.add_argument("--seed", type=_number(0, (1 << 64) - 1), default=1, metavar="S")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the run directories in DIR")


def _add_conformance(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bare = commands.add_parser(
        "conformance", help="check the PE itself with a bare-metal program, report as KTAP"
    )
    bare.add_argument("names", nargs="*", metavar="NAME", help="groups or tests; default: all")
    bare.add_argument("--mode", choices=[str(mode) for mode in Mode], default=str(Mode.PARALLEL))
    bare.add_argument(
        "--smp",
        type=_number(1, SMP_MAX),
        default=conformance.SMP_DEFAULT,
        metavar="N",
        help="PEs of the machine",
    )
    bare.add_argument(
        "--choices",
        default="",
        metavar="best|worst|random|NAME=VALUE[,..]",
        help="what the PEs do where the architecture leaves it open; the program is told",
    )
    bare.add_argument(
        "--inject",
        metavar="WHAT[,KEY=VALUE..]",
        help="what is to go wrong in the tests of the group inject, which are told",
    )
    _add_machine(bare)
    bare.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = None  # or what it still holds would fail again at our end
        raise InfrastructureError(f"cannot write the output: {error.strerror}") from error


def _doctor(progress: Progress) -> int:
    checks = examine(session.cache())
    for check in checks:
        _say(str(check))
    return (
        Exit.AGREE
        if all(check.good or not check.needed for check in checks)
        else Exit.INFRASTRUCTURE
    )


def _list() -> int:
    for scenario in SCENARIOS:
        _say(f"{scenario.name}\n    for:     {scenario.purpose}\n    catches: {scenario.catches}")
    return Exit.AGREE


def _build(args: argparse.Namespace, progress: Progress) -> int:
    for name, path in session.build(args.part, progress):
        _say(f"{name}: {path}")
    return Exit.AGREE


def _choice(args: argparse.Namespace) -> session.Choice:
    return session.Choice(
        kernel=args.kernel,
        vmlinux=args.vmlinux,
        linux=args.linux,
        debug=args.debug,
        uapi=args.uapi,
        qemu=args.qemu,
        mode=Mode(args.mode),
        seed=int(args.seed),
        keep=args.keep,
        flush_symbol=args.flush_symbol,
        small=args.small,
        choices=args.choices,
        inject=tuple(args.inject),
        bug=args.bug,
    )


def _shell(args: argparse.Namespace, progress: Progress) -> int:
    scenarios = select([args.name])
    if len(scenarios) > 1:
        raise UsageError(f"{args.name} names {len(scenarios)} scenarios: hdbss shell takes one")
    prepared = session.prepare(_choice(args), progress)
    run_shell(prepared, scenarios[0], args.stop_at, progress)
    return Exit.AGREE


def _run(args: argparse.Namespace, progress: Progress) -> int:
    scenarios = select(args.names)
    choice = _choice(args)
    if args.json is not None and not args.dry_run:
        # A path that cannot be written is told first; until the end it says "not complete".
        json_report.write(args.json, [], Exit.INFRASTRUCTURE, complete=False)
    prepared = session.prepare(choice, progress, boots=not args.dry_run)
    require_holds(prepared, scenarios)
    if args.dry_run:
        for scenario in scenarios:
            _say(f"# {scenario.name}\n{dry_run(prepared, scenario)}")
        return Exit.AGREE

    def finished(result: Result) -> None:
        progress.done()
        _say(text.line(result))

    results = run_scenarios(prepared, scenarios, int(args.jobs), progress, finished)
    progress.done()
    return _report(results, args.json)


def _report(results: Sequence[Result], json_file: Path | None) -> int:
    _say("")
    _say(text.table(results))
    for result in results:
        if result.verdict not in ("agree", "skipped"):
            _say("")
            _say(text.block(result))
    _say("")
    for reason in text.reasons(results):
        _say(reason)
    _say(text.summary(results))
    code = exit_code(results)
    if json_file is not None:
        json_report.write(json_file, results, code)
    return code


def _bugs(args: argparse.Namespace, progress: Progress) -> int:
    chosen = bugs.select(args.names)
    if args.list:
        for bug in chosen:
            _say(f"{bug.name}: {bug.wrong}")
        return Exit.AGREE
    if args.json is not None:
        bugs_report.write(args.json, [], [], Exit.INFRASTRUCTURE, complete=False)
    base = session.Choice(qemu=args.qemu, seed=int(args.seed), keep=args.keep)
    jobs = int(args.jobs)

    def prepare(name: str, attempt: bugs.Attempt) -> Bench:
        keep = None if base.keep is None else base.keep / name
        choice = replace(base, bug=name, mode=attempt.mode, choices=attempt.choices, keep=keep)
        return session.prepare(choice, progress)

    def found(hunt: Hunt) -> None:
        progress.done()
        _say(bugs_report.line(hunt))

    def ran(result: Result) -> None:
        progress.done()
        _say(f"without a bug: {text.line(result)}")

    session.prepare(
        replace(base, bug=bugs.NONE), progress
    )  # builds what is to be built, once and in sight
    hunts = hunt_all(chosen, prepare, jobs, progress, found)
    controls = control(hunts, prepare, jobs, progress, ran)
    progress.done()
    _say(f"\n{bugs_report.table(hunts)}")
    missed = [run for hunt in hunts if hunt.found is None for run in hunt.runs]
    for result in (*missed, *controls):
        if result.verdict not in ("agree", "skipped"):
            _say(f"\n{text.block(result)}")
    _say(f"\n{bugs_report.score(hunts, controls)}")
    code = hunt_code(hunts, controls)
    if args.json is not None:
        bugs_report.write(args.json, hunts, controls, code)
    return code


def _compare(args: argparse.Namespace) -> int:
    reference, other = load(args.against), load(args.run_dir)
    equivalence.require_same_program(reference, other)
    verdicts = judge(reference), judge(other)
    comparison = equivalence.compare(reference, other)
    _say(
        difference.block(
            comparison,
            (args.against, reference, verdicts[0]),
            (args.run_dir, other, verdicts[1]),
        )
    )
    return Exit.DIVERGENCE if comparison.difference else Exit.AGREE


def _check(args: argparse.Namespace) -> int:
    if args.against is not None:
        return _compare(args)
    run = load(args.run_dir)
    verdict = judge(run)
    about = run.about
    result = Result(
        scenario=about.scenario,
        mode=about.mode,
        seed=about.seed,
        seconds=about.seconds,
        command=about.command,
        figures=verdict.figures,
        divergences=verdict.divergences,
        unchecked=verdict.skipped,
        kernel=about.kernel,
        directory=str(args.run_dir),
    )
    return _report([result], None)


def _conformance(args: argparse.Namespace, progress: Progress) -> int:
    request = conformance.Request(
        names=tuple(args.names),
        mode=Mode(args.mode),
        smp=int(args.smp),
        seed=int(args.seed),
        choices=args.choices,
        inject=args.inject,
        qemu=args.qemu,
        json=args.json,
        keep=args.keep,
    )
    return conformance.run(request, session.cache(), progress, _say)


def _dispatch(args: argparse.Namespace, progress: Progress) -> int:
    match args.command:
        case "doctor":
            return _doctor(progress)
        case "list":
            return _list()
        case "build":
            return _build(args, progress)
        case "run":
            return _run(args, progress)
        case "shell":
            return _shell(args, progress)
        case "check":
            return _check(args)
        case "conformance":
            return _conformance(args, progress)
        case "bugs":
            return _bugs(args, progress)
        case _:
            return bench.run(progress, _say)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hdbss`` and return its exit code."""
    args = parser().parse_args(argv)
    interrupt_on_signals()
    progress = progress_for(sys.stderr)
    code: int = Exit.BUG
    try:
        return _dispatch(args, progress)
    except UsageError as error:
        code, message = Exit.USAGE, str(error)
    except InfrastructureError as error:
        code, message = Exit.INFRASTRUCTURE, str(error)
    except Unsupported as error:
        code, message = Exit.UNSUPPORTED, str(error)
    except KeyboardInterrupt:
        code, message = Exit.INTERRUPTED, "interrupted; nothing is left running"
    except BrokenPipeError:
        # Whoever read our output has had enough: fine for a list, but no verdict.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if args.command in ("list", "doctor") or getattr(args, "list", False):
            return Exit.AGREE
        code, message = Exit.INFRASTRUCTURE, "nobody reads the output; stopped without a verdict"
    except Exception:
        traceback.print_exc()
        message = "this is a bug of hdbss itself; please report the lines above"
    finally:
        progress.done()
    print(f"hdbss: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
