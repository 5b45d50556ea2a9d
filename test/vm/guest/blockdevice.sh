# The tests of package blockdev that need a real block device, on a loop device.
step "loop device" bash -c 'module loop && truncate -s 48M /run/t/file && losetup /dev/loop0 /run/t/file'
limit=600 step "tests on a block device" env SEALDISK_TEST_BLOCK_DEVICE=/dev/loop0 $extra -test.run '^TestBlockDevice$' -test.v
