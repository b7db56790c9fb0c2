# Sourced by real-images.sh and ../images/make.sh: layers as the upper folders of
# overlayfs mounts, so that whiteouts and opaque folders are those the kernel makes.
#
# Expects OUT (work folder) and SPEC (list of images, see pack.py). Needs root and overlayfs.
umask 022
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAYERS=$OUT/layers
CACHE=${CACHE:-$OUT/cache}
LOG=$OUT/build.log
mkdir -p "$LAYERS" "$CACHE"
# Mounts of a run that was stopped go first: removing folders above them would reach this machine's /dev.
unmount_all() {
  local m
  findmnt -rno TARGET | { grep "^$OUT/" || true; } | sort -r | while read -r m; do umount "$m" || umount -l "$m"; done
}
unmount_all
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

# overlay FOLDER "PARENTS" UPPER: mounts parents (bottom first) at FOLDER. Without
# UPPER the mount is read-only. A layer that is named twice is copied, since overlayfs
# refuses the same folder twice.
overlay() {
  local at=$1 parents=$2 upper=${3:-} low="" p dir copy=0 seen=" "
  for p in $parents; do
    dir=$LAYERS/$p/upper
    case $seen in
      *" $p "*) copy=$((copy + 1)); mkdir -p "$OUT/again"; cp -a "$dir" "$OUT/again/$copy"; dir=$OUT/again/$copy ;;
    esac
    seen="$seen$p "; low=$dir${low:+:$low}
  done
  mkdir -p "$at"
  if [ -n "$upper" ]; then
    mount -t overlay overlay -o "index=off,metacopy=off,redirect_dir=off,lowerdir=$low,upperdir=$upper,workdir=$upper.work" "$at"
  else
    mkdir -p "$OUT/empty" # overlayfs wants two lower folders where there is no upper
    mount -t overlay overlay -o "index=off,metacopy=off,redirect_dir=off,lowerdir=$low:$OUT/empty" "$at"
  fi
}

# layer NAME "PARENTS" FUNCTION [ARGS]: runs FUNCTION with $R = the merged root and keeps what it changed.
# A layer is made again only if its function, its arguments, or a parent changed.
layer() {
  local name=$1 parents=$2 p rc key; shift 2
  local dir=$LAYERS/$name
  key=$({ declare -f "$1"; echo "$*"; for p in $parents; do cat "$LAYERS/$p/key"; done; } | sha256sum)
  if [ "$(cat "$dir/key" 2>/dev/null)" = "$key" ]; then return; fi
  say "layer $name"
  rm -rf --one-file-system "$dir"; mkdir -p "$dir/upper" "$dir/upper.work"
  R=$dir/upper
  if [ -n "$parents" ]; then overlay "$dir/root" "$parents" "$dir/upper"; R=$dir/root; fi
  # errexit is off inside a condition, so the status is taken outside of one.
  set +e; ( set -e; "$@" ) >>"$LOG" 2>&1; rc=$?; set -e
  if [ -n "$parents" ]; then umount -R "$dir/root"; rmdir "$dir/root"; fi
  [ $rc -eq 0 ] || { say "layer $name failed:"; tail -20 "$LOG" >&2; exit 1; }
  rm -rf "$dir/upper.work"; printf '%s\n' "$key" >"$dir/key"
}

# image LAYOUT REPOSITORY:TAG KIND PLATFORM=LAYER/FORM,... [PLATFORM=...] -- what it covers
image() {
  local layout=$1 reference=$2 kind=$3 platforms=""; shift 3
  while [ "$1" != -- ]; do platforms="$platforms	$1"; shift; done
  printf '%s\t%s\t%s\t%s%s\n' "$layout" "$reference" "$kind" "${*:2}" "$platforms" >>"$SPEC"
}

# each_image FUNCTION: calls FUNCTION REPOSITORY:TAG PLATFORM with $R = the merged root, for every image of SPEC.
each_image() {
  local layout reference kind covers platforms p names
  while IFS=$'\t' read -r layout reference kind covers platforms; do
    for p in $platforms; do
      names=$(tr , '\n' <<<"${p#*=}" | cut -d/ -f1 | tr '\n' ' ')
      overlay "$OUT/merged" "$names"
      R=$OUT/merged
      "$1" "$reference" "linux/${p%%=*}"
      umount "$OUT/merged"; rm -rf "$OUT/again"
    done
  done <"$SPEC"
  rm -rf "$OUT/merged" "$OUT/empty"
}

# deb ARCH PACKAGE[=VERSION]: path of the package file, downloaded once by apt, which checks its signature chain.
deb() {
  local dir=$CACHE/deb-$1 opts name=${2%%=*} lists; lists=$dir/lists
  mkdir -p "$lists/partial" "$dir/archives/partial" "$dir/files"; : >>"$dir/status"
  opts=(-o APT::Architecture="$1" -o APT::Architectures="$1" -o Dir::State::lists="$lists" -o Dir::State::status="$dir/status"
    -o Dir::Cache="$dir" -o Dir::Cache::archives="$dir/archives" -o APT::Sandbox::User=root -o Acquire::Languages=none
    -o Dir::Etc::sourcelist="$CACHE/sources.list" -o Dir::Etc::sourceparts=-)
  debian_sources >"$CACHE/sources.list"
  if ! compgen -G "$dir/files/${name}_*.deb" >/dev/null; then
    [ -e "$dir/updated" ] || { apt-get "${opts[@]}" update -qq >&2 && touch "$dir/updated"; }
    (cd "$dir/files" && apt-get "${opts[@]}" download -qq "$2" >&2)
  fi
  compgen -G "$dir/files/${name}_*.deb"
}
debian_sources() { # bookworm and its updates, from the mirror that this machine uses
  local key=/usr/share/keyrings/debian-archive-keyring.gpg
  printf 'deb [signed-by=%s] %s %s main\n' $key "$(mirror)" bookworm $key "$(mirror)" bookworm-updates
}
mirror() {
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true
    echo "URIs: http://deb.debian.org/debian"; } |
    sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb *\(\[[^]]*\]\)\? *\(http[^ ]*\).*/\2/p' | grep '/debian/*$' | sed -n 1p
}

# distroless ARCH PACKAGE...: files of Debian packages, with a control file each under status.d, as distroless images have them.
distroless() {
  local arch=$1 p file; shift
  mkdir -p "$R/var/lib/dpkg/status.d"
  for p in "$@"; do
    file=$(deb "$arch" "$p"); p=${p%%=*}
    dpkg-deb -x "$file" "$R"
    dpkg-deb -f "$file" >"$R/var/lib/dpkg/status.d/$p"
    dpkg-deb --ctrl-tarfile "$file" | tar -xO ./md5sums >"$R/var/lib/dpkg/status.d/$p.md5sums" 2>/dev/null || true
  done
}

# npm_to FOLDER PACKAGE...: npm packages into FOLDER/node_modules; no install scripts are run.
npm_to() {
  local dir=$1; shift; mkdir -p "$dir"
  [ -e "$dir/package.json" ] || printf '{"name": "app", "version": "1.0.0", "private": true}\n' >"$dir/package.json"
  (cd "$dir" && npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps --prefer-offline --cache "$CACHE/npm" "$@")
}

# pip_to FOLDER PACKAGE==VERSION...: wheels for bookworm's CPython 3.11 on amd64, unpacked without compiling.
pip_to() {
  local dir=$1; shift; mkdir -p "$dir"
  python3 -m pip install -q --cache-dir "$CACHE/pip" --no-compile --no-deps --root-user-action ignore --disable-pip-version-check \
    --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
    --only-binary=:all: --target "$dir" "$@"
}

# go_to FOLDER MODULE/COMMAND@VERSION: a static binary with module data, the same bytes for the same Go version.
go_to() {
  mkdir -p "$1"
  GOBIN=$1 CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOARCH=amd64 go install -trimpath -ldflags='-s -w' "$2"
}
