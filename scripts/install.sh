# ./dev install [PREFIX] and ./dev uninstall: the library, the Winsock door, the command, headers, manual pages
# and completions, to /usr/local or PREFIX, and out of there again.
# shellcheck shell=bash

# What a linker finds only after its cache was made anew; where that is not ours to do, nothing is.
renew_linker_cache() { [ "$(id -u)" -ne 0 ] || ldconfig; }

install_tree() {
    local prefix=${1:-/usr/local}
    case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
    build_tree build "-DCMAKE_INSTALL_PREFIX=$prefix" -- loopfast loopfast_cli loopfast-winsock
    cmake --install build --strip >&2 || die "nothing was installed in $prefix; as root it can be, or give another PREFIX"
    renew_linker_cache
    say "loopfast is in $prefix; ./dev uninstall takes it out again"
}

uninstall_tree() {
    local manifest=build/install_manifest.txt file
    [ -f $manifest ] || die "$manifest, which ./dev install writes, is not there: nothing is known to be installed"
    while read -r file || [ -n "$file" ]; do
        if [ -e "$file" ] || [ -L "$file" ]; then rm "$file"; fi
    done <$manifest
    rm $manifest
    renew_linker_cache
    say "loopfast is no longer installed"
}
