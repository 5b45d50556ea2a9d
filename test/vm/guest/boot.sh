#!/bin/bash
# The init of the guest. The host's file system is the root, read-only; all
# that is written goes to a tmpfs. From the kernel's command line:
#   lib=DIR       where this script and its scenarios are
#   scenario=NAME what to run: $lib/NAME.sh
#   bin=FILE      the sealdisk binary
# Results go to the console as lines that begin with "@@", see lib.sh.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/tmp LANG=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
for d in /tmp /run /mnt /var/lib; do mount -t tmpfs -o size=90% tmp $d; done
mkdir -p /dev/shm /run/lock /run/t /tmp/kmod/lib
mount -t tmpfs shm /dev/shm
# cryptsetup insists on a cgroup-less udev; nobody answers its cookies here.
export DM_DISABLE_UDEV=1
ln -s /usr/lib/uml/modules /tmp/kmod/lib/modules
ip link set lo up
dmesg -n 4

. "$lib/lib.sh"
. "$lib/$scenario.sh"
finish
