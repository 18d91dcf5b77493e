# ./dev apps --long [NAME...]: every test of tests/programs in its long form, one after the other, outside
# ctest, whose time limits are those of the short form. Prints what failed at the end.
# shellcheck shell=bash

export LOOPFAST_BUILD=$PWD/build PYTHONDONTWRITEBYTECODE=1 LOOPFAST_TEST_LONG=1
python=$(command -v /usr/bin/python3 || command -v python3)
log_directory=build/test-logs
mkdir -p $log_directory
failed=()

long_test() {
    local name=$1 status=0
    shift
    say "$name"
    timeout --kill-after=20 3600 "$python" "tests/programs/${name}_test.py" "$@" 2>&1 |
        tee "$log_directory/long-$name.log" || status=$?
    [ $status -eq 0 ] || [ $status -eq 77 ] || failed+=("$name")
}

if [ $# -gt 0 ]; then
    names=("$@")
else
    mapfile -t names < <(cd tests/programs && ls ./*_test.py | sed 's|^\./||; s|_test\.py$||')
fi
for name in "${names[@]}"; do
    if [ "$name" = python_suite ]; then long_test "$name" --all; else long_test "$name"; fi
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
