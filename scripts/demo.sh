# ./dev demo: what loopfast gives on this machine. First its own two processes (`loopfast demo`), then the
# real thing: Debian's redis-server and redis-benchmark, as packaged, without and with `loopfast run`.
#
# Kernel and loopfast alternate, three rounds; what is printed are the medians. A run is as many requests
# as fill about a second and a half, found by a short run before.
# shellcheck shell=bash

build_tree build -- loopfast loopfast_cli
loopfast=$PWD/build/loopfast
rounds=${DEMO_ROUNDS:-3}

say "loopfast demo"
"$loopfast" demo "$@"

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 10000))
        if port_is_free $port; then echo $port && return; fi
    done
    die "no free port between 20000 and 30000"
}

# start_server PORT [PREFIX...]
start_server() {
    local port=$1
    shift
    "$@" redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$work" \
        >"$work/redis.log" 2>&1 &
    server=$!
    for _ in $(seq 200); do
        [ "$(redis-cli -h 127.0.0.1 -p "$port" ping 2>/dev/null)" = PONG ] && return
        kill -0 $server 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/redis.log" >&2
    die "redis-server does not answer on port $port"
}

stop_server() {
    kill "$server" && wait "$server" || true
    server=
}

# rate PORT REQUESTS CLIENTS PIPELINE [PREFIX...]: GETs per second.
rate() {
    local port=$1 requests=$2 clients=$3 pipeline=$4 output
    shift 4
    output=$(timeout 120 "$@" redis-benchmark -h 127.0.0.1 -p "$port" -t get -n "$requests" -c "$clients" \
        -P "$pipeline" --csv 2>"$work/benchmark.log") || {
        cat "$work/benchmark.log" >&2
        die "redis-benchmark failed"
    }
    # "test","rps",... then "GET","48654.00",...
    sed -n 's/^"GET","\([0-9]*\).*/\1/p' <<<"$output" | grep . || die "redis-benchmark printed no figure: $output"
}

# one_run CLIENTS PIPELINE [PREFIX...]: a server, a short run to learn how fast it is, then the long one.
one_run() {
    local clients=$1 pipeline=$2 port guess
    shift 2
    port=$(free_port)
    start_server "$port" "$@"
    guess=$(rate "$port" 20000 "$clients" "$pipeline" "$@")
    [ "$guess" -gt 0 ] || guess=20000
    result=$(rate "$port" $((guess * 3 / 2)) "$clients" "$pipeline" "$@")
    stop_server
}

median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

say "redis-server and redis-benchmark, GET, $rounds rounds each way"
cases=("50 clients:50:1" "1 client:1:1" "50 clients, pipeline of 16:50:16")
rows=()
for case in "${cases[@]}"; do
    IFS=: read -r title clients pipeline <<<"$case"
    kernel=() ring=()
    for round in $(seq "$rounds"); do
        [ ! -t 2 ] || printf '\r\033[KGET, %s: round %d of %d' "$title" "$round" "$rounds" >&2
        one_run "$clients" "$pipeline"
        kernel+=("$result")
        one_run "$clients" "$pipeline" "$loopfast" run --
        ring+=("$result")
    done
    [ ! -t 2 ] || printf '\r\033[K' >&2
    rows+=("$title:$(median "${kernel[@]}"):$(median "${ring[@]}")")
    [ -t 2 ] || printf 'GET, %s: done\n' "$title" >&2
done

printf '\n%-28s %14s %14s %8s\n' "redis-benchmark GET" "kernel, 1/s" "loopfast, 1/s" ratio
for row in "${rows[@]}"; do
    IFS=: read -r title kernel ring <<<"$row"
    printf '%-28s %14d %14d %8s\n' "$title" "$kernel" "$ring" \
        "$(awk -v a="$ring" -v b="$kernel" 'BEGIN { printf "%.1fx", a / b }')"
done
echo
echo "Kernel and loopfast ran in turn; whatever else runs on this machine meanwhile spoils the figures, those of"
echo "one client most."
