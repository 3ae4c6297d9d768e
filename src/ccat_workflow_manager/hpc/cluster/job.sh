# The life of one job of a cluster: take the start mark, run the software, leave the exit mark.
#
#   sh job.sh DIRECTORY WORKING_DIRECTORY STDOUT STDERR SECONDS GRACE ID COMMAND [ARGUMENT]...
#
# The marks lie on a disk that this host shares with those who follow the job, so they are told by the clock of the
# day. The environment is the job's: hence the prefix, which keeps our variables from changing one of those. Nothing
# that is passed in is ever read as shell text.

_ccat_start=$1/job.start _ccat_exit=$1/job.exit _ccat_workspace=$2 _ccat_stdout=$3 _ccat_stderr=$4
_ccat_seconds=$5 _ccat_grace=$6 _ccat_id=$7
shift 7

# Asked to end, we ask the software once, and live to write down how it ended. Where it does not end, `timeout` kills it.
_ccat_child='' _ccat_asked='' _ccat_told='' _ccat_signals=0
_ccat_tell() {
    if [ -n "$_ccat_asked" ] && [ -n "$_ccat_child" ] && [ -z "$_ccat_told" ]; then
        _ccat_told=1
        kill -TERM "$_ccat_child" 2>/dev/null
    fi
}
trap '_ccat_signals=$((_ccat_signals + 1))' HUP INT
trap '_ccat_signals=$((_ccat_signals + 1)); _ccat_asked=true; _ccat_tell' TERM

_ccat_now() { command -p date +%s.%N; }

# Ends the job with this exit code, of which it leaves the mark.
_ccat_leave() {
    read -r _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x _ccat_x \
        _ccat_x _ccat_x _ccat_user _ccat_system _ccat_x </proc/self/stat
    printf '{"exit_code": %d, "at": %s, "cpu_ticks": %d, "was_asked": %s}\n' \
        "$1" "$(_ccat_now)" "$((_ccat_user + _ccat_system))" "${_ccat_asked:-false}" >&9
    exit "$1"
}

# Room for the exit mark is taken, and kept open, before anything runs: it can be left however full the disk is by then.
# Blanks behind a mark do no harm.
[ ! -e "$_ccat_start" ] || exit 75
printf '%256s\n' '' 2>/dev/null >>"$_ccat_exit" || exit 75
exec 9<>"$_ccat_exit"

# Made by one process only, whoever else tries; whoever reads it before its line is whole waits a little.
set -C
{
    printf '{"id": "%s", "host": "%s", "at": %s}\n' "$_ccat_id" "$(command -p uname -n)" "$(_ccat_now)" >"$_ccat_start"
} 2>/dev/null || exit 75
set +C

# After the mark: a job whose directories are missing does not start again and again. Nothing of it is its software's
# fault, and what the shell says of it is the reason.
command exec </dev/null 2>>"$_ccat_stderr" >>"$_ccat_stdout" || _ccat_leave 75
cd "$_ccat_workspace" || _ccat_leave 75
unset PWD OLDPWD SHLVL   # the shell's own, not the job's
command -p timeout --foreground -k "$_ccat_grace" "$_ccat_seconds" "$@" 9>&- &
_ccat_child=$!
_ccat_tell

_ccat_code=127 _ccat_seen=''
while [ "$_ccat_seen" != "$_ccat_signals" ]; do   # a signal ends `wait` before the software has ended
    _ccat_seen=$_ccat_signals
    wait "$_ccat_child"
    _ccat_x=$?
    [ "$_ccat_x" -eq 127 ] || _ccat_code=$_ccat_x   # also: nobody is left to wait for
done
_ccat_leave "$_ccat_code"
