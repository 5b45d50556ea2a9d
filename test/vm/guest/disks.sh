# Disks on the guest's kernel: a server, nbd-client, file systems, fio.

export SEALDISK_RUN_DIR=/run/sd SEALDISK_PROJECT=default
export bin server="${server:-sealdisk}" state="${state:-/var/lib/sd}"

serve() {
	mkdir -p $state
	"$bin" serve --state-dir $state >/run/t/serve.log 2>&1 &
	until_true 30 "$bin" status
}

# start: the daemon, and EVS allowed to use KMS.
start() {
	[ $server = sealdisk ] || return
	serve
	step "daemon answers" "$bin" status
	# This kernel has no memfd_secret; the daemon must not claim it.
	step "key memory is told" bash -c '"$bin" status --output json | tee /dev/stderr | grep -q mlock'
	step "agency" authorize
}

authorize() { "$bin" agency grant; }

# create NAME SIZE [FLAGS…]
create() {
	local name=$1 size=$2
	shift 2
	if [ $server = nbdkit ]; then
		truncate -s $size /run/t/$name.img
		return
	fi
	"$bin" disk create $name --size $size "$@"
}

attach() {
	if [ $server = nbdkit ]; then
		echo "nbd+unix:///$1?socket=/run/t/$1.sock" >/run/t/$1.uri
		nbdkit -U /run/t/$1.sock -P /run/t/$1.pid file /run/t/$1.img
		return
	fi
	"$bin" disk attach $1 >/run/t/$1.uri && cat /run/t/$1.uri
}

detach() {
	if [ $server = nbdkit ]; then
		kill $(cat /run/t/$1.pid) && until_true 10 bash -c "! kill -0 $(cat /run/t/$1.pid)" && rm /run/t/$1.sock
		return
	fi
	"$bin" disk detach $1
}

# connect NAME DEVICE [nbd-client's flags…]
connect() {
	local uri name=$1 dev=$2
	uri=$(cat /run/t/$name.uri)
	shift 2
	nbd-client -unix "${uri#*socket=}" $dev -N $name -p -timeout 60 "$@" && until_true 10 nbd-client -c $dev &&
		test "$(blockdev --getsize64 $dev)" -gt 0
}

connections() { "$bin" status | tee /dev/stderr | grep -q "^nbd connections  *$1\$"; }

disconnect() { nbd-client -d $1 && until_true 30 bash -c "! nbd-client -c $1"; }

# fio's verify: written, read back, compared; the second run reads only, from the medium.
fio_verify() {
	local where=$1 direct=$2 size=${3:-16m}
	local args=(--name=v --directory=$where --size=$size --numjobs=4 --thread --direct=$direct
		--ioengine=psync --rw=randwrite --bsrange=512-64k --blockalign=512 --verify=crc32c --verify_fatal=1 --verify_state_save=0
		--randrepeat=1 --randseed=7 --fsync=64 --minimal)
	[ $direct = 1 ] && args+=(--bsrange=4k-64k --blockalign=4k)
	fio "${args[@]}" --do_verify=1 | tail -n 1 | cut -c 1-80 || return
	sync
	echo 3 >/proc/sys/vm/drop_caches
	fio "${args[@]}" --verify_only | tail -n 1 | cut -c 1-80 || return
	rm $where/v.*
}

# files WHERE: a tree of known contents, and its sums.
files() {
	mkdir -p $1/tree/deep/er
	cp -r /etc/ssl /usr/share/common-licenses $1/tree/ 2>/dev/null
	for n in 1 2 3 4 5; do
		openssl enc -aes-128-ctr -pass pass:$n -nosalt -pbkdf2 -iter 1 </dev/zero 2>/dev/null | head -c $((n * 777777)) >$1/tree/deep/er/$n
	done
	(cd $1/tree && find . -type f -print0 | sort -z | xargs -0 sha256sum) >/run/t/sums
	test $(wc -l </run/t/sums) -gt 5
	cp /run/t/sums /run/t/sums.before
	sync
}

same_files() {
	(cd $1/tree && sha256sum --quiet -c /run/t/sums.before) &&
		(cd $1/tree && find . -type f -print0 | sort -z | xargs -0 sha256sum) | diff /run/t/sums.before -
}

trim() {
	local before after
	rm -rf $1/tree/deep/er/[45]
	sed -i '/er\/[45]$/d' /run/t/sums.before
	fstrim -v $1 | tee /run/t/trimmed
	grep -q -v ': 0 B' /run/t/trimmed
}

clean() { case $1 in ext4) fsck.ext4 -f -n $2 ;; xfs) xfs_repair -n $2 ;; esac; }

make_fs() { case $1 in ext4) mkfs.ext4 -q -F $2 ;; xfs) mkfs.xfs -q -f $2 ;; esac; }

# cycle FSTYPE DISK: the life of a file system, on /dev/nbd0 with the flags in $client.
cycle() {
	local fs=$1 disk=$2
	step "$fs: attach" attach $disk
	step "$fs: nbd-client" connect $disk /dev/nbd0 $client
	case $client in *-C\ 4*) step "$fs: four connections" connections 4 ;; esac
	step "$fs: mkfs" make_fs $fs /dev/nbd0
	step "$fs: mount" mount -t $fs /dev/nbd0 /mnt
	step "$fs: files" files /mnt
	step "$fs: fio buffered" fio_verify /mnt 0 $fio_size
	step "$fs: fio direct" fio_verify /mnt 1 $fio_size
	step "$fs: fstrim" trim /mnt
	step "$fs: contents equal" same_files /mnt
	step "$fs: umount" umount /mnt
	step "$fs: disconnect" disconnect /dev/nbd0
	step "$fs: detach" detach $disk
	step "$fs: attach again" attach $disk
	step "$fs: nbd-client again" connect $disk /dev/nbd0 $client
	step "$fs: fsck clean" clean $fs /dev/nbd0
	step "$fs: mount again" mount -t $fs /dev/nbd0 /mnt
	step "$fs: contents equal again" same_files /mnt
	step "$fs: umount again" umount /mnt
	step "$fs: disconnect again" disconnect /dev/nbd0
	step "$fs: detach again" detach $disk
}

export -f serve authorize create attach detach connect connections disconnect fio_verify files same_files trim clean make_fs
