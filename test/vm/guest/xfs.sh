# XFS on an encrypted disk, with four connections from nbd-client.
. "$lib/disks.sh"
export client="-C 4" fio_size=${fio_size:-8m}
step "nbd module" module nbd
start
step "create" create vol 400M
cycle xfs vol
