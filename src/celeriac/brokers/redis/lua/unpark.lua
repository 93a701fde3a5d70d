-- Lease messages from lanes.  The store's keys are described in lease.lua.
--
-- KEYS: owners, lease hash, then for each lane: its queue's hash of lanes, its queue's count of parked messages, the lane's lists
--       by priority, its queue's lists by priority.
-- ARGV: owner, number of priorities, then for each lane: name, how many.
-- Returns for each lane: the first tag, the messages.
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) < 0 then
  return redis.error_reply('OWNERLOST unpark')
end

local function lease(list, origin, count, messages)
  -- The first write must be one that a server out of memory refuses, so that nothing is popped and then not kept.
  local tag = redis.call('HINCRBY', KEYS[2], 'n', count) - count
  local popped = redis.call('RPOP', list, count)
  local prefix = #origin .. ':' .. origin
  for m, message in ipairs(popped) do
    redis.call('HSET', KEYS[2], tag + m, prefix .. message)
    messages[#messages + 1] = message
  end
  return tag + 1
end

local steps = tonumber(ARGV[2])
local reply, key = {}, 3
for a = 3, #ARGV, 2 do
  local lane, limit = ARGV[a], tonumber(ARGV[a + 1])
  local first, messages, left = 0, {}, 0
  for s = 1, steps do
    local list, origin = KEYS[key + 1 + s], KEYS[key + 1 + steps + s]
    local length = redis.call('LLEN', list)
    local count = math.min(length, limit - #messages)
    if count > 0 then
      local tag = lease(list, origin, count, messages)
      if first == 0 then first = tag end
    end
    left = left + length - math.max(0, count)
  end
  if left == 0 then
    redis.call('HDEL', KEYS[key], lane)
  else
    redis.call('HSET', KEYS[key], lane, left)
  end
  if #messages > 0 then redis.call('DECRBY', KEYS[key + 1], #messages) end
  reply[#reply + 1] = first
  reply[#reply + 1] = messages
  key = key + 2 + 2 * steps
end
return reply
