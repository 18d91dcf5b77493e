# ./dev arm64: the library built for arm64, and its layers' unit tests and the differential cases run there: under
# Debian's arm64 kernel in an emulated machine (qemu), since what is to be shown needs a kernel of that kind. It shows
# that the code for arm64 compiles and works; it does not show its memory order, which the emulator on an x86 host keeps
# stricter than the hardware would. Takes about half an hour; not part of CI. Sourced by ./dev.
# shellcheck shell=bash

arm64=$PWD/build-arm64
arm64_root=$arm64/root  # the machine's file system
mkdir -p "$arm64"

# Packages of another architecture than ours, fetched with lists of their own, so that the system's are not touched.
arm64_fetch() {
    local apt=$arm64/apt
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    touch "$apt/status"
    cat >"$apt/conf" <<CONF
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Sandbox::User "root";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
CONF
    export APT_CONFIG=$apt/conf
    [ -n "$(ls "$apt"/*.deb 2>/dev/null)" ] || (
        apt-get -qq update
        kernel=$(apt-cache depends linux-image-arm64 | sed -n 's/.*Depends: //p')
        cd "$apt" && apt-get -qq download busybox-static "$kernel"
    )
    unset APT_CONFIG
    [ -d "$arm64/packages" ] || for package in "$apt"/*.deb; do dpkg -x "$package" "$arm64/packages"; done
}

say "the library and its tests for arm64"
if [ ! -d "$arm64/googletest/installed" ]; then
    cmake -G Ninja -S /usr/src/googletest -B "$arm64/googletest" -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/arm64.cmake" \
        -DCMAKE_INSTALL_PREFIX="$arm64/googletest/installed" >/dev/null
    ninja -C "$arm64/googletest" install >/dev/null
fi
build_tree "$arm64/build" -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/arm64.cmake" \
    -DCMAKE_FIND_ROOT_PATH="$arm64/googletest/installed" -- loopfast differential layer_tests

say "a machine for it"
arm64_fetch
rm -rf "$arm64_root"
mkdir -p "$arm64_root"/{bin,lib,proc,sys,dev,tmp,etc,modules,tests}
cp "$arm64"/packages/bin/busybox "$arm64_root/bin/"
# The dynamic loader and what the tests need; libstdc++ comes with the cross compiler.
for library in ld-linux-aarch64.so.1 libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 libgcc_s.so.1 libstdc++.so.6; do
    cp -L "/usr/aarch64-linux-gnu/lib/$library" "$arm64_root/lib/"
done
find "$arm64/packages" -name 'inet_diag.ko' -o -name 'tcp_diag.ko' -o -name 'unix_diag.ko' |
    xargs -I{} cp {} "$arm64_root/modules/"
cp -L "$arm64/build/libloopfast.so" "$arm64/build/tests/differential/differential" "$arm64_root/tests/"
cp "$arm64"/build/tests/unit/*_test "$arm64_root/tests/"
aarch64-linux-gnu-strip "$arm64_root"/tests/*
printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$arm64_root/etc/passwd"
cat >"$arm64_root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
ip link set lo up
for module in inet_diag tcp_diag unix_diag; do insmod /modules/$module.ko 2>/dev/null; done
ulimit -n 20000
failed=0
run() {
    if "$@" >/tmp/log 2>&1; then echo "passed: $*"; else failed=$((failed + 1)); echo "FAILED ($?): $*"; tail -40 /tmp/log; fi
}
for test in /tests/*_test; do run timeout 900 $test; done
for how in "--processes one" "--processes before --nonblocking" "--processes after --swap"; do
    run timeout 1800 /tests/differential --library /tests/libloopfast.so $how
    tail -3 /tmp/log
done
echo "arm64: $failed failed"
poweroff -f
INIT
chmod +x "$arm64_root/init"
(cd "$arm64_root" && find . | cpio --quiet -o -H newc | gzip -1) >"$arm64/initramfs"

say "the tests, on $(basename "$arm64"/packages/boot/vmlinuz-*)"
qemu-system-aarch64 -machine virt -cpu max -smp 2 -m 2048 -nographic -no-reboot -nodefaults -serial stdio \
    -kernel "$arm64"/packages/boot/vmlinuz-* -initrd "$arm64/initramfs" \
    -append 'console=ttyAMA0 quiet panic=-1' </dev/null | tee "$arm64/log"
grep -q '^arm64: 0 failed' "$arm64/log"
