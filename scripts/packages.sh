# Installing what is missing on Debian, quietly and without questions. Sourced by ./dev.
# shellcheck shell=bash

# need PACKAGE...: returns when all of them are installed.
need() {
    local missing=()
    command -v dpkg-query >/dev/null || return 0  # not Debian: whoever builds here has brought the tools
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    install_packages "${missing[@]}"
}

install_packages() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            die "these packages are missing: $*
       Install them as root, then run this again:
       apt-get install -y --no-install-recommends $*"
        as_root=(sudo)
    fi
    say "installing $*"
    # Redis and nginx start a system service when they are installed; a policy-rc.d that says 101 forbids
    # it. One that is there already belongs to somebody else and stays as it is.
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod 755 $policy
        ours=yes
    fi
    local result=0
    compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || refresh_package_lists || result=$?
    [ $result -ne 0 ] || run_apt_install "$@" || {
        # A list that is too old names versions that the mirror no longer has.
        refresh_package_lists && run_apt_install "$@" || result=$?
    }
    [ -z "$ours" ] || "${as_root[@]}" rm -f $policy
    [ $result -eq 0 ] || die "could not install: $*"
}

refresh_package_lists() { "${as_root[@]}" apt-get update -q >&2; }

run_apt_install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >&2
}
