-- Settle outcomes: each is written whole, if its owner still holds the lease, or not at all.
-- The store's keys are described in lease.lua, the functions for R, C and F in results.lua and for K in keys.lua, which go before this.
--
-- KEYS: owners, lease hash, dead letters, serial, version counter of the key-value store.
-- ARGV: owner, "1" when the owner must be condemned and "0" when it must be alive, database of the queues, database of
--       the results (both empty when it is the same), how many dead letters to keep, how many plain tags follow,
--       the plain tags (acknowledge and nothing else), then for each other outcome:
--         tag, number of operations, operations.
-- Operations, results and chord parts first:
--   R key payload ttl guarded               write a result and tell who waits for it
--   C group task_id payload ordered score ttl group_ttl claim_ttl token    count a chord's part
--   P key message                           publish
--   S schedule_key due_ms key message       publish later
--   L key lanes_key parked_key lane message    park in a lane
--   Q message                               back to the head of its queue; empty: as it was
--   D queue message n field value ...       dead letter; empty message: as it was
--   F group done_ttl                        forget a chord whose callback is published
--   K key holder set value ttl              write or delete a held key, if its holder still has it
-- Returns: number of fenced outcomes, then pairs (outcome's place among the not plain ones, part's place in it) of parts that
-- completed their chord; those outcomes stay leased.
local ARITY = {R = 4, C = 9, P = 2, S = 4, L = 5, Q = 1, F = 2, K = 5}
local owner, condemned = ARGV[1], ARGV[2] == '1'
queue_db, result_db = ARGV[3], ARGV[4]
local deadline = redis.call('ZSCORE', KEYS[1], owner)
if not deadline or (tonumber(deadline) < 0) ~= condemned then
  return redis.error_reply('OWNERLOST settle')
end

local lease = KEYS[2]
local plain = tonumber(ARGV[6])
local at = 7
local fenced = plain
while at < 7 + plain do
  local last = math.min(at + 999, 6 + plain)
  fenced = fenced - redis.call('HDEL', lease, unpack(ARGV, at, last))
  at = last + 1
end

local function split(held)
  local length, from = string.match(held, '^(%d+):()')
  local key_end = from + tonumber(length) - 1
  return string.sub(held, from, key_end), string.sub(held, key_end + 1)
end

local function bury(i, key, message)
  local entry = {'queue', ARGV[i], 'key', key, 'raw', ARGV[i + 1] ~= '' and ARGV[i + 1] or message}
  local count = tonumber(ARGV[i + 2])
  for f = i + 3, i + 2 + count * 2 do entry[#entry + 1] = ARGV[f] end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', unpack(entry))
end

local reply = {fenced}
local place = 0
while at <= #ARGV do
  place = place + 1
  local tag, operations = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  local held = redis.call('HGET', lease, tag)
  if not held then reply[1] = reply[1] + 1 end
  local key, message
  if held then key, message = split(held) end
  local waiting, part = false, 0
  for _ = 1, operations do
    local verb, i = ARGV[at], at + 1
    if held and not waiting then
      if verb == 'R' then
        write_result(i)
      elseif verb == 'P' then
        redis.call('LPUSH', ARGV[i], ARGV[i + 1])
      elseif verb == 'S' then
        local member = redis.call('INCR', KEYS[4]) .. ':' .. #ARGV[i + 2] .. ':' .. ARGV[i + 2] .. ARGV[i + 3]
        redis.call('ZADD', ARGV[i], ARGV[i + 1], member)
      elseif verb == 'L' then
        redis.call('LPUSH', ARGV[i], ARGV[i + 4])
        redis.call('HINCRBY', ARGV[i + 1], ARGV[i + 3], 1)
        redis.call('INCR', ARGV[i + 2])
      elseif verb == 'Q' then
        redis.call('RPUSH', key, ARGV[i] ~= '' and ARGV[i] or message)
      elseif verb == 'D' then
        bury(i, key, message)
      elseif verb == 'F' then
        forget_chord(i)
      elseif verb == 'K' then
        apply_key(i, KEYS[5])
      end
    end
    if held and verb == 'C' then
      part = part + 1
      if count_part(i) then
        waiting = true
        reply[#reply + 1] = place
        reply[#reply + 1] = part
      end
    end
    at = i + (verb == 'D' and 3 + tonumber(ARGV[i + 2]) * 2 or ARITY[verb])
  end
  if held and not waiting then redis.call('HDEL', lease, tag) end
end
return reply
