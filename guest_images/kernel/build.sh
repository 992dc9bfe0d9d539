#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Build the kernel under test.
#
#   build.sh SOURCE_TARBALL PATCH_DIR OUT_DIR [FRAGMENT...]
#
# SOURCE_TARBALL  linux-source-*.tar.xz with one top directory
# PATCH_DIR       *.patch in it are applied in the order of their names; where src/
#                 has the first of them already, the others are applied to it
# OUT_DIR         src/, obj/ (the object directory, make's O=) and the results:
#                 Image, vmlinux, kvm-cap (number of the HDBSS capability, 0 if
#                 the tree has none), build.log
# FRAGMENT        added to `config` beside this script, e.g. debug.config
#
# Environment: CROSS_COMPILE (aarch64-linux-gnu- unless on arm64), JOBS (all
# CPUs), ARCH (arm64, nothing else). Progress goes to stdout, a line per step;
# what was wrong goes to stderr, in one line. May be interrupted and repeated.

set -euo pipefail
export LC_ALL=C
# What a kernel developer's shell may have for his own kernels. Ours is cached by what it is
# made from, and that is not part of it.
unset "${!KBUILD_@}" "${!KCONFIG_@}" "${!LLVM@}" LOCALVERSION K{C,A,CPP}FLAGS {C,A}FLAGS_KERNEL
unset MAKEFLAGS GNUMAKEFLAGS MAKEFILES

readonly CAP=KVM_CAP_ARM_HW_DIRTY_STATE_TRACK
readonly PACKAGES="gcc-aarch64-linux-gnu make flex bison bc xz-utils patch"

# Most files of a tree, and most of its bytes, which no KVM host under QEMU is built
# from. What Kconfig and make themselves read stays.
readonly UNREAD=(
	'*/drivers/'{accel,ata,comedi,crypto,gpu,hid,hwmon,i2c,iio,infiniband,input,md}'/*.[ch]'
	'*/drivers/'{media,mfd,mmc,mtd,net,phy,pinctrl,scsi,spi,staging,usb,video}'/*.[ch]'
	'*/fs/'{bcachefs,btrfs,ceph,ext4,f2fs,nfs,nfsd,nls,ntfs3,ocfs2,smb,xfs}'/*.[ch]'
	'*/arch/'{alpha,arc,loongarch,m68k,mips,parisc,powerpc,riscv,s390,sh,sparc,x86}'/*.[chS]'
	'*/net/*.c' '*/sound/*.c' '*/boot/dts/*.dts*' '*/Documentation/'{[A-Zb-u],admin}'*/*'
	'*/tools/testing/*' '*/tools/perf/*'
)

die()
{
	echo "kernel: $*" >&2
	exit 1
}

say()
{
	echo "kernel: $*"
}

[ $# -ge 3 ] || die "usage: build.sh SOURCE_TARBALL PATCH_DIR OUT_DIR [FRAGMENT...]"
[ -f "$1" ] || die "no source tarball $1 (Debian: apt-get install linux-source-6.12)"
[ -d "$2" ] || die "no patch directory $2"
[ "${ARCH:-arm64}" = arm64 ] || die "ARCH=$ARCH is not supported, only arm64"

here=$(dirname "$(realpath "$0")")
tarball=$(realpath "$1")
patch_dir=$(realpath "$2")
mkdir -p "$3"
out=$(realpath "$3")
shift 3

src=$out/src
obj=$out/obj
log=$out/build.log
jobs=${JOBS:-$(nproc)}

fragments=("$here/config")
for fragment in "$@"; do
	[ -f "$fragment" ] || die "no config fragment $fragment"
	[ "$fragment" -ef "$here/config" ] || fragments+=("$(realpath "$fragment")")
done

cross=${CROSS_COMPILE-aarch64-linux-gnu-}
if [ -z "${CROSS_COMPILE+set}" ] && [ "$(uname -m)" = aarch64 ]; then
	cross=
fi

for tool in "${cross}gcc" make flex bison bc xz patch; do
	command -v "$tool" >/dev/null ||
		die "$tool is missing (Debian: apt-get install $PACKAGES)"
done

exec 9>"$out/.lock"
flock -n 9 || die "another build is running in $out"
: >"$log"

# Run a command with its output in the log; if it fails, tell the reason.
logged()
{
	local what=$1 reason
	shift
	"$@" >>"$log" 2>&1 9>&- && return
	reason=$(grep -m1 -E '(error|Error|cannot|Cannot|No space left|FAILED)' "$log") || true
	die "$what failed: ${reason:-$(tail -n1 "$log")} (all of it: $log)"
}

# What costs much of the build time and nobody here reads is not made: where in a macro
# a warning comes from, in which register a local variable is at which instruction, and
# types and line numbers of what is not KVM. The code is the same. CFLAGS_ and the
# object, relative to its directory, is what Kbuild appends for one object. The programs of
# the build itself (kconfig, dtc, ...) take longer to optimise than they run.
readonly DESCRIBED=(
	CFLAGS_{arm,dirty_bit,guest,handle_exit,hdbss_bug,mmu,pgtable,switch}.o="-g -fno-var-tracking"
	CFLAGS_../../../virt/kvm/kvm_main.o="-g -fno-var-tracking"
)

kmake()
{
	make -C "$src" O="$obj" ARCH=arm64 CROSS_COMPILE="$cross" \
		KCFLAGS="-ftrack-macro-expansion=0 -g0" "${DESCRIBED[@]}" HOSTCFLAGS=-O0 \
		KBUILD_BUILD_TIMESTAMP="2026-01-01 00:00:00" \
		KBUILD_BUILD_USER=hdbss KBUILD_BUILD_HOST=bench KBUILD_BUILD_VERSION=1 "$@"
}

# --- source: complete in $src, or without the list of its parts --------------
shopt -s nullglob
patches=("$patch_dir"/*.patch)
# What src/ is made of: the checksums of the tarball and of each patch that is applied.
readonly parts=.hdbss-parts
sums=$(sha256sum "$tarball" "${patches[@]}" 2>>"$log") || die "$(tail -n1 "$log")"
mapfile -t wanted < <(cut -d' ' -f1 <<<"$sums")
present=()
[ ! -f "$src/$parts" ] || mapfile -t present <"$src/$parts"

if [ ${#present[@]} -gt 0 ] && [ "${present[*]}" = "${wanted[*]:0:${#present[@]}}" ]; then
	say "source is unpacked, with ${#present[@]} of ${#wanted[@]} parts"
else
	present=()
	# The list first: a tree that is half removed is not to be taken for a whole one.
	rm -f "$src/$parts"
	# Objects are made again only where a file is newer, and unpacked files are old.
	rm -rf "$src" "$src.partial" "$obj"
	mkdir "$src.partial"
	say "unpacking $(basename "$tarball")"
	XZ_OPT=-T0 logged unpacking tar -xf "$tarball" -C "$src.partial" \
		--strip-components=1 "${UNREAD[@]/#/--exclude=}"
	[ -f "$src.partial/Kconfig" ] || die "$tarball does not hold a kernel source tree"
	mv "$src.partial" "$src"
	present=("${wanted[0]}")
fi
if [ ${#present[@]} -lt ${#wanted[@]} ]; then
	# A tree with half of a patch is not to be taken for a whole one.
	rm -f "$src/$parts"
	for patch in "${patches[@]:${#present[@]}-1}"; do
		say "applying $(basename "$patch")"
		logged "$(basename "$patch")" \
			patch -d "$src" -p1 -F0 -s -N --no-backup-if-mismatch -i "$patch"
	done
fi
printf '%s\n' "${wanted[@]}" >"$src/$parts"

# --- configuration ----------------------------------------------------------
say "configuring"
mkdir -p "$obj"
cat "${fragments[@]}" >"$obj/fragments.config"
logged configuring kmake -j"$jobs" KCONFIG_ALLCONFIG="$obj/fragments.config" allnoconfig

lost=$(grep '^CONFIG_' "$obj/fragments.config" | grep -vxFf "$obj/.config" | tr '\n' ' ') || true
[ -z "$lost" ] || die "these options did not survive in $obj/.config: $lost"

# --- build -------------------------------------------------------------------
# A line for each 100 objects: the only sign of life for some minutes. Not by awk: mawk
# reads 4 KB of a pipe before it looks at them, which is as much as make says in a minute.
progress()
{
	local line n=0
	while IFS= read -r line; do
		printf '%s\n' "$line" >&8
		case $line in
		"  CC "* | "  AS "* | "  LD "* | "  AR "* | "  HOSTCC "*)
			n=$((n + 1))
			[ $((n % 100)) -ne 0 ] || say "$n objects"
			;;
		esac
	done 8>>"$log"
}

say "building with $jobs jobs"
SECONDS=0
if ! kmake -j"$jobs" Image vmlinux 2>&1 9>&- | progress; then
	die "the build failed: $(grep -m1 -E '(error:|Error |No space left)' "$log") (all of it: $log)"
fi

# --- results -------------------------------------------------------------------
publish()
{
	cp "$1" "$out/.$2.new"
	mv "$out/.$2.new" "$out/$2"
}

cap=$(awk -v name="$CAP" '$2 == name { print $3 }' "$src/include/uapi/linux/kvm.h")
echo "${cap:-0}" >"$obj/kvm-cap"
publish "$obj/kvm-cap" kvm-cap
publish "$obj/vmlinux" vmlinux
publish "$obj/arch/arm64/boot/Image" Image
say "done in $SECONDS s, $CAP is ${cap:-not in this tree}"
