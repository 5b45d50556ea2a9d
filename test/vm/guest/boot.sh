#!/bin/bash
# The init of the guest. The host's file system is the root, read-only; all
# that is written goes to memory. From the kernel's command line:
#   lib=DIR       where this script and its scenarios are
#   scenario=NAME what to run: $lib/NAME.sh
#   bin=FILE      the sealdisk binary
#   extra=FILE    another program that the scenario needs
# Results go to the console as lines that begin with "@@", see lib.sh.
export PATH=/dev/test/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/run TMPDIR=/run/tmp LANG=C
mountpoint -q /dev || busybox mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/test/bin
# Set-user-id programs lose root where another user runs the guest.
cp /usr/bin/mount /usr/bin/umount /dev/test/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
# The checkout may lie below a directory that is covered next.
cp -r "$lib" /dev/test/lib && cp "$bin" /dev/test/sealdisk
[ -z "$extra" ] || cp "$extra" /dev/test/extra
lib=/dev/test/lib bin=/dev/test/sealdisk extra=/dev/test/extra
for d in /run /mnt /var/lib; do mount -t tmpfs -o size=90% tmp $d; done
mkdir -p /run/tmp /run/lock /run/t /run/kmod/lib
mount -t tmpfs shm /dev/shm
# cryptsetup insists on a cgroup-less udev; nobody answers its cookies here.
export DM_DISABLE_UDEV=1
ln -s /usr/lib/uml/modules /run/kmod/lib/modules
ip link set lo up
dmesg -n 4

. "$lib/lib.sh"
. "$lib/$scenario.sh"
finish
