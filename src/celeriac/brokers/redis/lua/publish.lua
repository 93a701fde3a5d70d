-- Publish messages of which some are due later.  The store's keys are described in lease.lua.
-- KEYS: serial.  ARGV: for each message: queue list, message, schedule, consumers, due time in ms (0: now).
-- A message goes into the schedule only while a live owner serves its queue, because only Celeriac's workers promote it.
-- Otherwise it goes to its queue as stock Celery sends it: with its ETA in its headers, which every worker honours.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #ARGV, 5 do
  local key, message, due = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 4])
  if due > now and redis.call('ZCOUNT', ARGV[i + 3], now, '+inf') > 0 then
    redis.call('ZADD', ARGV[i + 2], due, redis.call('INCR', KEYS[1]) .. ':' .. #key .. ':' .. key .. message)
  else
    redis.call('LPUSH', key, message)
  end
end
return 1
