#!/usr/bin/env bash
# Builds the static binary for x86_64 Linux out of Debian's packages and crates.io alone, and proves that it works.
#
#   tests/tools/static-build.sh --deps     installs (apt, as root) what the build needs
#   tests/tools/static-build.sh            builds and checks; the binary's path is the last line
#
# With internet there is a shorter way, see README.md. Here the standard library is built from Debian's source of it
# (no target of rustup is fetched), so the compiler must be Debian's too: both are of one version.
set -euo pipefail
cd "$(dirname "$0")/../.."

TRIPLE=x86_64-unknown-linux-musl
OUT=${CARGO_TARGET_DIR:-target}/static  # apart from other builds: another compiler
MAX_BYTES=$((10 << 20))

if [ "${1:-}" = --deps ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends rustc-web cargo-web rust-web-src \
    gcc g++ make musl-tools file openssl python3 libc-bin ca-certificates >/dev/null
  exit
fi
mkdir -p "$OUT"; OUT=$(cd "$OUT" && pwd)
say() { echo "static: $*"; }
fail() { say "failed: $*"; exit 1; }

# ---- an unwinder for musl --------------------------------------------------------
# Unwinding wants a static libunwind. LLVM's, as Debian packs it, was built against glibc; of that it needs one symbol
# that musl lacks. The package is unpacked, not installed: it does not get along with the libunwind of other projects.
# gcc's libgcc_eh links as well, but finds no frames, and every panic ends the process.
if [ ! -e "$OUT/unwind/libunwind.a" ]; then
  say "unwinder"
  rm -rf "$OUT/unwind"; mkdir -p "$OUT/unwind/package"
  (cd "$OUT/unwind" && apt-get -o APT::Sandbox::User=root download -qq libunwind-14-dev && dpkg -x libunwind-14-dev_*.deb package)
  cat >"$OUT/unwind/shim.c" <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
  (void)flag;
  va_list args;
  va_start(args, format);
  int n = vfprintf(file, format, args);
  va_end(args);
  return n;
}
C
  musl-gcc -O2 -c -o "$OUT/unwind/shim.o" "$OUT/unwind/shim.c"
  # A linker script under the name that the standard library asks for.
  echo "INPUT($OUT/unwind/shim.o $(echo "$OUT"/unwind/package/usr/lib/llvm-14/lib/libunwind.a))" >"$OUT/unwind/libunwind.a"
fi

# ---- build -----------------------------------------------------------------------
# relocation-model=static: musl-gcc gives a static-pie an interpreter, and then it is not static.
say "build with $(/usr/bin/rustc --version)"
env -u RUSTUP_TOOLCHAIN PATH="/usr/bin:/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
  CC_x86_64_unknown_linux_musl=musl-gcc CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc \
  RUSTFLAGS="-C link-self-contained=no -C target-feature=+crt-static -C relocation-model=static -L native=$OUT/unwind" \
  /usr/bin/cargo build --quiet --release --locked -Zbuild-std=std,panic_abort --target "$TRIPLE" --target-dir "$OUT" \
  --bin crowsnest --example static-probe
binary=$OUT/$TRIPLE/release/crowsnest
probe=$OUT/$TRIPLE/release/examples/static-probe

# ---- checks ----------------------------------------------------------------------
for program in "$binary" "$probe"; do
  file "$program" | grep -q 'statically linked' || fail "$(file "$program")"
  dynamic=$(ldd "$program" 2>&1 || true)
  [[ $dynamic == *"not a dynamic executable"* ]] || fail "ldd: $dynamic"
done
bytes=$(stat -c %s "$binary")
[ "$bytes" -le $MAX_BYTES ] || fail "$bytes bytes, at most $MAX_BYTES are allowed"
say "statically linked, $bytes bytes"
say "$(env -i "$binary" version)"
while read -r line; do say "$line"; done < <("$probe" || echo "probe ended with an error")
"$probe" >/dev/null || fail "the probe"

# TLS, sockets, inflating and the store: an image out of a registry whose certificate comes from an authority of our own.
work=$(mktemp -d); server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=test authority' \
  -keyout "$work/ca.key" -out "$work/ca.pem" 2>"$work/openssl.log" || fail "$(cat "$work/openssl.log")"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=localhost' -keyout "$work/key.pem" -out "$work/request.pem" 2>/dev/null
openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 -out "$work/cert.pem" \
  -extfile <(echo 'subjectAltName=DNS:localhost') 2>/dev/null
python3 tests/tools/tls-registry.py tests/images/debian "$work/cert.pem" "$work/key.pem" "$work/port" & server=$!
for _ in $(seq 100); do [ -e "$work/port" ] || sleep 0.1; done
[ -e "$work/port" ] || fail "the TLS server did not come up"
host=localhost:$(cat "$work/port")
watch() {
  env -i HOME="$work" "$binary" watch --all-images --data-dir "$work/store" "$@" 2>"$work/log" \
    --registry "type=artifactory,registry=$host,api=https://$host/artifactory,repository=local,subdomain-mode=false"
}

rc=0; watch || rc=$?
[ $rc -ne 0 ] && grep -qi certificate "$work/log" || fail "without --ca-cert: exit code $rc, $(cat "$work/log")"
say "without --ca-cert: $(grep -i -m 1 certificate "$work/log")"
watch --ca-cert "$work/ca.pem" || fail "with --ca-cert: exit code $?, $(cat "$work/log")"
grep -q 'done .*failed=0 ' "$work/log" || fail "with --ca-cert: $(cat "$work/log")"
say "with --ca-cert: $(grep -o 'done .*' "$work/log")"
echo "$binary"
