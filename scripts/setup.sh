#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Makes a machine ready to build Kvist: Debian packages for what is missing (as root; else it prints the command), and
# ggml in the project's own Python environment, .venv. Looks first and does only what is left to do, so it is quick the
# second time. GGML_DIR in the environment names a ggml of your own; then none is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

die() {
  printf 'setup: %s\n' "$1" >&2
  exit 1
}

# Not every program says that it failed for want of room.
is_disk_full() {
  [ "$(df --output=avail -k . | tail -n 1)" -lt 10240 ]
}

# Runs a command quietly. If it fails: the end of what it said, a sentence about the likely cause, and the end.
# $1: what is being done, for the sentence.
run() {
  local what=$1
  shift
  printf 'setup: %s\n' "$what"
  if "$@" >>"$log" 2>&1; then return; fi
  tail -n 3 "$log" >&2
  if grep -qi 'no space left\|not enough free space\|disk quota' "$log" || is_disk_full; then
    die "$what failed because the disk is full; make room (see df -h) and run the command again."
  elif grep -qiE 'resolving|resolve|unreachable|new connection|timed out|connection refused|proxyerror' "$log"; then
    die "$what failed because the network can't be reached; check the connection or the proxy settings and run the command again."
  elif grep -qi 'permission denied\|read-only file system\|are you root' "$log"; then
    die "$what failed for lack of permission (see the lines above); make $PWD writable for you and run the command again."
  fi
  die "$what failed (see the lines above); mend that and run the command again."
}

# --- Debian packages ---

# The packages whose programs, Python modules or headers are not here.
missing_packages() {
  command -v g++ >/dev/null || echo g++
  command -v cmake >/dev/null || echo cmake
  command -v ninja >/dev/null || echo ninja-build
  command -v git >/dev/null || echo git
  command -v clang-format >/dev/null || [ -z "${KVIST_SETUP_CI:-}" ] || echo clang-format
  # The tests start a server of their own; without it those of the Redis tier are skipped.
  command -v redis-server >/dev/null || [ -z "${KVIST_SETUP_TESTS:-}${KVIST_SETUP_CI:-}" ] || echo redis-server
  command -v pkg-config >/dev/null || [ -z "${KVIST_SETUP_TESTS:-}${KVIST_SETUP_CI:-}" ] || echo pkgconf
  python3 -c 'import venv, ensurepip' 2>/dev/null || printf '%s\n' python3 python3-venv
  local header_to_package=(
    xxhash.h libxxhash-dev
    sodium/crypto_generichash_blake2b.h libsodium-dev
    hiredis/hiredis.h libhiredis-dev
    pcre2.h libpcre2-dev
    CLI/CLI.hpp libcli11-dev
    nlohmann/json.hpp nlohmann-json3-dev
    doctest/doctest.h doctest-dev
  )
  if ! command -v g++ >/dev/null; then  # without a compiler there is no asking for headers
    printf '%s\n' "${header_to_package[@]}" | sed -n 'n;p'
    return
  fi
  local i
  for ((i = 0; i < ${#header_to_package[@]}; i += 2)); do
    printf '#if !__has_include(<%s>)\nmissing %s\n#endif\n' "${header_to_package[i]}" "${header_to_package[i + 1]}"
  done | g++ -E -P -x c++ - | sed -n 's/^missing //p'
}

install_packages() {
  if ! command -v apt-get >/dev/null; then
    die "this system has no apt-get; install what these Debian packages hold and run the command again: $*"
  elif [ "$(id -u)" -ne 0 ]; then
    die "some packages are missing; run this once, then the command again:
  sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
  fi
  export DEBIAN_FRONTEND=noninteractive
  echo "setup: reading Debian's package lists"
  # A list that can't be read may be of some other source; if it matters, the next step fails and the log tells why.
  apt-get update >>"$log" 2>&1 || true
  # Packages of services start them when they are installed, unless this file says no.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$log" /usr/sbin/policy-rc.d' EXIT
  fi
  run "installing $*" apt-get install -y --no-install-recommends "$@"
}

check_versions() {
  echo '__GNUC__' | g++ -E -P -x c++ - | awk '$1 < 12 { exit 1 }' ||
    die "Kvist needs g++ 12 or newer and this is $(g++ -dumpfullversion); install one and put it first in PATH."
  cmake --version | awk 'NR == 1 { split($3, v, "."); exit v[1] * 1000 + v[2] < 3025 }' ||
    die "Kvist needs CMake 3.25 or newer and this is $(cmake --version | head -n 1); install one and put it first in PATH."
}

# --- ggml, in .venv ---

# .venv is finished when it says which requirements it was made from: one that was interrupted says nothing.
setup_venv() {
  local stamp=.venv/kvist-requirements
  cmp -s scripts/requirements.txt "$stamp" && .venv/bin/python -c '' 2>/dev/null && return
  [ -w . ] || die "$PWD can't be written to by $(id -un); make it writable (chown -R, or another mount) and run the command again."
  rm -rf .venv
  run "making the Python environment .venv" python3 -m venv .venv
  run "fetching $(tr '\n' ' ' <scripts/requirements.txt)into .venv" \
    .venv/bin/python -m pip install --no-input --disable-pip-version-check -r scripts/requirements.txt
  cp scripts/requirements.txt "$stamp"
}

mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then
  install_packages "${missing[@]}"
fi
check_versions
if [ -z "${GGML_DIR:-}" ]; then setup_venv; fi
