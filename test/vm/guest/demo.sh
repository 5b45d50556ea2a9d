# The demo where the kernel has NBD: it goes through /dev/nbd0.
step "nbd module" module nbd
demo() { SEALDISK_BIN=$bin bash $extra >/run/t/demo && grep -q 'nbd-client -unix .* /dev/nbd0' /run/t/demo; }
export bin extra
export -f demo
limit=200 step "the demo is true" demo
step "nothing is left" bash -c '! nbd-client -c /dev/nbd0 && ! ls -d $TMPDIR/sealdisk-demo* && ! pgrep -x sealdisk'
