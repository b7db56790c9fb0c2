#!/usr/bin/env bash
# Builds real images out of Debian, PyPI, npm and Go packages, with the packages that each one must show.
#
#   tests/tools/real-images.sh --deps      installs (apt) what the script needs; CI calls this once
#   tests/tools/real-images.sh OUT_DIR     builds; a second run with the same OUT_DIR is fast
#
# OUT_DIR/oci/<name>       an OCI layout with one tag
# OUT_DIR/dir/<name>       an image with Docker's media types, for skopeo's dir: transport
# OUT_DIR/images.tsv       name, repository, tag, source (for skopeo, below OUT_DIR), kind, platforms, layers (bottom
#                          first, with their form), covers; the first line names the columns
# OUT_DIR/expected/<repository, / as _>_<tag>_<os>_<architecture>.tsv
#                          type, name, version, source name, source version, by independent tools (truth.py)
# OUT_DIR/owned/<same>     those npm and pypi rows whose file belongs to a dpkg package, with path and package
#
# To push one, in OUT_DIR:
#   skopeo copy --all --preserve-digests --dest-tls-verify=false SOURCE docker://HOST:PORT/REPOSITORY:TAG
#
# Needs root (chroot, overlayfs, device files), Debian bookworm on amd64, and OUT_DIR on a disk that
# overlayfs accepts as upper folder. CACHE (default OUT_DIR/cache) holds the downloads.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

deps() {
  local need=() p
  for p in debootstrap skopeo docker-registry zstd pigz python3 curl file; do
    dpkg -s "$p" >/dev/null 2>&1 || need+=("$p")
  done
  python3 -m pip --version >/dev/null 2>&1 || need+=(python3-pip)
  command -v npm >/dev/null || need+=(npm)
  command -v go >/dev/null || need+=(golang-go)
  if [ ${#need[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
  fi
}

case ${1:-} in
  --deps) deps; exit ;;
  ''|-*) sed -n '2,21p' "$0"; exit 2 ;;
esac
mkdir -p "$1"; OUT=$(cd "$1" && pwd); SPEC=$OUT/spec
. "$here/layers.sh"
: >"$LOG"; : >"$SPEC"
trap unmount_all EXIT

DP=usr/local/lib/python3.11/dist-packages

# ---- running things inside a root ---------------------------------------------

inroot() { # a command in $R with this machine's name look-up; apt's lists and packages stay in the cache
  local m rc=0
  mkdir -p "$CACHE/apt/lists" "$CACHE/apt/archives/partial"
  for m in /etc/resolv.conf /etc/hosts /dev; do mount --bind $m "$R$m"; done
  mount --bind "$CACHE/apt/lists" "$R/var/lib/apt/lists"
  mount --bind "$CACHE/apt/archives" "$R/var/cache/apt/archives"
  mount -t proc proc "$R/proc"
  chroot "$R" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@" || rc=$?
  umount "$R/proc" "$R/var/cache/apt/archives" "$R/var/lib/apt/lists" "$R/dev" "$R/etc/hosts" "$R/etc/resolv.conf"
  return $rc
}
apt_in() {
  [ -e "$CACHE/apt/updated" ] || { inroot apt-get update -qq; touch "$CACHE/apt/updated"; }
  inroot apt-get install -y -qq --no-install-recommends -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true "$@"
  rm -rf "$R"/var/cache/apt/*.bin "$R"/var/cache/ldconfig/aux-cache
}

# ---- layers ---------------------------------------------------------------------

l_debian() { # a minbase root as debootstrap leaves it
  if [ ! -e "$CACHE/debian.tar" ]; then
    rm -rf "$CACHE/debian"
    debootstrap --variant=minbase bookworm "$CACHE/debian" "$(mirror)"
    rm -rf "$CACHE"/debian/var/cache/apt/archives/*.deb "$CACHE"/debian/var/lib/apt/lists/* "$CACHE"/debian/dev
    mkdir "$CACHE/debian/dev"; : >"$CACHE/debian/etc/resolv.conf"; : >"$CACHE/debian/etc/hosts"; echo debian >"$CACHE/debian/etc/hostname"
    tar -C "$CACHE/debian" --numeric-owner -cf "$CACHE/debian.part" . && mv "$CACHE/debian.part" "$CACHE/debian.tar"
    rm -rf "$CACHE/debian"
  fi
  tar -C "$R" --numeric-owner -xpf "$CACHE/debian.tar"
}
l_ca()     { apt_in ca-certificates netbase tzdata media-types; }
l_purged() { inroot dpkg --purge tzdata; } # gone from the status file
l_states() { # one package each in state config-files, unpacked, and on hold
  inroot dpkg --remove --force-depends netbase
  apt_in --download-only ucf
  mkdir -p "$R/root"; cp "$CACHE"/apt/archives/ucf_*.deb "$R/root/ucf.deb"
  inroot dpkg --unpack /root/ucf.deb; rm "$R/root/ucf.deb"
  inroot sh -c 'echo media-types hold | dpkg --set-selections'
}

l_pyrt() { apt_in python3 python3-six python3-yaml python3-idna python3-certifi python3-pyinotify; }
l_pydeps() {
  pip_to "$R/$DP" flask==2.2.0 requests==2.27.1 urllib3==1.26.5 jinja2==3.0.3 werkzeug==2.2.1 certifi==2022.9.24 \
    pyyaml==6.0.1 tornado==6.2 click==8.1.3 itsdangerous==2.1.2 markupsafe==2.1.2 zope.interface==6.2 python-dateutil==2.8.2
  egg_info "$R/$DP" docopt 0.6.2
  pip_to "$R/srv/vendor" idna==3.3 charset-normalizer==2.0.12
}
# What `setup.py install` of an old setuptools leaves: NAME-VERSION.egg-info with PKG-INFO, out of the source package.
egg_info() { # FOLDER NAME VERSION
  (cd "$CACHE" && [ -e "$2-$3.tar.gz" ] || python3 -m pip download -q --no-deps --no-binary :all: --disable-pip-version-check -d "$CACHE" "$2==$3")
  local from; from=$(mktemp -d); tar -xzf "$CACHE/$2-$3.tar.gz" -C "$from" --strip-components=1
  cp "$from"/*.py "$1"; rm "$1/setup.py"
  cp -r "$from/$2.egg-info" "$1/$2-$3.egg-info"; rm -r "$from"
}
l_pyrm() { # packages taken out in a later layer, and folders put back with other contents (opaque)
  rm -r "$R/$DP"/flask "$R/$DP"/Flask-*.dist-info
  rm -r "$R/$DP"/tornado-*.dist-info "$R/$DP"/tornado; mkdir "$R/$DP"/tornado; echo 'version = "0"' >"$R/$DP/tornado/__init__.py"
  rm "$R/$DP"/docopt.py; rm -r "$R/$DP"/docopt-*.egg-info
  rm -r "$R/srv/vendor"; pip_to "$R/srv/vendor" idna==3.4
  inroot dpkg --purge --force-depends python3-yaml
}

l_node() {
  npm_to "$R/srv/app" express@4.17.1 lodash@4.17.15 minimist@1.2.0 debug@4.3.4 @babel/code-frame@7.18.6 \
    @sindresorhus/is@0.14.0 chalk@4.1.2 semver@7.3.5 ws@7.4.0 left-pad@1.3.0
}
l_node_next() { # one package gone, one replaced by a newer version
  (cd "$R/srv/app" && npm uninstall --silent --no-audit --no-fund --ignore-scripts --cache "$CACHE/npm" left-pad)
  npm_to "$R/srv/app" lodash@4.17.21
}
l_node_gone()  { rm -r "$R/srv/app/node_modules"; } # one whiteout for the whole tree
l_service()    { mkdir -p "$R/srv/service"; npm_to "$R/srv/service" "ms@2.1.$1"; echo "version=$1" >"$R/srv/service/VERSION"; }

l_slim()       { distroless "$1" base-files netbase tzdata libc6 libssl3 libgcc-s1; rm -rf "$R"/usr/share/{man,locale,lintian}; }
l_slim_tool()  { distroless "$1" gron hostname; }
l_go() { # Debian's binaries carry no module data but Go's version; `go install` gives main module and dependencies
  distroless amd64 age
  go_to "$R/usr/local/bin" golang.org/x/tools/cmd/html2article@v0.8.0
  local dir; dir=$(mktemp -d) # and a program of one line, whose dependency is replaced by another version
  printf 'module crowsnest.test/terminal\n\ngo 1.18\n\nrequire github.com/mattn/go-isatty v0.0.20\n\nreplace github.com/mattn/go-isatty => github.com/mattn/go-isatty v0.0.19\n' >"$dir/go.mod"
  printf 'package main\n\nimport "github.com/mattn/go-isatty"\n\nfunc main() { println(isatty.IsTerminal(1)) }\n' >"$dir/main.go"
  (cd "$dir" && GOFLAGS=-mod=mod go mod tidy && CGO_ENABLED=0 go build -buildvcs=false -trimpath -o "$R/usr/local/bin/terminal" .)
  rm -r "$dir"
}
l_alpine() { # the root that stands at the bottom of tests/images/node.tar
  tar -xOf "$here/../images/node.tar" manifest.json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["Layers"][0])' |
    xargs tar -xOf "$here/../images/node.tar" | tar -xC "$R"
}
l_nothing() { :; }

# Packages below folders whose names need long-name headers. DEPTH x 40 characters; a hard link as pnpm makes it.
l_long() { # DEPTH
  local dir="$R/srv" i
  for i in $(seq "$1"); do dir=$dir/$(printf 'a-folder-with-a-rather-long-name-%07d' "$i"); done
  npm_to "$dir" ms@2.1.2 @sindresorhus/is@0.14.0
  mkdir -p "$R/srv/.store/ms"
  ln "$dir/node_modules/ms/package.json" "$R/srv/.store/ms/package.json"
  pip_to "$dir/lib" six==1.16.0
}
# The package's file is the link and the stored file the target: in sorted order the store stands first.
l_linked() {
  npm_to "$R/srv/zoo" is-number@7.0.0 kind-of@6.0.3
  mkdir -p "$R/srv/.pnpm/is-number@7.0.0"
  mv "$R/srv/zoo/node_modules/is-number/package.json" "$R/srv/.pnpm/is-number@7.0.0/package.json"
  ln "$R/srv/.pnpm/is-number@7.0.0/package.json" "$R/srv/zoo/node_modules/is-number/package.json"
}

layer debian "" l_debian & debian=$! # waits on the mirror for most of its time
for a in amd64 arm64; do
  layer "slim-$a" "" l_slim $a
  layer "slim-tool-$a" "slim-$a" l_slim_tool $a
done
layer go "slim-amd64" l_go
layer alpine "" l_alpine
layer nothing "" l_nothing
layer long3 "" l_long 3
layer long4 "" l_long 4
layer long8 "" l_long 8
layer linked "" l_linked
wait $debian
layer ca "debian" l_ca
layer purged "debian ca" l_purged
layer states "debian ca" l_states
layer pyrt "debian ca" l_pyrt
layer pydeps "debian ca pyrt" l_pydeps
layer pyrm "debian ca pyrt pydeps" l_pyrm
layer node "debian" l_node
layer node-next "debian node" l_node_next
layer node-gone "debian node node-next" l_node_gone
for n in 1 2 3; do layer "service$n" "debian ca" l_service $n; done

# ---- images -----------------------------------------------------------------------

add() { # REPOSITORY:TAG KIND PLATFORM=LAYERS... -- COVERS
  local form=oci; [ "$2" != docker ] || form=dir
  image "$form/$(tr '/:' '__' <<<"$1")" "$@"
}
D=debian/gzip S=slim-amd64/gzip
add base/debian:bookworm oci amd64=$D -- a minbase root, one gzip layer
add base/debian:bookworm-ca oci amd64=$D,ca/zstd -- apt in an upper layer, gzip and zstd mixed
add base/debian:bookworm-docker docker amd64=$D,ca/gzip -- Docker schema 2 manifest
add base/debian:purged oci amd64=$D,ca/gzip,purged/gzip -- dpkg --purge in an upper layer
add base/debian:states oci amd64=$D,ca/gzip,states/gzip -- dpkg states config-files, unpacked, hold
add app/python:1.0 oci amd64=$D,ca/gzip,pyrt/gzip,pydeps/zstd -- dist-info, egg-info file and folder, two versions of one package
add app/python:1.1 oci amd64=$D,ca/gzip,pyrt/gzip,pydeps/zstd,pyrm/gzip -- Python packages removed by whiteouts and opaque folders
add app/node:1.0 oci amd64=$D,node/tar -- nested node_modules, scopes, an uncompressed layer
add app/node:1.1 oci amd64=$D,node/tar,node-next/gzip -- npm package removed, another replaced
add app/node:1.2 oci amd64=$D,node/tar,node-next/gzip,node-gone/gzip -- whole node_modules under one whiteout
add app/node:1.3 oci amd64=$D,node/tar,node-next/gzip,node-gone/gzip,node/tar -- the same layer twice, the second time after its removal
for n in 1 2 3; do add svc/api:v$n oci amd64=$D,ca/gzip,service$n/gzip -- images that share all but one layer; done
add distroless/tools:1.0 oci amd64=$S,slim-tool-amd64/zstd arm64=slim-arm64/gzip,slim-tool-arm64/zstd -- status.d, two-platform index
add distroless/tools:1.0-docker docker amd64=$S,slim-tool-amd64/gzip arm64=slim-arm64/gzip,slim-tool-arm64/gzip -- Docker manifest list
add distroless/tools:1.0-attested attested amd64=$S,slim-tool-amd64/gzip arm64=slim-arm64/gzip,slim-tool-arm64/gzip -- BuildKit attestation manifests
add tools/go:1.0 oci amd64=$S,go/gzip -- Go binaries with and without module data, a replaced module
add alpine/base:3.20 oci amd64=alpine/gzip,linked/gzip -- apk database, a hard link to a package file
add odd/gzip:members oci amd64=slim-amd64/gzip-members,linked/gzip-members -- gzip of several members
add odd/gzip:blocks oci amd64=slim-amd64/gzip-blocks,linked/gzip-blocks -- gzip of independent blocks, pigz -i
add odd/zstd:skippable oci amd64=slim-amd64/zstd-skippable,linked/zstd-skippable -- zstd of several frames, skippable frames between and after
add odd/zstd:leading oci amd64=slim-amd64/gzip,linked/zstd-leading -- zstd that starts with a skippable frame
add odd/paths:pax oci amd64=alpine/gzip,long8/gzip -- paths over 255 characters, pax headers, a hard link
add odd/paths:gnu oci amd64=alpine/gzip/gnu,long8/gzip/gnu -- the same with GNU long names, names start with ./
add odd/paths:posix oci amd64=alpine/gzip,long4/gzip/posix -- pax headers by GNU tar, times with fractions
add odd/paths:ustar oci amd64=alpine/gzip/ustar,long3/gzip/ustar -- paths over 100 characters with the ustar prefix field
add odd/layers:empty oci amd64=nothing/gzip,alpine/gzip,nothing/tar,nothing/gzip -- layers without entries
say "packing"
rm -rf "$OUT/oci" "$OUT/dir"
python3 "$here/pack.py" "$SPEC" "$LAYERS" "$OUT"

# ---- what each image must show ---------------------------------------------------

expected() {
  local file; file=$(tr '/:' '__' <<<"$1_$2").tsv
  python3 "$here/truth.py" "$R" "$OUT/owned/$file" >"$OUT/expected/$file"
}
say "expected packages"
rm -rf "$OUT/expected" "$OUT/owned"; mkdir "$OUT/expected" "$OUT/owned"
each_image expected
{
  printf 'name\trepository\ttag\tsource\tkind\tplatforms\tlayers\tcovers\n'
  while IFS=$'\t' read -r layout reference kind covers platforms; do
    source=${layout%%/*}:$layout; [ "$kind" = docker ] || source=$source:${reference#*:}
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${layout#*/}" "${reference%:*}" "${reference#*:}" "$source" "$kind" \
      "$(sed -e 's|=[^\t]*||g' -e 's|^|linux/|' -e 's|\t|,linux/|g' <<<"$platforms")" "$(sed 's|\t|; |g' <<<"$platforms")" "$covers"
  done <"$SPEC"
} >"$OUT/images.tsv"
say "$(($(wc -l <"$OUT/images.tsv") - 1)) images in $OUT/images.tsv"
