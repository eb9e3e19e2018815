#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# qemu_bundle.sh DIR KERNEL: collects QEMU, its libraries and ROMs, a kernel and the probe's guest into DIR,
# for a GPU machine on which no package can be installed.
set -e
here=$(cd "$(dirname "$0")" && pwd)
dir=$1 kernel=$2 qemu=$(command -v qemu-system-x86_64)
mkdir -p "$dir/lib" "$dir/rom" "$dir/modules"
cp "$qemu" "$dir/"
ldd "$qemu" /usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so | awk '$3 ~ /^\// {print $3}' | sort -u | xargs -I{} cp -L {} "$dir/lib/"
cp -L /lib64/ld-linux-x86-64.so.2 "$dir/lib/"
cp /usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so "$dir/modules/"
cp /usr/share/seabios/bios-256k.bin /usr/share/qemu/linuxboot_dma.bin /usr/share/qemu/kvmvapic.bin "$dir/rom/"
cp "$kernel" "$dir/vmlinuz"
root=$(mktemp -d)
cc -static -O1 -o "$root/init" "$here/qemu_guest.c"
(cd "$root" && echo init | cpio -o -H newc --quiet) > "$dir/probe.cpio"
rm -r "$root"
du -sh "$dir"
