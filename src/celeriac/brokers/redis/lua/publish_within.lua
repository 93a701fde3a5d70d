-- Publish messages without letting queues grow past their bounds.  The store's keys are described in lease.lua.
--
-- KEYS: serial, dead letters, then for each bounded queue: schedule, count of parked messages, its lists by priority.
-- ARGV: how many dead letters to keep, time in seconds, number of bounded queues, for each of them: name, most messages,
--       "1" to drop the oldest, how many are to be added, number of lists; then messages as in publish.lua.
-- Returns nothing, or the place of the first queue without room and its length.  Nothing is written then.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local at, key = 4, 3
local overfull = {}
for place = 1, tonumber(ARGV[3]) do
  local queue, most, drop = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1'
  local added, lists = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local first, last = key + 2, key + 1 + lists
  local ready = 0
  for k = first, last do ready = ready + redis.call('LLEN', KEYS[k]) end
  local length = ready + redis.call('ZCARD', KEYS[key]) + tonumber(redis.call('GET', KEYS[key + 1]) or 0)
  local excess = length + added - most
  if excess > 0 then
    if not drop or excess > ready then return {place, length} end
    overfull[#overfull + 1] = {queue = queue, most = most, excess = excess, first = first, last = last}
  end
  at, key = at + 5, last + 1
end

-- The first write must be one that a server out of memory refuses, so that nothing is popped and then not kept.
for _, full in ipairs(overfull) do
  for k = full.last, full.first, -1 do
    while full.excess > 0 do
      local message = redis.call('LINDEX', KEYS[k], -1)
      if not message then break end
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'queue', full.queue, 'key', KEYS[k], 'raw', message,
        'reason', 'overflow', 'error', 'QueueFull: it made room in a queue of at most ' .. full.most .. ' messages',
        'task', string.match(message, '"task": ?"([^"\\]+)"') or '', 'task_id', string.match(message, '"id": ?"([^"\\]+)"') or '',
        'traceback', '', 'attempts', 0, 'crashes', 0, 'worker', '', 'at', ARGV[2])
      redis.call('RPOP', KEYS[k])
      full.excess = full.excess - 1
    end
  end
end

for i = at, #ARGV, 5 do
  local list, message, due = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 4])
  if due > now and redis.call('ZCOUNT', ARGV[i + 3], now, '+inf') > 0 then
    redis.call('ZADD', ARGV[i + 2], due, redis.call('INCR', KEYS[1]) .. ':' .. #list .. ':' .. list .. message)
  else
    redis.call('LPUSH', list, message)
  end
end
return false
