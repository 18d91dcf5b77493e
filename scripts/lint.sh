# ./dev lint [FILE...]: the layout (clang-format) and the checks of .clang-tidy, over our files.
#
# clang-tidy looks only at what the build compiles, and again only at what changed since it last found
# nothing: the stamps are in build/lint/, one for each file, named after a hash of what could change the
# answer (the file, every header of ours, the configuration).
# shellcheck shell=bash

build_tree build -- help >/dev/null 2>&1 || build_tree build -DLOOPFAST_WERROR=ON -- help >/dev/null
if [ $# -gt 0 ]; then files=("$@"); else mapfile -t files < <(our_sources); fi
[ ${#files[@]} -gt 0 ] || die "there are no files to look at"

status=0
say "clang-format: ${#files[@]} files"
clang-format --dry-run -Werror "${files[@]}" || status=1

headers=$(our_sources | grep '\.h$' | sort | xargs cat .clang-tidy tests/.clang-tidy | sha256sum | cut -d' ' -f1)
mkdir -p build/lint
units=()
for file in "${files[@]}"; do
    case $file in *.cpp | *.c) ;; *) continue ;; esac
    grep -qF "\"$PWD/$file\"" build/compile_commands.json || continue
    stamp=build/lint/$({ echo "$headers $file" && cat "$file"; } | sha256sum | cut -d' ' -f1)
    [ -e "$stamp" ] || units+=("$file $stamp")
done

say "clang-tidy: ${#units[@]} files changed since they were last found clean"
if [ ${#units[@]} -gt 0 ]; then
    # shellcheck disable=SC2016
    printf '%s\n' "${units[@]}" | xargs -P "$build_jobs" -L 1 bash -c '
        output=$(clang-tidy -p build --quiet "$0" 2>/dev/null)
        result=$?
        # clang-tidy says nothing, or only counts, about a file without findings.
        [ -z "$output" ] || printf "%s\n" "$output"
        if [ $result -eq 0 ] && [ -z "$output" ]; then touch "$1"; else exit 1; fi' || status=1
fi

[ $status -eq 0 ] && say "lint: clean" || say "lint: findings above"
exit $status
