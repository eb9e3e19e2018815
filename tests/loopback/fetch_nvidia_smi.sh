#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches Debian's package of the stock nvidia-smi (not free, so nothing installs or ships it) and prints the program's path.
set -eu
to=$1
mkdir -p "$to/lists/partial" "$to/cache/archives/partial"
to=$(cd "$to" && pwd)
site=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' | head -n 1)
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
[ -n "$site" ] || { echo "apt knows no archive of Debian here" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $release non-free" > "$to/sources.list"
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$to/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$to/lists" \
        -o Dir::Cache="$to/cache" -o APT::Sandbox::User=root "$@" >&2
}
apt update
(cd "$to" && rm -f ./*.deb && apt download nvidia-smi && dpkg -x ./*.deb .)
echo "$to/usr/lib/nvidia/current/nvidia-smi"
