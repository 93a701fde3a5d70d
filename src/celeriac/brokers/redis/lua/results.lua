-- Functions on results and chords, put before the scripts that use them.
-- Each reads its arguments from ARGV, from place i on, as settle.lua describes them.
--
-- Keys: <prefix>celery-task-meta-<id> STRING, <prefix>celery-taskset-meta-<group> STRING and with the suffixes
--   .j ZSET or LIST  payloads of the parts     .s STRING  size of the header      .t STRING  members added later
--   .d SET  parts that were counted            .c STRING  who may publish the callback, or "done"
local queue_db, result_db = '', ''

local function to_results()
  if result_db ~= '' then redis.call('SELECT', result_db) end
end

local function to_queues()
  if result_db ~= '' then redis.call('SELECT', queue_db) end
end

local function is_success(payload)
  if string.sub(payload, 1, 1) == '{' then
    return string.find(payload, '"status": "SUCCESS"', 1, true) or string.find(payload, '"status":"SUCCESS"', 1, true)
  end
  return string.find(payload, 'SUCCESS', 1, true)
end

local function write_result(i)
  local key, payload, ttl, guarded = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3] == '1'
  to_results()
  local old = guarded and redis.call('GET', key)
  if not old or not is_success(old) then
    if ttl > 0 then
      redis.call('SET', key, payload, 'EX', ttl)
    else
      redis.call('SET', key, payload)
    end
    redis.call('PUBLISH', key, payload)
  end
  to_queues()
end

-- The keys and the way of counting are those of Celery's Redis result store, so that the members of one chord may run on
-- workers of both kinds.
local function count_part(i)
  local group, task_id, payload, ordered, score = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local ttl, group_ttl, claim_ttl, token = tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]), ARGV[i + 7], ARGV[i + 8]
  local parts, grown, size, seen, claim = group .. '.j', group .. '.t', group .. '.s', group .. '.d', group .. '.c'
  to_results()
  local ready = false
  local claimed_by = redis.call('GET', claim)
  if claimed_by ~= 'done' then
    if redis.call('SADD', seen, task_id .. ':' .. score) == 1 then
      if ordered == '1' then
        redis.call('ZADD', parts, score, payload)
      else
        redis.call('RPUSH', parts, payload)
      end
    end
    local count = ordered == '1' and redis.call('ZCARD', parts) or redis.call('LLEN', parts)
    if ttl > 0 then
      for _, key in ipairs({parts, grown, size, seen}) do redis.call('EXPIRE', key, ttl) end
      if group_ttl > 0 then redis.call('EXPIRE', group, group_ttl) end
    end
    local total = redis.call('GET', size)
    if total and count == tonumber(total) + tonumber(redis.call('GET', grown) or 0) then
      if claimed_by == token then
        redis.call('EXPIRE', claim, claim_ttl)
        ready = true
      elseif redis.call('SET', claim, token, 'NX', 'EX', claim_ttl) then
        ready = true
      end
    end
  end
  to_queues()
  return ready
end

local function forget_chord(i)
  local group = ARGV[i]
  to_results()
  redis.call('DEL', group .. '.j', group .. '.t', group .. '.s', group .. '.d')
  redis.call('SET', group .. '.c', 'done', 'EX', ARGV[i + 1])
  to_queues()
end
