# ./dev install [PREFIX] and ./dev uninstall: the library, the Winsock door, the command, headers, manual pages
# and completions, to /usr/local or PREFIX, and out of there again.
# shellcheck shell=bash

# What a linker finds only after its cache was made anew; where that is not ours to do, nothing is.
renew_linker_cache() { [ "$(id -u)" -ne 0 ] || ldconfig; }

# Where it is noted what was installed in a prefix.
manifest_of() { printf 'build/installed%s.txt' "${1//\//_}"; }

absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }

install_tree() {
    local prefix
    prefix=$(absolute "${1:-/usr/local}")
    build_tree build "-DCMAKE_INSTALL_PREFIX=$prefix" -- loopfast loopfast_cli loopfast-winsock
    cmake --install build --strip >&2 || die "nothing was installed in $prefix; as root it can be, or give another PREFIX"
    cp build/install_manifest.txt "$(manifest_of "$prefix")"
    renew_linker_cache
    say "loopfast is in $prefix; ./dev uninstall${1:+ $1} takes it out again"
}

uninstall_tree() {
    local prefix manifest file folder
    prefix=$(absolute "${1:-/usr/local}")
    manifest=$(manifest_of "$prefix")
    [ -f "$manifest" ] || die "$manifest is not there: as far as this tree knows nothing was installed in $prefix"
    while read -r file || [ -n "$file" ]; do
        if [ -e "$file" ] || [ -L "$file" ]; then rm "$file"; fi
        # Folders of our own; those that others put files in as well stay, empty or not.
        folder=${file%/*}
        while [[ $folder == "$prefix"/*loopfast* ]]; do
            rmdir "$folder" 2>/dev/null || break
            folder=${folder%/*}
        done
    done <"$manifest"
    rm "$manifest"
    renew_linker_cache
    say "loopfast is no longer installed in $prefix"
}
