-- Throw away what waits in a queue.  The store's keys are described in lease.lua.
-- KEYS: schedule, hash of lanes, count of parked messages, then the queue's lists.
-- ARGV: what the names of its lanes' lists begin with, then how they end, one for each priority.
-- Returns how many messages there were.
local count = redis.call('ZCARD', KEYS[1]) + tonumber(redis.call('GET', KEYS[3]) or 0)
for i = 4, #KEYS do count = count + redis.call('LLEN', KEYS[i]) end
for _, lane in ipairs(redis.call('HKEYS', KEYS[2])) do
  for i = 2, #ARGV do redis.call('UNLINK', ARGV[1] .. lane .. ARGV[i]) end
end
redis.call('UNLINK', unpack(KEYS))
return count
