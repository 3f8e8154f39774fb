#!/usr/bin/env bash
# Lays out the whole file system of the image: root.sh BINARY DIRECTORY
#
# The Dockerfile runs it, and so does `make delivery`, which then runs the daemon in what it has
# laid out: what is proven there is what is shipped.
set -euo pipefail

binary=$1
root=$2
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}

mkdir -p "$root"/{etc/ssl/certs,etc/eventferry,usr/bin,var/lib/eventferry,proc,sys,dev}
install -m 0555 "$binary" "$root/usr/bin/eventferry"

# The loader stands at the path that the binary names; all others where the loader looks for them.
ldd "$binary" | awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    install -m 0555 "$(readlink -f "$library")" "$root$library"
done

install -m 0444 "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
echo 'eventferry:x:65532:65532::/var/lib/eventferry:/nonexistent' > "$root/etc/passwd"
echo 'eventferry:x:65532:' > "$root/etc/group"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
chown 65532:65532 "$root/var/lib/eventferry" 2>/dev/null || true
