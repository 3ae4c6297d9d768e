#!/bin/sh
# A task of an array: so many of its jobs, one after the other, each in a session of its own and as by itself.
# A template: names in braces are filled in when the array is handed in.

# Slurm kills at once what a task leaves behind: asked to end, it lets its job write down how that ended.
is_ending='' job=''
trap 'is_ending=1; [ -z "$$job" ] || kill -TERM "$$job" 2>/dev/null' TERM

place=0
while [ "$$place" -lt ${jobs} ] && [ -z "$$is_ending" ]; do
    directory=$$(sed -n "$$((SLURM_ARRAY_TASK_ID * ${jobs} + place + 1))p" ${list})
    [ -n "$$directory" ] || break
    setsid /bin/sh "$$directory/${run}" "$${SLURM_ARRAY_JOB_ID}_$$SLURM_ARRAY_TASK_ID:$$place" &
    job=$$!
    [ -z "$$is_ending" ] || kill -TERM "$$job" 2>/dev/null
    # Slurm signals a task, and knows nothing of its jobs: who is to be cancelled is asked to end by us.
    ( while sleep 2; do [ ! -e "$$directory/job.cancel" ] || { kill -TERM "$$job"; break; }; done ) 2>/dev/null &
    watch=$$!
    while wait "$$job"; kill -0 "$$job" 2>/dev/null; do :; done   # a signal ends `wait` before the job has ended
    kill -KILL "$$watch" "-$$job" 2>/dev/null   # and what the job has left in its session
    job='' place=$$((place + 1))
done
exit 0
