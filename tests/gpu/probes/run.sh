#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds and runs every probe: run.sh [QEMU_BUNDLE_DIR]. Needs a CUDA toolkit and an NVIDIA GPU.
here=$(cd "$(dirname "$0")" && pwd)
cuda=${CUDA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")}
out=$(mktemp -d)
trap 'rm -rf "$out" /dev/shm/orion-probe-qemu' EXIT
for include in "$cuda/include" "$cuda"/targets/*/include; do [ -e "$include/cuda.h" ] && break; done
for p in vmm_pass seccomp twins register_over variables array_bytes qemu_shared; do
    cc -O1 -std=gnu11 -I"$include" -o "$out/$p" "$here/$p.c" -L"$cuda/lib64/stubs" -L"$cuda/targets/x86_64-linux/lib/stubs" \
        -lcuda -lpthread -lrt || echo "cannot build $p"
done
for p in vmm_pass seccomp twins register_over variables array_bytes; do
    echo "== $p"
    timeout 120 "$out/$p"
done
echo "== calls: what sharing between processes asks of the system"
cc -O1 -std=gnu11 -shared -fPIC -o "$out/calls.so" "$here/calls.c" -ldl
nvcc -o "$out/shared" "$here/../programs/shared.cu" -ldl
for body in simple vmm pool; do
    CALLS="$out/asked" LD_PRELOAD="$out/calls.so" timeout 60 "$out/shared" $body >/dev/null
    cat "$out"/asked.* | grep -av "^open.*/dev/nvidia" | sort | uniq -c
    rm -f "$out"/asked.*
done
echo "== qemu_shared"
[ -n "$1" ] || { echo "skipped: no QEMU bundle given (qemu_bundle.sh makes one)"; exit 0; }
b=$1
truncate -s 16M /dev/shm/orion-probe-qemu
QEMU_MODULE_DIR="$b/modules" timeout 100 "$b/lib/ld-linux-x86-64.so.2" --library-path "$b/lib" "$b/qemu-system-x86_64" -L "$b/rom" -M q35 -accel tcg -cpu max -m 512 -display none -nodefaults \
    -serial "file:$out/console" -no-reboot -kernel "$b/vmlinuz" -initrd "$b/probe.cpio" -append "console=ttyS0 quiet rdinit=/init" \
    -object memory-backend-file,id=m,mem-path=/dev/shm/orion-probe-qemu,size=16M,share=on \
    -device ivshmem-plain,memdev=m,master=on &
timeout 90 "$out/qemu_shared" /dev/shm/orion-probe-qemu
wait
tail -3 "$out/console"
