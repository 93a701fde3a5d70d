-- Lease messages: move them from the ends of queue lists into the owner's hash.
--
-- Keys of the store (each under the app's global key prefix):
--   <queue>, <queue>\6\22<step>   LIST  kombu's queue lists, one per priority step; taken from the right, added at the left
--   celeriac:owners               ZSET  owner -> deadline in ms of the server's clock; condemned: minus the time of that
--   celeriac:lease:<owner>        HASH  tag -> "<length of key>:<key><message>"; field "n" holds the last tag given.
--                                 Tags ascend and are taken from the clock: a replica that is promoted may have missed the
--                                 last of them, and must not give one out a second time
--   celeriac:schedule:<queue>     ZSET  "<serial>:<length of key>:<key><message>" -> due time in ms
--   celeriac:lanes:<queue>        HASH  lane that has messages -> how many
--   celeriac:lane:<queue>\31<lane>, and with \6\22<step>   LIST  messages parked in a lane, like a queue's lists
--   celeriac:parked:<queue>       STRING  how many messages all its lanes have
--   celeriac:consumers:<queue>    ZSET  owner -> deadline in ms
--   celeriac:dead                 STREAM  dead letters
--   celeriac:serial               STRING  counter that makes the schedule's members unique
--
-- KEYS: owners, lease hash, then queue lists in the order in which they are to be emptied.
-- ARGV: owner, limit.
-- Returns, for each list that gave something: its place among the queue lists, its first tag, its messages.
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) < 0 then
  return redis.error_reply('OWNERLOST lease')
end
local function first_tag()
  local time = redis.call('TIME')
  return math.max(tonumber(redis.call('HGET', KEYS[2], 'n')) or 0, time[1] * 1000000 + time[2])
end

local limit = tonumber(ARGV[2])
local leased = {}
local last
for i = 3, #KEYS do
  local key = KEYS[i]
  local count = math.min(redis.call('LLEN', key), limit)
  if count > 0 then
    -- The first write must be one that a server out of memory refuses, so that nothing is popped and then not kept.
    local tag = last or first_tag()
    last = tag + count
    redis.call('HSET', KEYS[2], 'n', last)
    local messages = redis.call('RPOP', key, count)
    local prefix = #key .. ':' .. key
    for from = 1, count, 500 do
      local fields = {}
      for m = from, math.min(from + 499, count) do
        fields[#fields + 1] = tag + m
        fields[#fields + 1] = prefix .. messages[m]
      end
      redis.call('HSET', KEYS[2], unpack(fields))
    end
    leased[#leased + 1] = i - 2
    leased[#leased + 1] = tag + 1
    leased[#leased + 1] = messages
    limit = limit - count
    if limit <= 0 then break end
  end
end
return leased
