#!/bin/bash
# deps.sh demo|test|bench: sees to what the demo, the tests or the benchmarks
# need beyond Go.
# Root: installs what is missing with apt-get, visibly. Others: prints
# one line to run, and exits 2. Nothing missing: says nothing.
set -u
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cd "$(dirname "$0")/.." || exit 1

need_go=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' go.mod)

# Debian package, and how its presence is seen: a command, a file, or a module of
# the system's Python.
demo='
libnbd-bin        nbdcopy
e2fsprogs         mke2fs
cryptsetup-bin    cryptsetup
'
test=$demo'
busybox-static    busybox
fdisk             sfdisk
fio               fio
gcc               gcc
iproute2          ip
kmod              modprobe
libc6-dev         /usr/include/stdlib.h
nbd-client        nbd-client
python3-cryptography py:cryptography
python3-cryptography-vectors py:cryptography_vectors
python3-libnbd    py:nbd
qemu-user-static  qemu-aarch64-static
qemu-utils        qemu-io
strace            strace
user-mode-linux   linux.uml
util-linux        setpriv
xfsprogs          mkfs.xfs
'
bench='
fio               fio
nbdkit            nbdkit
qemu-utils        qemu-nbd
'

go_is_new_enough() {
	local have
	if ! command -v go >/dev/null; then
		echo "error: Go $need_go or newer is needed, and no go was found." >&2
		echo "hint: get it from https://go.dev/dl/ and put its bin directory into PATH" >&2
		return 1
	fi
	# Run here, go may fetch the newer toolchain that go.mod asks for.
	have=$(go version 2>&1)
	have=$(sed -n 's/^go version go\([0-9]*\.[0-9]*\).*/\1/p' <<<"$have")
	if [ -z "$have" ] || [ "$(printf '%s\n' "$need_go" "$have" | sort -V | head -n 1)" != "$need_go" ]; then
		echo "error: Go $need_go or newer is needed; this is $(cd / && go version 2>&1 | head -n 1)." >&2
		echo "hint: get it from https://go.dev/dl/ and put its bin directory before $(command -v go) in PATH" >&2
		return 1
	fi
}

present() {
	case $1 in
	py:*) /usr/bin/python3 -c "import ${1#py:}" 2>/dev/null ;;
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

case ${1-} in
demo) wanted=$demo ;;
test) wanted=$test ;;
bench) wanted=$bench ;;
go) wanted= ;;
*)
	echo "usage: $0 demo|test|bench|go" >&2
	exit 2
	;;
esac

go_is_new_enough || exit 2
missing=()
while read -r package sign; do
	[ -z "$package" ] || present "$sign" || missing+=("$package")
done <<<"$wanted"
# The demo goes through the kernel where it can.
if [ "$1" = demo ] && [ -e /dev/nbd0 ] && ! command -v nbd-client >/dev/null; then
	missing+=(nbd-client)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "error: missing here (names of Debian packages): ${missing[*]}" >&2
	exit 2
fi
if [ "$(id -u)" != 0 ]; then
	echo "These packages are missing. Run this, then try again:" >&2
	echo "sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
	exit 2
fi
echo "Installing what is missing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
set -x
apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}" || exit 1
