#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Installs a build to an empty prefix, builds examples/ against it and runs what came out. Usage: run.sh BUILD CMAKE
set -euo pipefail
build=$1
cmake=$2
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "install test: $1" >&2
  exit 1
}

"$cmake" --install "$build" --prefix "$work/prefix" >/dev/null
# The package is asked for in the installed tree only, so nothing of the source tree can help out.
"$cmake" -S "$source/examples" -B "$work/examples" -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF
"$cmake" --build "$work/examples"
grep -q "kvist_DIR:PATH=$work/prefix" "$work/examples/CMakeCache.txt" || fail "another kvist was found"

said=$("$work/examples/hello_cache")
echo "$said"
[ "$(head -n 1 <<<"$said")" = "token 0 sees 1.0, token 1 sees 1.5, token 2 sees 2.0" ] || fail "wrong attention"
[ "$(tail -n 1 <<<"$said")" = "2 sequences in 1 block" ] || fail "the fork shares nothing"

said=$("$work/examples/own_policy")
echo "$said"
grep -q "^128 of 512 tokens are left, among them the needle; [1-9][0-9]* bytes are free$" <<<"$said" ||
  fail "a policy of one's own keeps the wrong tokens"

# README's C++ is what a reader copies first: it has to compile as it stands, in a function that has the tensors.
{
  echo '#include <kvist/cache.h>'
  echo 'kvist::Status Readme(std::span<const kvist::Token> tokens, const float* keys, const float* values,'
  echo '                     const float* queries, float* out) {'
  sed -n '/^```cpp$/,/^```$/p' "$source/README.md" | grep -v -e '^```' -e '^#include'
  echo '  return {}; }'
} >"$work/readme.cc"
[ "$(wc -l <"$work/readme.cc")" -gt 10 ] || fail "README has no C++ example"
c++ -std=c++23 -Wall -Wextra -Werror -Wno-unused-variable -I "$work/prefix/include" -c "$work/readme.cc" \
  -o "$work/readme.o" || fail "the C++ example of README.md does not compile"

# The same by pkg-config, as whoever has no CMake links.
pc=$(find "$work/prefix" -name kvist.pc)
export PKG_CONFIG_PATH=${pc%/kvist.pc} LD_LIBRARY_PATH=${pc%/pkgconfig/kvist.pc}
read -ra flags < <(pkg-config --cflags --libs kvist) || fail "pkg-config does not find kvist"
c++ -std=c++23 "$source/examples/hello_cache.cc" "${flags[@]}" -o "$work/by_pkg_config" ||
  fail "what pkg-config says does not link"
cmp -s <("$work/examples/hello_cache") <("$work/by_pkg_config") || fail "linked by pkg-config, the example differs"

if [ -x "$work/prefix/bin/kvist" ]; then  # there when the engine was built
  env -u LD_LIBRARY_PATH "$work/prefix/bin/kvist" --help >/dev/null || fail "the installed program does not start"
  if ldd "$work/prefix/bin/kvist" | grep -F "$source/"; then fail "the installed program needs the source tree"; fi
  [ -f "$work/prefix/share/kvist/models.py" ] || fail "models.py is not beside the program"
fi
