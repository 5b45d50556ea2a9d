# Proves the harness itself: what=pass|fail|hang|crash on the command line.
step "boots with nbd" module nbd
case $what in
pass) step "a step passes" true ;;
fail) step "a step fails" bash -c 'echo the reason; exit 3' ;;
late) limit=1 step "a step takes too long" sleep 60 ;;
hang) exec sleep 3600 ;;
crash) exit 1 ;;
esac
