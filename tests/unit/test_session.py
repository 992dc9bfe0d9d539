# SPDX-License-Identifier: GPL-2.0-or-later
"""What was asked for: options that repeat it, options that exclude each other, the interface."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model import session
from qemu_model.cli import parser
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine import images
from qemu_model.machine.command import KernelImage, Mode
from qemu_model.machine.progress import Progress, SilentProgress
from qemu_model.machine.qemu import NoPluginQemu, Qemu
from qemu_model.machine.vm import Limits
from qemu_model.runner import Bench
from qemu_model.scenarios.scenario import Uapi
from qemu_model.session import Choice, prepare
from tests.unit.vmlinux.kernel_like import image_of
from tests.unit.vmlinux.test_layout import kernel

QEMU = Qemu(("qemu",), "11.1.3", 7, "test")
FOREIGN = Choice(kernel=Path("/k/Image"))


class Lines(SilentProgress):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def line(self, text: str) -> None:
        self.texts.append(text)


class House:
    """Everything that ``prepare`` finds or makes; ``asked`` says what it was asked for."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "cache" / "hdbss"
        self.asked: list[object] = []
        self.cap: int | None = None
        """The number in the headers of the kernel, where there are headers."""
        self.probed = Uapi("none")
        self.probes: list[Bench] = []
        self.boots: list[Bench] = []

    def kernel(self, cache: object, progress: object, variant: str) -> KernelImage:
        self.asked.append(variant)
        return KernelImage(Path("/cache/Image"), None, self.cap, variant)

    def foreign(self, image: Path, vmlinux: Path | None) -> KernelImage:
        self.asked.append((image, vmlinux))
        return KernelImage(image, vmlinux, None, "foreign")

    def tree(self, tree: Path) -> KernelImage:
        self.asked.append(tree)
        return KernelImage(tree / "Image", None, self.cap, "tree")

    def qemu(self, cache: object, progress: object, given: Path | None = None) -> Qemu:
        self.asked.append(given)
        return QEMU

    def probe(self, bench: Bench, progress: Progress) -> Uapi:
        self.probes.append(bench)
        return self.probed

    def boot(self, bench: Bench, progress: Progress) -> None:
        self.boots.append(bench)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "kernel", made.kernel)
    monkeypatch.setattr(images, "foreign_kernel", made.foreign)
    monkeypatch.setattr(images, "kernel_from_tree", made.tree)
    monkeypatch.setattr(images, "agent", lambda cache, progress: Path("/cache/agent"))
    monkeypatch.setattr(images, "plugin", lambda cache, progress: Path("/cache/plugin"))
    monkeypatch.setattr(session, "find_qemu", made.qemu)
    monkeypatch.setattr(session, "given_qemu", lambda path, plugins: QEMU)
    monkeypatch.setattr(session, "probe_uapi", made.probe)
    monkeypatch.setattr(session, "require_boots", made.boot)
    return made


class Bare(House):
    """A host on which no QEMU with plugins is found; ``installed`` is what there is instead."""

    installed = Qemu(("old-qemu",), "7.2.22", None, "PATH")

    def no_qemu(self, cache: object, progress: object, given: Path | None = None) -> Qemu:
        raise NoPluginQemu("no QEMU with plugin API 7, and none can be fetched")

    def any_qemu(self, cache: object, progress: object, given: Path | None = None) -> Qemu:
        self.asked.append(("any", given))
        return self.installed

    def no_plugin(self, cache: object, progress: object) -> Path:
        raise InfrastructureError("missing on this host: glib-2.0")

    def kernel(self, cache: object, progress: object, variant: str) -> KernelImage:
        return replace(super().kernel(cache, progress, variant), vmlinux=Path("/cache/vmlinux"))

    def require_gdb(self, kernel: KernelImage, agent: Path) -> None:
        self.asked.append(("gdb", kernel.image))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bare:
    made = Bare(tmp_path)
    made.cap = 239
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "kernel", made.kernel)
    monkeypatch.setattr(images, "foreign_kernel", made.foreign)
    monkeypatch.setattr(images, "agent", lambda cache, progress: Path("/cache/agent"))
    monkeypatch.setattr(images, "plugin", made.no_plugin)
    monkeypatch.setattr(session, "find_qemu", made.no_qemu)
    monkeypatch.setattr(session, "given_qemu", lambda path, plugins: made.installed)
    monkeypatch.setattr(session, "find_any_qemu", made.any_qemu)
    monkeypatch.setattr(session, "installed_any_qemu", lambda: made.installed)
    monkeypatch.setattr(session, "find_gdb", lambda: "gdb-multiarch")
    monkeypatch.setattr(session, "require_gdb", made.require_gdb)
    return made


def uapi_of(choice: Choice) -> Uapi:
    return prepare(choice, SilentProgress()).uapi


# --- flushes ------------------------------------------------------------------


def test_without_a_vmlinux_nobody_watches(house: House) -> None:
    bench = prepare(FOREIGN, SilentProgress())
    assert (bench.flushes, bench.unwatched) == (None, "no vmlinux was given")
    with pytest.raises(UsageError, match="give --vmlinux"):
        prepare(replace(FOREIGN, flush_symbol="drain"), SilentProgress())


def test_a_vmlinux_that_cannot_serve_is_told(house: House, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"nonsense")
    choice = replace(FOREIGN, vmlinux=tmp_path / "vmlinux", uapi="none")
    bench = prepare(choice, SilentProgress())
    assert bench.flushes is None and "vmlinux" in bench.unwatched
    with pytest.raises(UsageError, match="vmlinux"):
        prepare(replace(choice, flush_symbol="drain"), SilentProgress())


def test_a_vmlinux_that_serves(house: House, tmp_path: Path) -> None:
    vmlinux = kernel(tmp_path)
    choice = Choice(kernel=image_of(vmlinux), vmlinux=vmlinux, uapi="none")
    bench = prepare(choice, SilentProgress())
    assert bench.flushes is not None and bench.unwatched == ""
    assert (bench.flushes.symbol, bench.flushes.returns) == (None, ())
    named = prepare(replace(choice, flush_symbol="drain"), SilentProgress()).flushes
    assert named is not None and named.symbol == "drain" and len(named.returns) == 2
    with pytest.raises(UsageError, match=r"--flush-symbol nothing: .* no such symbol"):
        prepare(replace(choice, flush_symbol="nothing"), SilentProgress())


# --- options ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        (Choice(), ""),
        (Choice(mode=Mode.DETERMINISTIC, seed=9, keep=Path("/keep")), ""),
        (Choice(debug=True), " --debug"),
        (Choice(bug="last-entry"), " --bug last-entry"),
        (Choice(uapi="cap:300"), " --uapi cap:300"),
        (Choice(kernel=Path("/a b/Image")), " --kernel '/a b/Image'"),
        (Choice(linux=Path("linux"), uapi="cap"), " --linux linux --uapi cap"),
        (Choice(debug=True, flush_symbol="drain"), " --debug --flush-symbol drain"),
        (Choice(inject=("fill", "abort,pe=1")), " --inject fill --inject abort,pe=1"),
        (Choice(choices="zero_ahead=8,gpf=precise"), " --choices zero_ahead=8,gpf=precise"),
        (
            Choice(kernel=Path("/I"), vmlinux=Path("/v"), qemu=Path("/q"), uapi="none"),
            " --kernel /I --vmlinux /v --qemu /q --uapi none",
        ),
    ],
)
def test_the_options_repeat_the_choice(choice: Choice, options: str) -> None:
    assert choice.options == options
    args = parser().parse_args(["run", *shlex.split(options)])
    again = Choice(args.kernel, args.vmlinux, args.linux, args.debug, args.uapi, args.qemu)
    again = replace(
        again,
        flush_symbol=args.flush_symbol,
        choices=args.choices,
        bug=args.bug,
        inject=tuple(args.inject),
    )
    # How it is run is not part of what is run; ``Bench.repeat`` adds mode and seed.
    assert again == replace(choice, mode=Mode.PARALLEL, seed=1, keep=None)


@pytest.mark.parametrize(
    "choice",
    [
        Choice(kernel=Path("/I"), linux=Path("/l")),
        Choice(kernel=Path("/I"), debug=True),
        Choice(kernel=Path("/I"), bug="none"),
        Choice(debug=True, bug="last-entry"),
        Choice(linux=Path("/l"), debug=True),
        Choice(kernel=Path("/I"), linux=Path("/l"), debug=True),
    ],
)
def test_two_kernels_at_once(house: House, choice: Choice) -> None:
    with pytest.raises(UsageError, match="--kernel, --linux, --debug and --bug exclude each other"):
        prepare(choice, SilentProgress())
    assert house.asked == []  # nothing is built for a wrong command line


@pytest.mark.parametrize("choice", [Choice(), Choice(debug=True), Choice(linux=Path("/l"))])
def test_a_vmlinux_without_its_kernel(house: House, choice: Choice) -> None:
    with pytest.raises(UsageError, match="--vmlinux goes with --kernel"):
        prepare(replace(choice, vmlinux=Path("/v")), SilentProgress())
    assert house.asked == []


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        (Choice(), ["default", None]),
        (Choice(debug=True), ["debug", None]),
        (Choice(bug="last-entry"), ["bugs", None]),
        (Choice(linux=Path("/l")), [Path("/l"), None]),
        (Choice(kernel=Path("/I")), [(Path("/I"), None), None]),
        (
            Choice(kernel=Path("/I"), vmlinux=Path("/v"), qemu=Path("/q")),
            [(Path("/I"), Path("/v")), Path("/q")],
        ),
    ],
)
def test_the_kernel_and_the_qemu_that_were_chosen(
    house: House, choice: Choice, asked: list[object]
) -> None:
    bench = prepare(choice, SilentProgress())
    assert house.asked == asked and bench.qemu == QEMU
    assert (bench.agent, bench.plugin) == (Path("/cache/agent"), Path("/cache/plugin"))


def test_everything_else_goes_into_the_bench(house: House) -> None:
    house.cap = 239
    choice = Choice(mode=Mode.DETERMINISTIC, seed=9, keep=Path("/keep"))
    bench = prepare(choice, SilentProgress())
    assert (bench.mode, bench.seed, bench.keep) == (Mode.DETERMINISTIC, 9, Path("/keep"))
    assert bench.runs == house.root / "runs" and bench.command == ""
    assert bench.repeat("x") == "hdbss run x --mode deterministic --seed 9"


@pytest.mark.parametrize("name", ["last-entry", "none"])
def test_a_seeded_bug_is_on_the_kernels_command_line(house: House, name: str) -> None:
    bench = prepare(Choice(bug=name), SilentProgress())
    assert bench.kernel.cmdline == (f"hdbss.bug={name}",)
    assert bench.kernel.description.endswith(f"hdbss.bug={name}")
    assert bench.command == f" --bug {name}" and bench.limits == Limits()


def test_a_bug_that_nobody_has_seeded(house: House) -> None:
    with pytest.raises(UsageError, match="no seeded bug is called 'first-entry'"):
        prepare(Choice(bug="first-entry"), SilentProgress())
    assert house.asked == []


@pytest.mark.parametrize(
    "choice", [Choice(debug=True), Choice(kernel=Path("/I")), Choice(linux=Path("/l"))]
)
def test_kernels_that_may_be_slow_get_more_time(house: House, choice: Choice) -> None:
    ours = prepare(Choice(), SilentProgress()).limits
    patient = prepare(choice, SilentProgress()).limits
    assert ours == Limits()
    assert patient.boot > ours.boot and patient.stall > ours.stall and patient.total > ours.total


# --- how the kernel's HDBSS is driven -----------------------------------------


@pytest.mark.parametrize("style", ["auto", "none"])
def test_a_style_that_was_given_is_not_doubted(house: House, style: str) -> None:
    house.cap = 239
    assert uapi_of(Choice(uapi=style)) == Uapi(style)
    assert house.boots == []
    assert uapi_of(replace(FOREIGN, uapi=style)) == Uapi(style)
    assert house.probes == [] and len(house.boots) == 1
    prepare(replace(FOREIGN, uapi=style), SilentProgress(), boots=False)
    assert len(house.boots) == 1


@pytest.mark.parametrize("number", [1, 241, 999_999_999])
def test_a_number_that_was_given_outweighs_the_header(house: House, number: int) -> None:
    house.cap = 239
    assert uapi_of(Choice(uapi=f"cap:{number}")) == Uapi("cap", number)
    assert uapi_of(replace(FOREIGN, uapi=f"cap:{number}")) == Uapi("cap", number)
    assert house.probes == [] and len(house.boots) == 1


@pytest.mark.parametrize("uapi", [None, "cap"])
@pytest.mark.parametrize("choice", [Choice(), Choice(linux=Path("/l"))])
def test_the_number_in_the_header(house: House, choice: Choice, uapi: str | None) -> None:
    house.cap = 239
    assert uapi_of(replace(choice, uapi=uapi)) == Uapi("cap", 239)
    assert house.probes == []


@pytest.mark.parametrize("found", [Uapi("cap", 241), Uapi("auto"), Uapi("none")])
@pytest.mark.parametrize("choice", [FOREIGN, Choice(linux=Path("/l"))])
def test_otherwise_the_kernel_is_asked(house: House, choice: Choice, found: Uapi) -> None:
    house.probed = found
    lines = Lines()
    bench = prepare(choice, lines)
    assert bench.uapi == found and len(house.probes) == 1
    assert house.probes[0] == replace(bench, uapi=Uapi("none"))
    assert lines.texts == [f"the kernel's HDBSS is driven by --uapi {found}"]


def test_cap_without_a_number_is_found_out(house: House) -> None:
    house.probed = Uapi("cap", 241)
    assert uapi_of(replace(FOREIGN, uapi="cap")) == Uapi("cap", 241)


@pytest.mark.parametrize("found", ["auto", "none"])
def test_cap_where_the_kernel_has_none(house: House, found: str) -> None:
    house.probed = Uapi(found)
    with pytest.raises(UsageError, match="offers no capability"):
        uapi_of(replace(FOREIGN, uapi="cap"))
    assert uapi_of(FOREIGN) == Uapi(found)


@pytest.mark.parametrize("uapi", [Uapi("cap", 241), Uapi("auto"), Uapi("none")])
def test_what_was_found_can_be_given(house: House, uapi: Uapi) -> None:
    assert uapi_of(replace(FOREIGN, uapi=str(uapi))) == uapi


# --- build --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("all", ["qemu", "plugin", "agent", "kernel"]),
        ("qemu", ["qemu"]),
        ("plugin", ["plugin"]),
        ("agent", ["agent"]),
        ("kernel", ["kernel"]),
        ("debug-kernel", ["debug-kernel"]),
    ],
)
def test_parts_are_built_one_by_one(house: House, part: str, names: list[str]) -> None:
    assert [name for name, _ in session.build(part, SilentProgress())] == names
    assert ("debug" in house.asked) == (part == "debug-kernel")
    assert ("default" in house.asked) == ("kernel" in names)


# --- gdb mode, asked for and as the way out -----------------------------------


def test_gdb_mode_needs_no_plugin(bare: Bare) -> None:
    bench = prepare(Choice(mode=Mode.GDB, qemu=Path("/q")), SilentProgress())
    assert (bench.qemu, bench.mode, bench.plugin) == (bare.installed, Mode.GDB, None)
    assert bench.small and "--mode gdb" in bench.repeat("x")
    assert bare.asked == ["default", ("any", Path("/q")), ("gdb", Path("/cache/Image"))]


def test_a_dry_run_in_gdb_mode_needs_no_gdb(bare: Bare) -> None:
    bench = prepare(Choice(mode=Mode.GDB), SilentProgress(), boots=False)
    assert bench.mode is Mode.GDB and ("gdb", Path("/cache/Image")) not in bare.asked


@pytest.mark.parametrize("boots", [True, False])
def test_gdb_mode_for_a_kernel_without_vmlinux(bare: Bare, boots: bool) -> None:
    with pytest.raises(UsageError, match="--mode gdb needs the vmlinux of /k/Image"):
        prepare(replace(FOREIGN, mode=Mode.GDB), SilentProgress(), boots)
    assert bare.asked == [(Path("/k/Image"), None)]


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.DETERMINISTIC])
def test_without_a_fitting_qemu_it_goes_on_in_gdb_mode(bare: Bare, mode: Mode) -> None:
    lines = Lines()
    bench = prepare(Choice(mode=mode), lines)
    assert (bench.qemu, bench.mode, bench.plugin) == (bare.installed, Mode.GDB, None)
    assert bench.small and bench.repeat("x").startswith("hdbss run x --mode gdb ")
    assert ("gdb", Path("/cache/Image")) in bare.asked
    (line,) = lines.texts
    assert line == (
        "no QEMU with plugin API 7, and none can be fetched; "
        "going on with --mode gdb on QEMU 7.2.22, which is slower"
    )


@pytest.mark.parametrize("missing", ["find_gdb", "installed_any_qemu"])
def test_where_there_is_no_way_out(
    bare: Bare, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def none() -> str:
        raise InfrastructureError("there is none")

    monkeypatch.setattr(session, missing, none)
    with pytest.raises(InfrastructureError) as caught:
        prepare(Choice(), SilentProgress())
    assert str(caught.value) == (
        "no QEMU with plugin API 7, and none can be fetched; or, for --mode gdb, which is "
        "slower: apt-get install gdb-multiarch qemu-system-arm"
    )


def test_the_way_out_needs_a_vmlinux(bare: Bare) -> None:
    with pytest.raises(InfrastructureError, match=r"for --mode gdb, .*: give --vmlinux"):
        prepare(FOREIGN, SilentProgress())


def test_what_was_asked_for_by_name_is_not_replaced(
    bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misfit(cache: object, progress: object, given: Path | None = None) -> Qemu:
        raise InfrastructureError("/q is QEMU 7.2.22 with plugin API 1")

    monkeypatch.setattr(session, "find_qemu", misfit)
    with pytest.raises(InfrastructureError, match="plugin API 1"):
        prepare(Choice(qemu=Path("/q")), SilentProgress())


def test_all_is_built_but_the_plugin(bare: Bare) -> None:
    lines = Lines()
    built = dict(session.build("all", lines))
    assert list(built) == ["qemu", "agent", "kernel"] and built["qemu"] == Path("old-qemu")
    assert "going on with --mode gdb" in lines.texts[0]
    with pytest.raises(NoPluginQemu):
        list(session.build("qemu", SilentProgress()))


def test_choices_that_are_none_are_told_before_anything_is_built() -> None:
    with pytest.raises(UsageError, match="--choices 'wurst'"):
        prepare(Choice(choices="wurst"), SilentProgress())


def test_injections_that_are_none_are_told_before_anything_is_built() -> None:
    with pytest.raises(UsageError, match="--inject abord"):
        prepare(Choice(inject=("abord",)), SilentProgress())
    with pytest.raises(UsageError, match="17 injections"):
        prepare(Choice(inject=("fill",) * 17), SilentProgress())


@pytest.mark.parametrize("mode", list(Mode))
def test_a_qemu_that_does_not_fit_is_told_before_anything_is_built(
    house: House, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    def misfit(path: Path, plugins: bool) -> Qemu:
        assert plugins == (mode is not Mode.GDB)
        raise UsageError(f"--qemu {path}: no such file")

    monkeypatch.setattr(session, "given_qemu", misfit)
    with pytest.raises(UsageError, match="--qemu /q"):
        prepare(Choice(mode=mode, qemu=Path("/q")), SilentProgress())
    assert house.asked == []
