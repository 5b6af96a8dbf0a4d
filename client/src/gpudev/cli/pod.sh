# `gpudev run` inside a job: a POSIX shell's functions. They need nothing of the image: the programs are those of the
# job's SSH (busybox), and this machine's own where there are none, on a local stack.
#
# Called with a verb, the folder of the run's state, and the verb's arguments, in the folder that the command runs in.
# The state: go (all was sent), command, outs, keep, stdin (it is wanted), pid (of the command's process group), out (its
# output), in and in.end (its input), exit (its exit code and why), alive (touched while a client is here), session (whose
# input counts), done (the client has everything).

tool() {
	if [ -x /gpudev/bin/busybox ]; then /gpudev/bin/busybox "$@"; else "$@"; fi
}

# To the client, beside what is printed.
say() {
	printf 'gpudev-run: %s\n' "$*" >&2
}

# Until the caller ends: shows that somebody is here. In a subshell: a function's redirections would keep the streams.
stay() {
	while kill -0 $$ 2>/dev/null; do
		: > "$state/alive"
		tool sleep 5
	done
}

# Whether nobody was here for a quarter of an hour.
deserted() {
	[ -z "$(tool find "$state/alive" -mmin -15 2>/dev/null)" ]
}

# --- receive: the archive on standard input; its last file is `go`, so that half of one starts nothing

receive() {
	if [ -e "$state/go" ]; then say started; return 0; fi
	tool mkdir -p "$state" || return
	(stay) < /dev/null > /dev/null 2>&1 &
	tool tar -xzf - && [ -e "$state/go" ] && say started
}

# --- run: the job's own command, once there is `go`

# Processes of this container that the kernel has killed for want of memory, so far.
oom_kills() {
	while read -r name count; do
		[ "$name" != oom_kill ] || echo "$count"
	done 2>/dev/null < "$1"
}

# What FILE has behind OFFSET, as it comes, until there is ENDED; or until another session counts.
copy() { # FILE ENDED OFFSET
	exec 3< "$1"
	tool dd bs=1 skip="$3" count=0 <&3 2>/dev/null
	while :; do
		last=
		[ ! -e "$2" ] || last=1 # looked for before the rest is read: nothing comes after it
		tool cat <&3 || return
		[ -z "$last" ] || return 0
		counts || return
		tool sleep 0.1
	done
}

run() {
	stopping=
	trap : INT # the command's group is this shell's; a trap, unlike being deaf, is not handed on
	trap 'stopping=1' TERM
	echo $$ > "$state/pid"
	memory=/sys/fs/cgroup/memory.events
	[ -e "$memory" ] || memory=/sys/fs/cgroup/memory/memory.oom_control
	killed=$(oom_kills "$memory")
	: > "$state/in"
	: > "$state/out"
	(
		trap '' TERM # what was printed at the end belongs to the job's log, too
		copy "$state/out" "$state/exit" 0
	) &
	log=$!
	feeder=
	input=/dev/null
	if [ -e "$state/stdin" ]; then
		input=$state/fifo
		tool mkfifo "$input"
		(copy "$state/in" "$state/in.end" 0 > "$input") &
		feeder=$!
	fi
	shell=/bin/sh
	[ -x "$shell" ] || shell=/gpudev/bin/sh
	(. "$state/command") < "$input" >> "$state/out" 2>&1
	code=$?
	[ -z "$feeder" ] || kill "$feeder" 2>/dev/null
	why=
	[ "$(oom_kills "$memory")" = "$killed" ] || why="out of memory: the kernel killed a process of it"
	: > "$state/alive"
	echo "$code $why" > "$state/exit.new"
	tool mv "$state/exit.new" "$state/exit"
	wait "$log"
	linger
	tool rm -rf "$state"
	tool rmdir "${state%/*}" 2>/dev/null
	exit "$code"
}

# Until the client has the end and what it wants to bring back, or nobody comes for it.
linger() {
	while [ -z "$stopping" ] && [ ! -e "$state/done" ]; do
		tool sleep 0.2
		[ -e "$state/keep" ] || ! deserted || return
	done
}

# --- attach: the output on standard output from OFFSET on; standard input brings what the client has to say

lock() {
	until tool mkdir "$state/lock" 2>/dev/null; do
		tool sleep 0.05
		# whoever made it was killed: it is held for milliseconds
		[ -z "$(tool find "$state/lock" -mmin +1 2>/dev/null)" ] || unlock
	done
}

unlock() {
	tool rmdir "$state/lock" 2>/dev/null
}

counts() {
	[ -z "$session" ] && return
	read -r counting < "$state/session" && [ "$counting" = "$session" ]
}

attach() { # OWNER NUMBER OFFSET
	if [ ! -e "$state/go" ]; then say unsent; return; fi
	while [ ! -e "$state/out" ]; do tool sleep 0.1; done
	session="$1 $2"
	lock
	counting=
	[ ! -e "$state/session" ] || read -r counting < "$state/session"
	if [ "$2" -gt 1 ] && [ "${counting% *}" != "$1" ]; then
		unlock
		say taken
		return
	fi
	# from here on, what comes late by an older session counts no more: so the size below stays true
	echo "$session" > "$state/session.new"
	tool mv "$state/session.new" "$state/session"
	unlock
	tell_input
	(stay) < /dev/null > /dev/null 2>&1 &
	exec 4<&0
	(listen "$1") <&4 &
	listener=$!
	printf 'gpudev-run\n' # behind whatever a ~/.bashrc has printed
	copy "$state/out" "$state/exit" "$3"
	kill "$listener" 2>/dev/null # it holds the session's streams
	if counts; then say "exit $(tool cat "$state/exit")"; else say taken; fi
}

tell_input() {
	say "input $(tool stat -c %s "$state/in") $([ ! -e "$state/stdin" ] || [ -e "$state/in.end" ] && echo closed || echo open)"
}

listen() { # OWNER
	frame=$state/frame-${session% *}-${session#* } # an older session may still be reading into its own
	while read -r verb size; do
		case $verb in
		data)
			tool dd bs="$size" count=1 iflag=fullblock > "$frame" 2>/dev/null
			lock
			! counts || tool cat "$frame" >> "$state/in"
			unlock
			tell_input
			;;
		end)
			lock
			! counts || : > "$state/in.end"
			unlock
			tell_input
			;;
		int)
			if [ ! -e "$state/interrupted-$1" ]; then
				: > "$state/interrupted-$1"
				read -r group < "$state/pid" && kill -INT "-$group"
			fi
			say interrupted
			;;
		esac
	done
	kill $$ # the client is gone
}

# --- fetch: an archive of what is to be brought back on standard output; finish: the client needs nothing more

fetch() {
	(stay) < /dev/null > /dev/null 2>&1 &
	while read -r path; do
		if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" "./$path"; else say "missing $path"; fi
	done < "$state/outs"
	printf 'gpudev-run\n'
	[ $# -eq 0 ] || tool tar -cf - "$@"
}

finish() {
	if [ -e "$state/keep" ]; then say kept; else : > "$state/done"; fi
}

session=
verb=$1 state=$2
shift 2
"$verb" "$@"
