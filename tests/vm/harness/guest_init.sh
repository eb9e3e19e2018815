#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# /init of the test guest: modules, network by DHCP, root and shares over 9p, then commands from a virtio port.
/bin/busybox mkdir -p /bin /dev /proc /sys /run
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
for module in $(cat /modules/order); do
    insmod "/modules/$module" || echo "orion-guest: $module does not load"
done

option() { # value of orion.NAME= on the kernel's command line
    for word in $(cat /proc/cmdline); do
        case $word in "orion.$1="*) echo "${word#*=}" ;; esac
    done
}
mount_9p() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2"; }

root=
if [ "$(option root)" = 9p ]; then
    # A writable overlay, so that an installer can be tried on a root that the host shares read-only.
    mount -t tmpfs upper /upper
    mkdir -p /upper/data /upper/work
    mount_9p root /lower ro,cache=loose || echo "orion-guest: no root over 9p"
    mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work over /newroot || echo "orion-guest: no overlay"
    root=/newroot
    mkdir -p $root/dev $root/proc $root/sys $root/run $root/tmp $root/etc
    for dir in dev proc sys; do mount -o bind /$dir $root/$dir; done
    mount -o bind /dev/pts $root/dev/pts
    mount -o bind /dev/shm $root/dev/shm
    mount -t tmpfs -o mode=755 run $root/run
    mount -t tmpfs -o mode=1777 tmp $root/tmp
fi
mkdir -p $root/run/harness
cp /bin/busybox $root/run/harness/busybox
for share in $(option shares | tr , ' '); do # tag:path:ro|rw
    tag=${share%%:*} mode=${share##*:} path=${share#*:}
    path=${path%:*}
    mkdir -p "$root$path"
    { [ "$mode" = rw ] || mode=ro,cache=mmap; mount_9p "$tag" "$root$path" "$mode"; } || echo "orion-guest: no share $tag"
done
grep -q '^root:' $root/etc/passwd 2>/dev/null || echo 'root:x:0:0:root:/root:/bin/sh' >>$root/etc/passwd
grep -q '^guest:' $root/etc/passwd || echo 'guest:x:1000:1000:guest:/home/guest:/bin/sh' >>$root/etc/passwd
grep -q '^guest:' $root/etc/group 2>/dev/null || echo 'guest:x:1000:' >>$root/etc/group
mkdir -p $root/home/guest $root/root
chown 1000:1000 $root/home/guest
hostname "$(option name)"

cat >/bin/dhcp <<'SCRIPT'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/$mask" dev "$interface"
for gateway in $router; do ip route add default via "$gateway" dev "$interface"; done
SCRIPT
chmod 755 /bin/dhcp
ip link set lo up
for nic in /sys/class/net/eth*; do
    [ -e "$nic" ] || continue
    nic=${nic##*/}
    ip link set "$nic" up
    udhcpc -i "$nic" -n -q -t 10 -T 1 -s /bin/dhcp >/dev/null 2>&1 || echo "orion-guest: no address for $nic"
done

port=
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat "$name")" = org.orion.run.0 ] && port=/dev/$(basename "$(dirname "$name")")
done
[ -n "$port" ] || { echo "orion-guest: no command port"; poweroff -f; }
exec 3<>"$port"
echo "orion-guest: ready"
echo READY >&3
serve() {
    while :; do
        while read -r token user script <&3; do # one command: its token, its user, its text in base64
            [ -n "$script" ] || continue
            [ "$user" != init ] || return 0
            mkdir -p $root/run/harness
            echo "$script" | base64 -d >$root/run/harness/command
            if [ "$user" = root ]; then
                chroot $root/ /run/harness/busybox sh -c 'cd /; export HOME=/root; . /run/harness/command' </dev/null >&3 2>&1 3>&-
            else
                chroot $root/ /run/harness/busybox su -s /bin/sh "$user" -c 'cd; . /run/harness/command' </dev/null >&3 2>&1 3>&-
            fi
            printf '\n%s %s\n' "$token" "$?" >&3
        done
        sleep 1 # the host has closed its end; it may open it again
    done
}

serve
# The root's own init takes over, and finds its root in place as after any initramfs; commands are served beside it.
root=/proc/1/root
{
    until [ -d $root/run/systemd ]; do sleep 0.2; done
    mkdir -p $root/run/harness
    cp /bin/busybox $root/run/harness/busybox
    printf '\n%s 0\n' "$token" >&3
    serve
} &
cd /newroot
mount --move . /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --unit=multi-user.target 3>&-
