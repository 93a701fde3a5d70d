-- Put unstarted messages back at the head of their queues.  The store's keys are described in lease.lua.
-- KEYS: owners, lease hash.  ARGV: owner, then tags, newest first (so that the oldest ends up at the very head).
-- Returns how many went back.
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) < 0 then return 0 end
local released = 0
for i = 2, #ARGV do
  local held = redis.call('HGET', KEYS[2], ARGV[i])
  if held then
    local length, from = string.match(held, '^(%d+):()')
    local key_end = from + tonumber(length) - 1
    redis.call('RPUSH', string.sub(held, from, key_end), string.sub(held, key_end + 1))
    redis.call('HDEL', KEYS[2], ARGV[i])
    released = released + 1
  end
end
return released
