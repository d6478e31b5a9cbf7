#!/usr/bin/env bash
# Passes all tests, on a machine that has Rust and nothing else: what they need besides (a C compiler, the PostgreSQL and
# Redis servers' programs, of which nothing has to run, and libfaketime) is installed when it is missing, on Debian and
# its kin.
# Arguments go to `cargo test`. Without any, the tests of durability, keys and catching up run on PostgreSQL too.
#
# tests/run.sh --damage 10m: does nothing but damage, again and again for so long, to optimised builds under more load than
# usual. Each damage is a line: what was done, what was lost (nothing), how long the sessions were without service. It
# ends with the first round that something is wrong in.
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

if [ "${1:-}" = --damage ]; then
  for_how_long=${2:-}
  [[ $for_how_long =~ ^([0-9]+)([smh])$ ]] || { echo "--damage: expected how long, such as 90s, 10m or 2h" >&2; exit 2; }
  declare -A unit=([s]=1 [m]=60 [h]=3600)
  end=$((SECONDS + BASH_REMATCH[1] * unit[${BASH_REMATCH[2]}]))
  export CONCLAVE_TEST_DAMAGE=long
  for ((round = 1; round == 1 || SECONDS < end; round++)); do
    echo "damage: round $round"
    cargo test --profile profiling --quiet --test it damage:: -- --test-threads=1
  done
  exit
fi

cargo test "$@"
[ $# -gt 0 ] || CONCLAVE_TEST_STORE=postgres cargo test --test it -- durability:: room_keys:: catching_up::
