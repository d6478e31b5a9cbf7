#!/usr/bin/env bash
# Passes all tests, on a machine that has Rust and nothing else: the embedded store is built in, so nothing is
# installed yet. What later tests need (Redis, PostgreSQL) is installed here when it is missing.
# Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
command -v cc >/dev/null || {
  echo "installing a C compiler, which the embedded SQLite is built with" >&2
  if [ "$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq gcc libc6-dev >/dev/null
  else sudo apt-get update -qq && sudo apt-get install -y -qq gcc libc6-dev >/dev/null; fi
}

exec cargo test "$@"
