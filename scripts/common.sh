# What the verbs of ./dev share: messages, builds, the list of our files. Sourced, not run.
# shellcheck shell=bash

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
[ -t 2 ] || say() { printf '== %s\n' "$*" >&2; }

die() {
    printf './dev: %s\n' "$*" >&2
    exit 2
}

build_jobs=${BUILD_JOBS:-$(nproc)}

# build_tree DIRECTORY [CMAKE_ARGUMENT...] [-- TARGET...]
build_tree() {
    local directory=$1 arguments=() targets=()
    shift
    while [ $# -gt 0 ]; do
        if [ "$1" = -- ]; then
            shift
            targets=("$@")
            break
        fi
        arguments+=("$1")
        shift
    done
    if [ ! -f "$directory/build.ninja" ] || [ ${#arguments[@]} -gt 0 ]; then
        cmake -G Ninja -S . -B "$directory" "${arguments[@]}" >&2
    fi
    ninja -C "$directory" -j "$build_jobs" "${targets[@]}" >&2
}

# sanitized_tests asan|tsan [--layers|--winsock] [CTEST_ARGUMENT...]: the unit tests; with --layers those of the
# library alone, with --winsock the tests of the Winsock door instead
sanitized_tests() {
    local kind=$1 sanitizers target=unit_tests label=unit
    shift
    case ${1:-} in
        --layers)
            target=layer_tests
            shift
            set -- -E '^unit\.(cli_|faulty_)' "$@"
            ;;
        --winsock)
            target=winsock_tests label=winsock
            shift
            set -- -E '^winsock\.(table|programs|wine|lanes)' "$@"
            ;;
    esac
    case $kind in
        asan) sanitizers=address,undefined ;;
        tsan) sanitizers=thread ;;
    esac
    build_tree "build-$kind" "-DLOOPFAST_SANITIZE=$sanitizers" -- $target
    local suppressions=$PWD/tests/unit/tsan.suppressions
    [ -f "$suppressions" ] || suppressions=/dev/null
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 \
        UBSAN_OPTIONS=print_stacktrace=1 \
        TSAN_OPTIONS=second_deadlock_stack=1:suppressions=$suppressions \
        ctest --test-dir "build-$kind" -L "$label" --output-on-failure -j2 --timeout 300 "$@"
}

# The models need no build; for ctest they are tests as well (models/CMakeLists.txt).
check_models() { models/check; }

# Every C and C++ file that is ours, one a line.
our_sources() {
    git ls-files --cached --others --exclude-standard -- '*.cpp' '*.h' '*.c' | while read -r file; do
        [ ! -f "$file" ] || printf '%s\n' "$file"
    done
}
