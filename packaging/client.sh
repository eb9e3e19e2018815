# Package orion-client: what happens around its files. Functions for deb.py and rpm.py.
umask 022
root='' dest=/usr/lib/orion
fail() { echo "orion-client: $*" >&2; exit 1; }
@SETUP@
before_install() {
    [ ! -e /proc/driver/nvidia/version ] ||
        fail "this machine has a real NVIDIA driver loaded; its libcuda.so.1 would be hidden. The file install-client has --force"
    # What the file install-client put there would be in the way of the package's.
    for f in orion-smi orion-check; do
        [ "$(readlink "/usr/bin/$f")" != "$dest/$f" ] || rm -f "/usr/bin/$f"
    done
}
after_install() {
    make_group
    if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        join_group "$SUDO_USER"
        echo "User $SUDO_USER was added to the group orion; a new login is needed before it counts."
    else
        echo "Users of vGPUs must be in the group orion: usermod -aG orion USER, then a new login."
    fi
    put_nccl
    apply_rules
    run_ldconfig
}
before_remove() { drop_nccl; drop_device_name; }
after_remove() { run_ldconfig; }
after_purge() { :; }
