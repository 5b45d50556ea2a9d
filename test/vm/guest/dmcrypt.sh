# dm-crypt mounts a finalized disk with nothing but the data key, and refuses
# one that may have holes, which it would read as noise.
. "$lib/disks.sh"
modules() { for m in nbd loop aes_generic cbc ecb xts sha256_generic dm-mod dm-crypt; do module $m || return; done; }
find_image() { image=$(echo $state/disks/*/disk.img); test -f "$image" && ln -s "$image" /run/t/image; }
get_key() { /usr/bin/python3 "$lib/datakey.py" /run/t/image $SEALDISK_RUN_DIR/kms.sock >/run/t/dk && test $(stat -c %s /run/t/dk) = 64; }
crypt_open() { cryptsetup open --disable-keyring --key-size 512 --volume-key-file /run/t/dk /run/t/image plain; }
refused() { fails crypt_open >/run/t/refusal 2>&1 && cat /run/t/refusal && grep -i requirement /run/t/refusal; }
add_file() { echo "written through dm-crypt" >/mnt/tree/by-dm-crypt && sync; }
read_file() { grep -q "written through dm-crypt" /mnt/tree/by-dm-crypt && rm /mnt/tree/by-dm-crypt && same_files /mnt; }
export -f modules find_image get_key crypt_open refused add_file read_file

step "modules" modules
start
step "create" create vol 64M
step "attach" attach vol
step "nbd-client" connect vol /dev/nbd0
# dm-crypt shows sectors of 4096 bytes, so the file system may not have smaller blocks.
step "mkfs" mkfs.ext4 -q -b 4096 /dev/nbd0
step "mount" mount /dev/nbd0 /mnt
step "files" files /mnt
step "fstrim" trim /mnt
step "umount" umount /mnt
step "disconnect" disconnect /dev/nbd0
step "detach" detach vol
step "image" find_image
step "data key" get_key
step "dm-crypt refuses a disk with holes" refused
step "finalize" "$bin" disk finalize vol --yes
step "dm-crypt opens a finalized disk" crypt_open
step "fsck clean" clean ext4 /dev/mapper/plain
step "mount through dm-crypt" mount /dev/mapper/plain /mnt
step "contents equal" same_files /mnt
step "a file through dm-crypt" add_file
step "umount again" umount /mnt
step "close" cryptsetup close plain
step "attach again" attach vol
step "nbd-client again" connect vol /dev/nbd0
step "mount again" mount /dev/nbd0 /mnt
step "the file of dm-crypt is there" read_file
step "umount at the end" umount /mnt
step "disconnect at the end" disconnect /dev/nbd0
step "detach at the end" detach vol
