#!/usr/bin/env bash
# Builds the image and starts docker-compose.yml as operators do, then asks of it what it promises: a message from a
# node to another, limits by the clients' own addresses, a node replaced under load with nothing lost, metrics.
#
# Needs a Docker engine. Public images are pulled; where no registry answers, the stand-ins' maker is called, which
# lies beside the repository or where CONCLAVE_STAND_INS says. Everything is taken down again, whatever happens.
# CONCLAVE_BINARY names a node's program to put into the image instead of compiling one there, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

images=(rust:1-trixie debian:trixie-slim haproxy:3.0 redis:8 postgres:17 prom/prometheus:v2.53.3)
deadline=60

die() { echo "tests/compose.sh: $*" >&2; exit 1; }
step() { at="$*"; printf '%4ss  %s\n' "$SECONDS" "$at"; }

command -v docker >/dev/null && docker version >/dev/null 2>&1 ||
  die "no Docker engine answers, and this test is about containers: start one, or install docker"

work=$(mktemp -d)
log="$work/log"
export COMPOSE_PROJECT_NAME="conclave-test-$$"
export COMPOSE_FILE="$PWD/docker-compose.yml:$work/limits.yml" COMPOSE_ENV_FILES="$work/env"
export CONCLAVE_IMAGE="conclave-test:$$" CONCLAVE_PROFILE=dev CONCLAVE_LISTEN=127.0.0.1:0
export FRONT_NET="10.$((RANDOM % 56 + 200)).$((RANDOM % 256))"
# One crowd of silent connections fills this on every node while they may be silent, and the load does not.
limit=70
cat >"$work/limits.yml" <<LIMITS
services:
  node:
    environment:
      CONCLAVE__LIMITS__CONNECTIONS_PER_ADDRESS: "$limit"
      CONCLAVE__CONNECTIONS__AUTHENTICATE_WITHIN_S: "60"
LIMITS
quietly() { "$@" >>"$log" 2>&1; }

take_down() {
  local status=$?
  trap - EXIT
  if [ "$status" != 0 ]; then
    { echo "tests/compose.sh failed at: ${at:-the start}"; tail -n 30 "$log"; docker compose ps --all
      docker compose logs --tail 40 --no-color; } >&2 2>&1 || true
  fi
  jobs -pr | xargs -r kill 2>/dev/null || true
  docker compose --profile observability down --volumes --remove-orphans --timeout 30 >>"$log" 2>&1 || status=1
  docker image rm --force "$CONCLAVE_IMAGE" ${CONCLAVE_BUILT:+"$CONCLAVE_BUILT"} >>"$log" 2>&1 || true
  rm -rf "$work"
  exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT TERM

# Runs a command again until it succeeds.
until_true() {
  local until=$((SECONDS + deadline))
  while ! "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || die "waited for ${deadline}s in vain: $*"
    sleep 0.2
  done
}

container() { docker ps -q --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter "label=com.docker.compose.service=$1" ${2:+--filter "label=com.docker.compose.container-number=$2"}; }
address() { docker inspect -f "{{(index .NetworkSettings.Networks \"${COMPOSE_PROJECT_NAME}_$2\").IPAddress}}" "$1"; }
# GET, by bash alone: the whole answer.
get() { ( exec 3<>"/dev/tcp/$1/$2" && printf 'GET %s HTTP/1.0\r\n\r\n' "$3" >&3 && cat <&3 ); }
metric() { get "$1" 9090 /metrics | awk -v name="$2" '$1 == name {print $2}'; }

stand_ins() {
  local main
  main=$(git rev-parse --path-format=absolute --git-common-dir 2>/dev/null)/..
  for maker in "${CONCLAVE_STAND_INS:-}" ../shared/compose-images/make "$main/../shared/compose-images/make"; do
    [ -x "$maker" ] || continue
    quietly "$maker" || die "the stand-ins for the public images were not made"
    return
  done
  die "no registry answers, and no stand-ins for ${images[*]} are there (CONCLAVE_STAND_INS)"
}

declare -A typing
# A person at conclave-chat, connected to one node as long as it is at this address.
chat() {
  mkfifo "$work/$1.in"
  target/debug/conclave-chat --server "http://$2" --server "http://$balancer" --name "$1" --key-bits 2048 --home "$work/$1" \
    <"$work/$1.in" >"$work/$1.out" 2>>"$log" &
  exec {typing[$1]}>"$work/$1.in"
}
types() { printf '%s\n' "$2" >&"${typing[$1]}"; }
shows() { until_true grep --fixed-strings -- "$2" "$work/$1.out"; }

# Opens WebSockets at the balancer from a container of its own, each with another forged address; counts the answers.
crowd() {
  docker run --rm --network "${COMPOSE_PROJECT_NAME}_front" --entrypoint bash "$CONCLAVE_IMAGE" -c '
    for ((i = 0; i < '"$1"'; i++)); do
      exec {fd}<>"/dev/tcp/balancer/8080"
      printf "%s\r\n" "GET /v1/ws HTTP/1.1" "Host: balancer" "Connection: Upgrade" "Upgrade: websocket" \
        "Sec-WebSocket-Version: 13" "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" "Forwarded: for=198.51.100.$i" "" >&"$fd"
      read -r _ status _ <&"$fd"
      echo "$status"
    done' | sort | uniq -c | awk '{print $2 ":" $1}' | paste -sd " "
}

step "images"
for image in "${images[@]}"; do
  docker image inspect "$image" >/dev/null 2>&1 || quietly timeout 300 docker pull --quiet "$image" || { stand_ins; break; }
done
docker compose version >/dev/null 2>&1 || die "docker compose (version 2) is missing"

step "secrets"
quietly deploy/make-env "$work/env"
if quietly deploy/make-env "$work/env"; then die "deploy/make-env wrote over secrets that were there"; fi

step "the programs of clients"
quietly cargo build --bin conclave-chat --bin conclave-load

step "the nodes' image"
if [ -n "${CONCLAVE_BINARY:-}" ]; then
  install "$CONCLAVE_BINARY" "$work/conclave"
  export CONCLAVE_BUILT="conclave-test-built:$$"
  tar -C "$work" -c conclave | quietly docker import - "$CONCLAVE_BUILT"
fi
quietly docker compose build node

step "three nodes, a balancer, Redis, PostgreSQL and Prometheus"
quietly docker compose up --detach --no-build --wait --wait-timeout 120
quietly docker compose --profile observability up --detach --no-build --no-deps --wait prometheus
balancer=$(docker compose port balancer 8080)

step "an encrypted message from a client on node 1 to a client on node 3"
export CONCLAVE_CHAT_PASSWORD="correct horse battery" CONCLAVE_CHAT_PASSPHRASE="a passphrase"
chat ann "$(address "$(container node 1)" front):8080"
chat ben "$(address "$(container node 3)" front):8080"
shows ann connected
shows ben connected
types ann "/create the den"
shows ann "made the den, 🔒 end-to-end encrypted"
types ann "/invite ben"
shows ben "ann invites you"
types ben "/accept"
shows ann "ben came in"
types ann "words for one another only"
shows ben "🔒 ann: words for one another only"
types ben "and back"
shows ann "🔒 ben: and back"
docker exec "$(container postgres)" pg_dump --username=conclave conclave >"$work/dump"
grep --quiet "the den" "$work/dump" || die "the database does not have the session"
if grep --quiet "for one another" "$work/dump"; then die "the database has the text of an encrypted message"; fi

step "a backup is put back, and clients go on from it"
sql() { docker exec "$(container postgres)" psql --username=conclave --no-align --tuples-only --command="$1" conclave; }
# Twice by now: at first, and when the nodes were there again.
came_back() { [ "$(grep --count '^ *connected$' "$work/$1.out")" -ge 2 ]; }
docker exec "$(container postgres)" pg_dump --username=conclave --format=custom conclave >"$work/backup"
before=$(sql "SELECT count(*) FROM events")
types ann "too late for the backup"
shows ben "too late for the backup"
[ "$(sql "SELECT count(*) FROM events")" = $((before + 1)) ] || die "the message is not in the database"
quietly docker compose stop node
quietly docker exec "$(container postgres)" dropdb --username=conclave conclave
quietly docker exec "$(container postgres)" createdb --username=conclave conclave
quietly docker exec --interactive "$(container postgres)" pg_restore --username=conclave --dbname=conclave <"$work/backup"
quietly docker compose start node
until_true came_back ann
until_true came_back ben
[ "$(sql "SELECT count(*) FROM events")" = "$before" ] || die "the restored database has other messages than the backup"
# The number that the lost message had is given out again, and whoever has seen that message sees this one too.
types ann "words after the backup"
shows ben "🔒 ann: words after the backup"
types ben "read"
shows ann "🔒 ben: read"
types ann "/quit"
types ben "/quit"

step "limits hold for each client's own address, whatever it says of itself"
allowed=$((3 * limit))
answers=$(crowd $((allowed + 10)))
[ "$answers" = "101:$allowed 429:10" ] || die "expected $allowed connections and 10 refusals, got $answers"
get "${balancer%:*}" "${balancer#*:}" /v1/users | head -n 1 | grep --quiet " 401 " || die "another address is refused too"

step "node 2 is replaced under load, and nothing is lost"
# Whether the nodes have taken so many messages, all together.
taken() {
  local sum=0 node messages
  for node in $(container node); do
    messages=$(metric "$(address "$node" front)" 'conclave_commands_total{outcome="ok",type="send_msg"}')
    sum=$((sum + ${messages:-0}))
  done
  [ "$sum" -ge "$1" ]
}
target/debug/conclave-load rooms --url "ws://$balancer/v1/ws" --sessions 10 --members 6 --rate 60 --duration 20s \
  --expect-restarts --users "$work/users" >"$work/load" 2>&1 &
load=$!
until_true taken 100
quietly deploy/roll 2
kill -0 "$load" 2>/dev/null || die "the load ended before the node was replaced: $(cat "$work/load")"
wait "$load" || { cat "$work/load" >&2; die "the load was not borne without loss"; }
nodes=($(container node))
[ ${#nodes[@]} = 3 ] || die "expected 3 nodes, got ${#nodes[@]}"
# The balancer finds the new one by itself.
each_gets_some() {
  local node
  crowd 6
  for node in "${nodes[@]}"; do
    [ "$(metric "$(address "$node" front)" conclave_connections_opened_total)" -gt 0 ] || return
  done
}
until_true each_gets_some

step "Prometheus watches all nodes and takes the dashboard's queries"
ask() { docker exec "$(container prometheus)" promtool query instant http://localhost:9090 "$1" </dev/null; }
three_are_ready() { ask "sum(conclave_ready)" | grep --quiet "=> 3 "; }
until_true three_are_ready
queries=0
while IFS= read -r query; do
  quietly ask "$query" || die "Prometheus does not take $query"
  queries=$((queries + 1))
done < <(grep -o '"expr": "\([^"\\]\|\\.\)*"' deploy/grafana/dashboards/conclave.json |
  sed 's/^"expr": "//; s/"$//; s/\\"/"/g; s/\$__rate_interval/1m/g')
[ "$queries" -gt 40 ] || die "the dashboard's queries were not found"
docker exec "$(container prometheus)" promtool check rules /etc/prometheus/rules.yml >>"$log" 2>&1 || die "the alarms are wrong"

step "done"
