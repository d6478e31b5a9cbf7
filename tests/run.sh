#!/usr/bin/env bash
# Passes all tests, on a machine that has Rust and nothing else: what they need besides (a C compiler, the PostgreSQL and
# Redis servers' programs, of which nothing has to run, and libfaketime) is installed when it is missing, on Debian and
# its kin.
# Arguments go to `cargo test`. Without any, the tests of durability, keys and catching up run on PostgreSQL too.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }

# need WHAT PACKAGE..: installs what the tests cannot do without.
need() {
  echo "installing $1" >&2
  local as=()
  [ "$(id -u)" = 0 ] || as=(sudo)
  "${as[@]}" apt-get update -qq && "${as[@]}" apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
}
command -v cc >/dev/null || need "a C compiler, which the embedded SQLite is built with" gcc libc6-dev
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null || need "PostgreSQL" postgresql
command -v redis-server >/dev/null || need "Redis" redis-server
compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null || need "libfaketime, for clocks that are wrong" libfaketime

cargo test "$@"
[ $# -gt 0 ] || CONCLAVE_TEST_STORE=postgres cargo test --test it -- durability:: room_keys:: catching_up::
