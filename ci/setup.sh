# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Everything that a fresh Debian 12 or 13 machine lacks; sourced by demo, test and nightly.
# Packages need root or sudo, and only if one is missing; the rest lives in .venv and in
# the cache ($XDG_CACHE_HOME/hdbss).

# shellcheck disable=SC2034 # used by those who source this
PACKAGES=(
	# the kernel
	linux-source-6.12 gcc-aarch64-linux-gnu gcc make flex bison bc perl patch xz-utils
	# agent and plugin
	libc6-dev-arm64-cross libc6-dev libglib2.0-dev pkg-config
	# a fetched QEMU, and what is run here
	debian-archive-keyring python3 python3-venv ca-certificates
)
# --mode gdb and hdbss shell; the demo needs them only if no QEMU can be fetched
GDB_PACKAGES=(gdb-multiarch qemu-system-arm)
# shellcheck disable=SC2034
TEST_PACKAGES=(shellcheck clang "${GDB_PACKAGES[@]}")

say() {
	printf '%s\n' "$*" >&2
}

die() {
	say "$*"
	exit 3
}

missing_packages() {
	local package
	for package in "$@"; do
		if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
			printf '%s\n' "$package"
		fi
	done
}

install_packages() {
	command -v dpkg-query >/dev/null ||
		die "this is not a Debian-family system; install by hand: $*"
	local -a missing root=()
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${#missing[@]} Debian packages: ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null ||
			die "these packages are missing and there is no sudo; run as root: apt-get install ${missing[*]}"
		root=(sudo)
	fi
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update ||
		die "apt-get update failed; are the package lists of this machine reachable?"
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null ||
		die "apt-get could not install: ${missing[*]}"
}

# The first Python of at least 3.11; Debian 12 has 3.11.
find_python() {
	local python
	for python in python3 /usr/bin/python3; do
		if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then
			printf '%s\n' "$python"
			return 0
		fi
	done
	die "no Python of at least 3.11 with venv; install python3 and python3-venv"
}

# An editable install in .venv, renewed when pyproject.toml or the place has changed.
setup_venv() {
	local stamp python
	stamp="$PWD $(sha256sum pyproject.toml)"
	if [ -x .venv/bin/hdbss ] && .venv/bin/python -c '' 2>/dev/null &&
		[ "$(cat .venv/hdbss-stamp 2>/dev/null)" = "$stamp" ]; then
		return 0
	fi
	python=$(find_python)
	say "installing Python packages into .venv"
	rm -rf .venv
	"$python" -m venv .venv || die "python3 -m venv failed; install python3-venv"
	.venv/bin/pip install --quiet --quiet --disable-pip-version-check --editable ".[test]" ||
		die "pip could not install the project; is a package index reachable?"
	printf '%s\n' "$stamp" >.venv/hdbss-stamp
}
