# What a client needs beyond its files: for install-client and for the packages' scripts.
# Uses $root (below it, "" for this machine), $dest (the client's directory), and the caller's fail().

run_ldconfig() { [ -z "$root" ] || return 0; command -v ldconfig >/dev/null && ldconfig; return 0; }

make_group() {
    grep -q '^orion:' "$root/etc/group" 2>/dev/null && return 0
    if [ -z "$root" ] && command -v groupadd >/dev/null; then groupadd --system orion
    elif [ -z "$root" ] && command -v addgroup >/dev/null; then addgroup -S orion 2>/dev/null || addgroup --system orion
    else
        gid=900
        while grep -q "^[^:]*:[^:]*:$gid:" "$root/etc/group" 2>/dev/null; do gid=$((gid + 1)); done
        mkdir -p "$root/etc"; echo "orion:x:$gid:" >> "$root/etc/group"
    fi
    grep -q '^orion:' "$root/etc/group" || fail "cannot make the group orion"
}

join_group() { # USER
    if [ -z "$root" ] && command -v usermod >/dev/null; then usermod -a -G orion "$1" && return 0
    else
        sed -e "/^orion:/{/[:,]$1\$/!{/[:,]$1,/!{s/:\$/:$1/;t;s/\$/,$1/}}}" "$root/etc/group" > "$root/etc/group.orion" &&
            cat "$root/etc/group.orion" > "$root/etc/group" && rm "$root/etc/group.orion" && return 0
    fi
    fail "cannot add $1 to the group orion"
}

# NCCL reads this file by itself; what the machine's owner set there stays.
put_nccl() {
    if [ ! -e "$root/etc/nccl.conf" ]; then cp "$root$dest/nccl.conf" "$root/etc/nccl.conf" || fail "cannot write $root/etc/nccl.conf"
    elif ! grep -q '^NCCL_P2P_LEVEL=' "$root/etc/nccl.conf"; then
        echo "install-client: note: add NCCL_P2P_LEVEL=SYS to /etc/nccl.conf, or NCCL may refuse to work between vGPUs" >&2
    fi
}
drop_nccl() {
    [ "$(cat "$root/etc/nccl.conf" 2>/dev/null)" != "$(cat "$root$dest/nccl.conf" 2>/dev/null)" ] || rm -f "$root/etc/nccl.conf"
}

# The rules serve devices that appear later; this applies them to those that are there.
apply_rules() {
    [ -z "$root" ] || return 0
    [ -e /dev/nvidiactl ] || ln -s null /dev/nvidiactl
    for d in /sys/bus/pci/devices/*; do
        [ "$(cat "$d/vendor" 2>/dev/null):$(cat "$d/device" 2>/dev/null)" = 0x1af4:0x1110 ] || continue
        registers=''; [ ! -e "$d/resource1" ] || registers=$d/resource0 # of a doorbell device
        for r in "$d/resource2" "$d/resource2_wc" $registers; do
            [ ! -e "$r" ] || { chgrp orion "$r" && chmod 0660 "$r"; }
        done
    done
    if command -v udevadm >/dev/null; then udevadm control --reload 2>/dev/null; fi
    return 0
}
drop_device_name() { [ ! -L "$root/dev/nvidiactl" ] || rm -f "$root/dev/nvidiactl"; }
