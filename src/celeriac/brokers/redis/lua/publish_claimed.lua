-- Publish messages of which some are sent only if nobody holds their key.  Goes after keys.lua.
-- The store's keys are described in lease.lua and kv_read.lua.
-- KEYS: serial, version counter.
-- ARGV: for each message: queue list, message, schedule, consumers, due time in ms (0: now), then key (empty: it is sent in any
--       case), holder, data, time to live in ms, "1" to replace the data of a key that is held.
-- Scheduling is as in publish.lua.  Returns for each message nil if it was sent, else the value of the key.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {}
for i = 1, #ARGV, 10 do
  local key, message, due = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 4])
  local held = false
  if ARGV[i + 5] ~= '' then
    held = claim_key(ARGV[i + 5], KEYS[2], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9])
  end
  reply[#reply + 1] = held
  if not held then
    if due > now and redis.call('ZCOUNT', ARGV[i + 3], now, '+inf') > 0 then
      redis.call('ZADD', ARGV[i + 2], due, redis.call('INCR', KEYS[1]) .. ':' .. #key .. ':' .. key .. message)
    else
      redis.call('LPUSH', key, message)
    end
  end
end
return reply
