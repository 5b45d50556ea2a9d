# A partition table on the disk: two partitions with a file system each, seen
# again after another attach. One step uses four connections and blocks of 4096.
. "$lib/disks.sh"
step "nbd module" module nbd max_part=4
start
step "create" create vol 600M
step "attach" attach vol
step "nbd-client" connect vol /dev/nbd0
table() { printf 'label: gpt\nsize=200MiB\nsize=350MiB\n' | sfdisk -q /dev/nbd0 && until_true 10 test -b /dev/nbd0p2; }
both() {
	mkfs.ext4 -q -F /dev/nbd0p1 && mkfs.xfs -q -f /dev/nbd0p2 && mkdir -p /run/t/a /run/t/b &&
		mount /dev/nbd0p1 /run/t/a && mount /dev/nbd0p2 /run/t/b
}
again() {
	until_true 10 test -b /dev/nbd0p2 && fsck.ext4 -f -n /dev/nbd0p1 && xfs_repair -n /dev/nbd0p2 &&
		mount /dev/nbd0p1 /run/t/a && mount /dev/nbd0p2 /run/t/b
}
export -f table both again
step "partition table" table
step "file systems on both" both
step "files on the second" files /run/t/b
step "files on the first" files /run/t/a
step "umount" umount /run/t/a /run/t/b
step "disconnect" disconnect /dev/nbd0
step "detach" detach vol
step "attach again" attach vol
step "nbd-client -C 4 -b 4096" connect vol /dev/nbd0 -C 4
step "fsck and mount both" again
step "contents equal" same_files /run/t/a
step "contents equal on the second" same_files /run/t/b
step "umount again" umount /run/t/a /run/t/b
step "disconnect again" disconnect /dev/nbd0
step "detach again" detach vol
