# ext4 on an encrypted disk, from mkfs to the second mount.
. "$lib/disks.sh"
export client= fio_size=${fio_size:-8m}
step "nbd module" module nbd
start
step "create" create vol 192M
cycle ext4 vol
