# ./dev test: everything that CI runs, in the order of what matters most, inside a total time.
#
# Build and tests always run to their end, however slow the machine. A later stage that no longer fits into the
# time is skipped and said to be; it counts neither way. The last line is "N passed, N failed": the tests of every
# stage, and each stage without tests of its own as one.
# shellcheck shell=bash

time_limit=${TEST_MINUTES:-24}
deadline=$((SECONDS + time_limit * 60))
passed=0
failed=0
summary=()
log_directory=build/test-logs
mkdir -p $log_directory

left() { echo $((deadline - SECONDS)); }

# stage NAME MINIMUM_SECONDS COMMAND...: runs it with its output shown and kept, and counts. A minimum of 0: in any case.
stage() {
    local name=$1 minimum=$2 begin=$SECONDS status=0
    shift 2
    if [ "$minimum" -gt 0 ] && [ "$(left)" -lt "$minimum" ]; then
        summary+=("$name: SKIPPED, only $(left) s of $time_limit min are left")
        return 0
    fi
    say "$name"
    local log="$log_directory/$name.log"
    "$@" 2>&1 | tee "$log" || status=$?
    # ctest's closing line; "N tests failed out of M", or none for other commands.
    local counts
    counts=$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests\? failed out of \([0-9]*\)$/\1 \2/p' "$log" |
        tail -n 1)
    if [ -n "$counts" ]; then
        local bad=${counts% *} all=${counts#* }
        # A run that was ended by the clock or that failed in another way is one more failure.
        [ $status -eq 0 ] || [ "$bad" -gt 0 ] || bad=$((bad + 1)) all=$((all + 1))
        failed=$((failed + bad))
        passed=$((passed + all - bad))
        summary+=("$name: $((all - bad)) passed, $bad failed, $((SECONDS - begin)) s")
    elif [ $status -eq 0 ]; then
        passed=$((passed + 1))
        summary+=("$name: passed, $((SECONDS - begin)) s")
    elif [ "$name" = lint ] && { [ $status -eq 124 ] || [ $status -eq 137 ]; } && ! grep -q 'warning:\|error:' "$log"; then
        # It looks at one file after the other; no hang can hide in it.
        summary+=("$name: cut short by the clock, nothing found until then, $((SECONDS - begin)) s")
    else
        failed=$((failed + 1))
        summary+=("$name: FAILED (status $status), $((SECONDS - begin)) s")
    fi
}

# Everything that may run for long gets an end: a hang must fail, not stall CI. Each test has one of its own, so
# that of all of them is far from what even a slow machine needs.
tests_limit=$((50 * 60))
in_time() { timeout --kill-after=20 "$(left)" "$@"; }

stage build 0 build_tree build
if [ $failed -eq 0 ]; then
    # Most tests wait more than they compute: twice as many as there are processors keep these busy.
    stage tests 0 timeout --kill-after=20 $tests_limit ctest --test-dir build --output-on-failure -j"$((2 * $(nproc)))" --timeout 300 --no-tests=error
    stage asan 300 in_time ./dev asan --layers
    stage tsan 330 in_time ./dev tsan --layers
    stage fuzz 180 in_time ./dev fuzz 10
    stage lint 420 in_time ./dev lint
fi

echo
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
