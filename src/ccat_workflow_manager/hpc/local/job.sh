# The life of one job of the local backend: take the start mark, run the software, leave the exit mark.
#
#   sh job.sh DIRECTORY WORKING_DIRECTORY STDOUT STDERR SECONDS COMMAND [ARGUMENT]...
#
# It runs in a session of its own, is nobody's child, and its environment is the job's: hence the prefix, which
# keeps our variables from changing one of those. Our tools are found by `command -p`, whatever the job's PATH is.
# Nothing that is passed in is ever read as shell text.

_ccat_start=$1/job.start _ccat_exit=$1/job.exit
cd "$2" || exit 75
exec </dev/null >>"$3" 2>>"$4"
_ccat_seconds=$5
shift 5
unset PWD OLDPWD SHLVL   # the shell's own, not the job's

trap : HUP INT TERM   # a signal to the whole session ends the software, and we live to write down how

now() {
    command -p date -u +%FT%T.%6NZ
}

oom_kills() {   # how often the kernel ran out of memory; not every kernel counts
    _ccat_count=$(command -p sed -n 's/^oom_kill //p' /proc/vmstat)
    printf %s "${_ccat_count:-0}"
}

field() {   # field N WORD...: the Nth word
    shift "$1"
    printf %s "$1"
}

read -r _ccat_stat </proc/self/stat
read -r _ccat_boot_id </proc/sys/kernel/random/boot_id
read -r _ccat_uptime _ccat_rest </proc/uptime
_ccat_oom_kills=$(oom_kills)

# A hard link is made whole or not at all, and only once.
printf '{"process": {"pid": %d, "start_ticks": %d, "boot_id": "%s"}, "started_at": "%s", "uptime": %s}\n' \
    "$$" "$(field 22 $_ccat_stat)" "$_ccat_boot_id" "$(now)" "$_ccat_uptime" >"$_ccat_start.$$" &&
    command -p ln -T "$_ccat_start.$$" "$_ccat_start" 2>/dev/null
_ccat_refused=$?
command -p rm -f "$_ccat_start.$$"
[ "$_ccat_refused" -eq 0 ] || exit 75

command -p timeout -k 10 "$_ccat_seconds" "$@"
_ccat_code=$?

read -r _ccat_uptime _ccat_rest </proc/uptime
times >"$_ccat_exit.times"
{ read -r _ccat_rest; read -r _ccat_user _ccat_system; } <"$_ccat_exit.times"
command -p rm -f "$_ccat_exit.times"
printf '{"exit_code": %d, "ended_at": "%s", "uptime": %s, "oom_kills": %d, "user": "%s", "system": "%s"}\n' \
    "$_ccat_code" "$(now)" "$_ccat_uptime" "$(($(oom_kills) - _ccat_oom_kills))" "$_ccat_user" "$_ccat_system" \
    >"$_ccat_exit.$$" &&
    command -p mv -fT "$_ccat_exit.$$" "$_ccat_exit"
