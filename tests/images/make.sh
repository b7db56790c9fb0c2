#!/usr/bin/env bash
# Makes the images of this folder again from public packages (see README.md).
#
#   sudo tests/images/make.sh [OUT_DIR]     (default: this folder)
#
# Same digests on every run: versions are pinned, times are fixed, names are sorted. Needs what
# `tests/tools/real-images.sh --deps` installs, Go 1.26.8 (its version is in the binary), and ALPINE, a tar
# with Alpine's package database below root/ (default: in the folder shared/ beside the repository).
# Debian keeps one version of a package at a time: when a pinned one is gone, raise it here and say so in README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
TO=$(realpath -m "${1:-$here}")
ALPINE=${ALPINE:-$(cd "$(git -C "$here" rev-parse --path-format=absolute --git-common-dir)/../.." && pwd)/shared/testdata/pkgdb/apk/alpine-3.20.3/root.tar.gz}
OUT=$(mktemp -d); SPEC=$OUT/spec
. "$here/../tools/layers.sh"
trap 'unmount_all; rm -rf --one-file-system "$OUT"' EXIT
export SOURCE_DATE_EPOCH=1704067200 GOTOOLCHAIN=go1.26.8

DIST=usr/lib/python3/dist-packages

l_base() { # ARCH: the smallest distroless base
  distroless "$1" base-files=12.4+deb12u15 netbase=6.4 media-types=10.0.0
  rm -rf "$R/usr/share/doc"/*/changelog* "$R/usr/share/man" "$R/usr/share/lintian"
}
l_hostname()  { distroless "$1" hostname=3.23+nmu1; }
l_wheels()    { pip_to "$R/$DIST" six==1.16.0 idna==3.4 certifi==2023.7.22; }
l_removed()   { # a wheel and a Debian package go, another wheel is replaced
  rm -r "$R/$DIST"/idna "$R/$DIST"/idna-*.dist-info "$R/$DIST"/six.py "$R/$DIST"/six-*.dist-info
  pip_to "$R/$DIST" six==1.17.0
  rm "$R"/var/lib/dpkg/status.d/media-types* "$R/etc/mime.types"
}
# A status file by dpkg itself. Only packages without maintainer scripts: there is no shell in this root.
l_status() {
  mkdir -p "$R"/etc "$R"/usr/lib "$R"/var/lib/dpkg/{info,updates}; : >"$R/var/lib/dpkg/status"
  dpkg-deb --fsys-tarfile "$(deb amd64 base-files=12.4+deb12u15)" | tar -xC "$R" ./usr/lib/os-release ./etc/os-release ./etc/debian_version
  dpkg --root="$R" --force-depends --install "$(deb amd64 hostname=3.23+nmu1)" "$(deb amd64 media-types=10.0.0)"
  trim_status
}
l_config_files() { dpkg --root="$R" --force-depends --remove media-types; trim_status; } # its conffile stays
trim_status() { rm -rf "$R"/var/lib/dpkg/{lock*,*-old,triggers} "$R"/var/log "$R"/usr/share/{man,doc-base,doc/*/changelog*}; }
l_toml()   { pip_to "$R/$DIST" toml==0.10.2; }
l_alpine() { tar -xzf "$ALPINE" -C "$R" --strip-components=1; }
l_npm() { # only what the packages hold: neither a lock file nor an application's own package.json
  npm_to "$OUT/npm-1" ms@2.1.2 left-pad@1.3.0 is-number@7.0.0 @sindresorhus/is@0.14.0 debug@2.6.9
  rm "$OUT/npm-1/node_modules/.package-lock.json"
  mkdir -p "$R/srv/app"; cp -r "$OUT/npm-1/node_modules" "$R/srv/app"
}
l_npm_next() {
  npm_to "$OUT/npm-2" ms@2.1.3
  rm -r "$R/srv/app/node_modules/left-pad" "$R/srv/app/node_modules/ms"
  cp -r "$OUT/npm-2/node_modules/ms" "$R/srv/app/node_modules"
}
l_go() {
  go_to "$R/usr/local/bin" golang.org/x/tools/cmd/html2article@v0.8.0
  install -D -m 644 "$(go env GOMODCACHE)/golang.org/x/tools@v0.8.0/LICENSE" "$R/usr/local/share/doc/html2article/LICENSE"
}

for a in amd64 arm64; do
  layer "base-$a" "" l_base $a
  layer "hostname-$a" "base-$a" l_hostname $a
done
layer wheels "base-amd64" l_wheels
layer removed "base-amd64 wheels" l_removed
layer status "" l_status
layer config-files "status" l_config_files
layer toml "status config-files" l_toml
layer alpine "" l_alpine
layer npm "alpine" l_npm
layer npm-next "alpine npm" l_npm_next
layer go "alpine" l_go

image debian "debian:slim" oci amd64=base-amd64/gzip -- status.d
image debian "debian:python" oci amd64=base-amd64/gzip,wheels/gzip -- wheels
image debian "debian:python-next" oci amd64=base-amd64/gzip,wheels/gzip,removed/zstd -- removals
image debian "debian:tools" oci amd64=base-amd64/gzip,hostname-amd64/zstd arm64=base-arm64/gzip,hostname-arm64/zstd -- index
image node.tar "crowsnest/node:1.0" docker-save amd64=alpine/tar,npm/tar -- npm
image node.tar "crowsnest/node:1.1" docker-save amd64=alpine/tar,npm/tar,npm-next/tar -- npm removals
image python "docker.io/crowsnest/python:1.0" oci amd64=status/gzip,config-files/gzip,toml/gzip -- status
image go "go:1.26" oci amd64=alpine/gzip,go/zstd -- golang
mkdir "$OUT/images"
python3 "$TOOLS/pack.py" "$SPEC" "$LAYERS" "$OUT/images"

expected() { python3 "$TOOLS/truth.py" "$R" | cut -f1-3 | sed "s|^|$1\t$2\t|"; }
cd "$OUT/images"
{ printf 'image reference\tplatform\ttype\tname\tversion\n'; each_image expected; } >expected.tsv
skopeo copy -q oci:python:1.0 docker-archive:python.tar:docker.io/crowsnest/python:1.0
gzip -n -9 python.tar
skopeo copy -q oci:go:1.26 oci-archive:go.raw:1.26
mkdir unpacked && tar -xf go.raw -C unpacked # its times are those of the run
tar -C unpacked --sort=name --mtime=@$SOURCE_DATE_EPOCH --numeric-owner --owner=0 --group=0 --mode=u=rwX,go=rX -cf - blobs index.json oci-layout | zstd -q -19 -o go.tar.zst
rm -rf python go unpacked go.raw
mkdir -p "$TO"; rm -rf "$TO/debian"; cp -r --no-preserve=all ./* "$TO"
say "$(du -sb --apparent-size "$TO" | cut -f1) bytes in $TO"
