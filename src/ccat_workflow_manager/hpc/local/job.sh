# The life of one job of the local backend: take the start mark, run the software, leave the exit mark.
#
#   sh job.sh DIRECTORY WORKING_DIRECTORY STDOUT STDERR SECONDS GRACE BOOT_ID BOOTED_AT OOM_KILLS CGROUP \
#       COMMAND [ARGUMENT]...
#
# It leads a session of its own, and its environment is the job's: hence the prefix, which keeps our variables from
# changing one of those. Nothing that is passed in is ever read as shell text. Only `timeout` is a program, found by
# `command -p` whatever the job's PATH is: all else is done by the shell itself, as processes are what a job costs.

_ccat_start=$1/job.start _ccat_exit=$1/job.exit _ccat_stdout=$3 _ccat_stderr=$4 _ccat_seconds=$5 _ccat_grace=$6
_ccat_boot_id=$7 _ccat_booted_at=$8 _ccat_oom_kills=$9 _ccat_workspace=$2
shift 9
_ccat_cgroup=$1
shift

trap : HUP INT TERM   # a signal to the whole session ends the software, and we live to write down how

look() {   # who we are, and the CPU time of those who have ended
    read -r _ccat_pid _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x \
        _ccat_x _ccat_x _ccat_user _ccat_system _ccat_x _ccat_x _ccat_x _ccat_x _ccat_ticks _ccat_x </proc/self/stat
    read -r _ccat_uptime _ccat_x </proc/uptime
}

# Room for the exit mark is taken, and kept open, before anything runs: it can be left however full the disk is by then,
# and also where it is away. Without room the job is not started, and tried again. Blanks behind a mark do no harm.
[ ! -e "$_ccat_start" ] || exit 75
printf '%256s\n' '' 2>/dev/null >>"$_ccat_exit" || exit 75
exec 9<>"$_ccat_exit"

# Made by one process only, whoever else tries; whoever reads it before its line is whole waits a little.
set -C
look
{
    printf '{"process": {"pid": %d, "start_ticks": %d, "boot_id": "%s"}, "uptime": %s, "booted_at": %s}\n' \
        "$_ccat_pid" "$_ccat_ticks" "$_ccat_boot_id" "$_ccat_uptime" "$_ccat_booted_at" >"$_ccat_start"
} 2>/dev/null || exit 75
set +C

# After the mark: a job whose workspace is missing is lost, and not started again and again.
cd "$_ccat_workspace" || exit 75
unset PWD OLDPWD SHLVL   # the shell's own, not the job's
exec </dev/null >>"$_ccat_stdout" 2>>"$_ccat_stderr"
if [ -n "$_ccat_cgroup" ]; then
    (
        trap : HUP INT TERM
        { echo 0 >"$_ccat_cgroup/cgroup.procs"; } 2>/dev/null   # where that is forbidden, its memory is sampled
        command -p timeout -k "$_ccat_grace" "$_ccat_seconds" "$@"
    ) 9>&-
else
    command -p timeout -k "$_ccat_grace" "$_ccat_seconds" "$@" 9>&-
fi
_ccat_code=$?

_ccat_killed=0
if [ "$_ccat_code" -eq 137 ]; then   # how often the kernel ran out of memory meanwhile; not every kernel counts
    _ccat_killed=$(command -p sed -n 's/^oom_kill //p' /proc/vmstat)
    _ccat_killed=$((${_ccat_killed:-_ccat_oom_kills} - _ccat_oom_kills))
fi
look
printf '{"exit_code": %d, "uptime": %s, "user_ticks": %d, "system_ticks": %d, "oom_kills": %d}\n' \
    "$_ccat_code" "$_ccat_uptime" "$_ccat_user" "$_ccat_system" "$_ccat_killed" >&9
