# What every scenario uses. A step's result is one line on the console:
#   @@ PASS name (seconds)
#   @@ FAIL name: exit status     followed by "@@ LOG" lines; then the guest halts
#   @@ END                        the scenario came to its end

module() { modprobe -d /run/kmod "$@"; }

# step NAME COMMAND…: the command, or function, must succeed within $limit
# seconds. It runs in a shell of its own: what must last goes to files in /run/t.
step() {
	local name=$1 log=/run/t/log start status
	shift
	start=$EPOCHREALTIME
	timeout -k 5 "${limit:-150}" bash -c '"$@"' step "$@" >$log 2>&1 </dev/null
	status=$?
	if [ $status = 0 ]; then
		echo "@@ PASS $name ($(elapsed "$start"))"
		return
	fi
	echo "@@ FAIL $name: exit $status after $(elapsed "$start")"
	tail -n 40 $log | sed 's/^/@@ LOG /'
	[ -e /run/t/serve.log ] && tail -n 40 /run/t/serve.log | sed 's/^/@@ LOG serve: /'
	dmesg | tail -n 20 | sed 's/^/@@ LOG dmesg: /'
	busybox poweroff -f
}

elapsed() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }'; }

# exits STATUS COMMAND…: the command must end with this very status.
exits() {
	local want=$1 got=0
	shift
	"$@" || got=$?
	echo "exit status $got, want $want"
	[ $got = "$want" ]
}

# fails COMMAND…: the command must fail (with a status of its own, not by a signal).
fails() {
	local got=0
	"$@" || got=$?
	echo "exit status $got, want a failure"
	[ $got -gt 0 ] && [ $got -lt 124 ]
}

# until_true SECONDS COMMAND…: polls until the command succeeds.
until_true() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $deadline ]; then
			echo "still not so: $*"
			"$@"
			return 1
		fi
		sleep 0.1
	done
}

finish() {
	echo "@@ END"
	busybox poweroff -f
}

export -f module elapsed exits fails until_true
