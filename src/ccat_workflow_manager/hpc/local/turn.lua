-- One turn of the queue, whole or not at all: who is over gives back what it held, a new job waits, and the first
-- ones of those who wait get what is free. Nothing overtakes the first, so that no small job ever starves a large one.
--
-- KEYS: waiting, claimed, needs, restored
-- ARGV: CPUs, MB of memory, now, seconds to keep, number of those over, their names..., then maybe rank, name, needs
-- Returns the names of the jobs to start; nil where Redis has forgotten, and has to be told again first.

local waiting, claimed, needs = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', KEYS[4]) == 0 then return nil end

local free = {tonumber(ARGV[1]), tonumber(ARGV[2])}
local most = {free[1], free[2]}

local function needed(name)
    local cpus, memory = string.match(redis.call('HGET', needs, name) or '1:0', '^(%d+):(%d+)$')
    return math.min(tonumber(cpus), most[1]), math.min(tonumber(memory), most[2])
end

local function take(name)
    local cpus, memory = needed(name)
    free[1], free[2] = free[1] - cpus, free[2] - memory
end

local new = 6 + tonumber(ARGV[5])
for at = 6, new - 1 do
    redis.call('ZREM', waiting, ARGV[at])
    redis.call('ZREM', claimed, ARGV[at])
    redis.call('HDEL', needs, ARGV[at])
end
if ARGV[new] and not redis.call('ZSCORE', claimed, ARGV[new + 1]) then
    redis.call('ZADD', waiting, 'NX', ARGV[new], ARGV[new + 1])
    redis.call('HSET', needs, ARGV[new + 1], ARGV[new + 2])
end

for _, name in ipairs(redis.call('ZRANGE', claimed, 0, -1)) do take(name) end
local started = {}
while true do
    local name = redis.call('ZRANGE', waiting, 0, 0)[1]
    if not name then break end
    local is_claimed = redis.call('ZSCORE', claimed, name)
    local cpus, memory = needed(name)
    if not is_claimed and (cpus > free[1] or memory > free[2]) then break end
    redis.call('ZREM', waiting, name)
    if not is_claimed then
        redis.call('ZADD', claimed, ARGV[3], name)
        take(name)
        started[#started + 1] = name
    end
end

for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[4]) end
return started
