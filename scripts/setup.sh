#!/bin/sh
# Installs the Debian packages that are missing, and only these.
#   scripts/setup.sh build|check|fuzz...
set -eu

packages=
for group in "$@"; do
    case $group in
    build) packages="$packages gcc libc6-dev make cmake pkgconf libdnnl-dev libjansson-dev libpcre2-dev libutf8proc-dev
                     libzip-dev zlib1g-dev libcairo2-dev libpng-dev nettle-dev python3 python3-pip" ;;
    check) packages="$packages libcmocka-dev clang-format clang-tidy libomp-dev cppcheck" ;;
    peers) packages="$packages g++ python3-dev python3-venv" ;;
    fuzz) packages="$packages clang libomp-dev libclang-rt-dev" ;;
    *) echo "setup: unknown group '$group'; known: build, check, fuzz" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: not a Debian system; these Debian packages (or their like) are assumed to be there:" $packages
    exit 0
fi

missing=
for package in $packages; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=sudo
else
    echo "setup: packages are missing and this is neither root nor is sudo there. Run this as root, then try again:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends $missing" >&2
    exit 1
fi

log=$(mktemp "${TMPDIR:-/tmp}/compactattn-setup.XXXXXX")
trap 'rm -f "$log"' EXIT
trap 'exit 130' HUP INT TERM
echo "setup: installing $missing"
if ! {
    $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
} >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    echo "setup: apt-get failed (its last lines are above); check the network and the package sources, then try again" >&2
    exit 1
fi
echo "setup: done"
