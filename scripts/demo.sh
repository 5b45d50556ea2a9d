#!/bin/bash
# The story of an encrypted disk, told with the real program: no questions, ends
# by itself, leaves nothing behind; the exit status says whether all of it was
# true. Called by `make demo`, which sees to the tools and the binary.
set -u
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
bin=${SEALDISK_BIN:-$PWD/bin/sealdisk}
[ -x "$bin" ] || { echo "error: $bin is not there: make build" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/sealdisk-demo.$$.XXXXXX") || exit 1
export SEALDISK_RUN_DIR=$work/run SEALDISK_PROJECT=default
unset SEALDISK_OUTPUT
began=$EPOCHREALTIME
daemon='' device='' mounted=''

tidy_up() {
	local status=$?
	trap - EXIT INT TERM
	[ -z "$mounted" ] || umount "$work/mnt"
	[ -z "$device" ] || nbd-client -d "$device" >/dev/null 2>&1
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null
		wait "$daemon" 2>/dev/null
	fi
	if [ $status != 0 ]; then
		echo
		echo "The demo failed. The daemon's last words:"
		tail -n 30 "$work/serve.log" 2>/dev/null | sed 's/^/    /'
	fi
	rm -rf "$work"
	exit $status
}
trap tidy_up EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

since() { awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%4.1f s", b - a }'; }
chapter() { printf '\n%s[%s] %s%s\n' "$bold" "$(since)" "$1" "$plain"; }
tell() { printf '         %s\n' "$*"; }
show() { printf '%s         $ %s%s\n' "$dim" "$*" "$plain"; }
die() {
	printf '\nerror: %s\n' "$*" >&2
	exit 1
}

# run COMMAND…: shown, its output indented; it must succeed.
run() {
	show "${@/#"$bin"/sealdisk}"
	"$@" >"$work/out" 2>"$work/err" || {
		cat "$work/out" "$work/err" >&2
		die "that should have worked: ${*/#"$bin"/sealdisk}"
	}
	sed 's/^/         /' "$work/out"
}

backing_file() { find "$work/state/disks" -name disk.img; }

# put and get move the file system between a directory and the attached disk:
# through the kernel where it has NBD, else through libnbd.
kernel=''
if [ "$(id -u)" = 0 ] && command -v nbd-client >/dev/null; then
	for d in /dev/nbd[0-9] /dev/nbd[0-9][0-9]; do
		if [ -b "$d" ] && ! nbd-client -c "$d" >/dev/null 2>&1; then
			kernel=$d
			break
		fi
	done
fi

connect() {
	nbd-client -unix "${uri#*socket=}" "$kernel" -N private >/dev/null 2>"$work/err" || {
		cat "$work/err" >&2
		die "nbd-client can't connect to the disk"
	}
	device=$kernel
}

disconnect() {
	umount "$work/mnt" && mounted=''
	nbd-client -d "$device" >/dev/null 2>&1
	device=''
}

put() {
	if [ -n "$kernel" ]; then
		show "nbd-client -unix ${uri#*socket=} $kernel -N private"
		connect
		run mkfs.ext4 -q "$kernel"
		mkdir -p "$work/mnt"
		run mount "$kernel" "$work/mnt"
		mounted=yes
		run cp -r "$work/papers/." "$work/mnt"
		sync -f "$work/mnt"
	else
		tell "(this kernel has no free /dev/nbdX: the file system is made in a file and copied in by libnbd)"
		run mke2fs -q -t ext4 -d "$work/papers" "$work/fs.img" 64M
		run nbdcopy --flush "$work/fs.img" "$uri"
	fi
}

get() {
	rm -rf "$work/back"
	mkdir "$work/back"
	if [ -n "$kernel" ]; then
		if [ -z "$device" ]; then
			connect
			run mount "$kernel" "$work/mnt"
			mounted=yes
		fi
		echo 3 >/proc/sys/vm/drop_caches
		run cp -r "$work/mnt/." "$work/back"
		rmdir "$work/back/lost+found"
	else
		rm -f "$work/fs-back.img"
		run nbdcopy "$uri" "$work/fs-back.img"
		run debugfs -R "rdump / $work/back" "$work/fs-back.img"
		rmdir "$work/back/lost+found"
	fi
	diff -r "$work/papers" "$work/back" || die "what came back is not what was written"
	tell "every file is the same."
}

attach() {
	show "sealdisk disk attach private"
	uri=$("$bin" disk attach private 2>"$work/err") || {
		cat "$work/err" >&2
		die "the disk can't be attached"
	}
	tell "$uri"
}

# ---

chapter "Start: one daemon; its KMS is a process of its own"
show "sealdisk serve --state-dir $work/state --run-dir $work/run &"
"$bin" serve --state-dir "$work/state" --run-dir "$work/run" >"$work/serve.log" 2>&1 &
daemon=$!
until "$bin" status >"$work/out" 2>&1; do
	kill -0 $daemon 2>/dev/null || die "the daemon ended: $(tail -n 3 "$work/serve.log")"
	[ "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print (b - a > 20) }')" = 0 ] || die "the daemon doesn't answer: $(cat "$work/out")"
	sleep 0.05
done
run "$bin" status

chapter "Agency: the project lets the disk service use its keys"
show "sealdisk disk create early --size 16M"
if "$bin" disk create early --size 16M >"$work/out" 2>&1; then die "a disk was encrypted without an agency"; fi
sed 's/^/         /' "$work/out"
run "$bin" agency grant

chapter "Key: a custom key in the KMS"
run "$bin" key create papers

chapter "Disk: 64 MiB, encrypted with a data key that the KMS wraps"
run "$bin" disk create private --size 64M --key papers

chapter "Attach: the data key goes into locked memory, the disk onto a socket"
attach

chapter "A file system on it, with files written and read back"
marker="the quick brown marker $RANDOM$RANDOM$RANDOM"
mkdir "$work/papers" "$work/papers/deep"
for n in $(seq 400); do echo "$n: $marker"; done >"$work/papers/letter.txt"
head -c 3000000 /dev/urandom >"$work/papers/deep/photo.raw"
put
get

chapter "On disk: none of it can be read, and it is plain LUKS2"
image=$(backing_file)
grep -q -a "$marker" "$work/papers/letter.txt" || die "the search itself does not work"
show "grep -c '$marker' $image"
if grep -q -a "$marker" "$image"; then die "plaintext stands in the backing file"; fi
tell "0"
show "cryptsetup luksDump $image"
cryptsetup luksDump "$image" >"$work/out" 2>&1 || die "cryptsetup can't read the header: $(cat "$work/out")"
grep -E '^Version|^UUID|cipher:|sector:|sealdisk|^Requirements|length:' "$work/out" | sed 's/^/         /'
grep -q 'aes-xts-plain64' "$work/out" || die "luksDump shows no aes-xts-plain64"

chapter "The key is disabled: what is attached goes on"
run "$bin" key disable papers --yes
get
chapter "... but once detached, it can't be attached"
[ -z "$kernel" ] || disconnect
run "$bin" disk detach private
show "sealdisk disk attach private"
"$bin" disk attach private >"$work/out" 2>&1
status=$?
sed 's/^/         /' "$work/out"
[ $status = 6 ] || die "exit status $status, expected 6: the key can't be used"
tell "(exit status 6: the key can't be used)"

chapter "The key is enabled: the data is back"
run "$bin" key enable papers
attach
get
[ -z "$kernel" ] || disconnect

chapter "Tidy up"
run "$bin" disk detach private
run "$bin" disk delete private --yes
[ -z "$(backing_file)" ] || die "the disk's file is still there"
kill "$daemon" && wait "$daemon"
status=$?
daemon=''
[ $status = 0 ] || [ $status = 143 ] || die "the daemon ended with status $status"

chapter "All of it was true. By hand:"
cat <<'HAND'
         bin/sealdisk serve &                      # root: /var/lib/sealdisk; others: below ~/.local/state
         bin/sealdisk agency grant
         bin/sealdisk key create papers
         bin/sealdisk disk create private --size 10G --key papers
         uri=$(bin/sealdisk disk attach private)   # tells the nbd-client line too
         nbdinfo "$uri"                            # or: nbd-client -unix SOCKET /dev/nbd0 -N private
         bin/sealdisk disk detach private
HAND
