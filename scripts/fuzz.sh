# ./dev fuzz [SECONDS]: runs each fuzzer of tests/fuzz for so many seconds (15), beginning with the corpus in the
# tree. What it learns goes to build-fuzz/corpus; `./dev fuzz --merge` takes from there into the tree what
# reaches code that the tree's corpus does not. A finding ends it, and its input is left in build-fuzz/findings.
# shellcheck shell=bash

seconds=${1:-15}
[ -f build-fuzz/build.ninja ] ||
    cmake -G Ninja -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DLOOPFAST_FUZZ=ON \
        -DLOOPFAST_WERROR=OFF >&2
ninja -C build-fuzz -j "$build_jobs" fuzz_link fuzz_segment fuzz_race >&2
mkdir -p build-fuzz/findings

# Mapped memory of closed connections is kept as address space, not as memory: no limit there. What is not given
# back at the end of the process (the library's tables) is no leak.
export ASAN_OPTIONS=detect_leaks=0:handle_abort=1 UBSAN_OPTIONS=print_stacktrace=1

for name in link segment race; do
    kept=tests/fuzz/corpus/$name learned=build-fuzz/corpus/$name
    mkdir -p "$learned"
    fuzzer=build-fuzz/tests/fuzz/fuzz_$name
    if [ "$seconds" = --merge ]; then
        "$fuzzer" -merge=1 -max_len=512 "$kept" "$learned" 2>&1 | tail -n 1
        continue
    fi
    say "fuzz_$name: $seconds s"
    status=0
    "$fuzzer" -max_total_time="$seconds" -max_len=512 -timeout=300 -rss_limit_mb=3000 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/findings/$name-" "$learned" "$kept" >"build-fuzz/$name.log" 2>&1 || status=$?
    grep -E 'stat::number_of_executed_units|^#[0-9]+.*DONE' "build-fuzz/$name.log" || true
    if [ $status -ne 0 ]; then
        tail -n 60 "build-fuzz/$name.log" >&2
        die "fuzz_$name has found something: see build-fuzz/findings and build-fuzz/$name.log"
    fi
done
