-- Read keys of the key-value store.
--
-- Keys of the store (each under the app's global key prefix):
--   celeriac:kv:<namespace>:<name>   STRING  "<version>:<value>", with the key's own time to live
--   celeriac:kv-version              STRING  counter that gives versions
--   celeriac:kv-names:<namespace>    SET     the names in a listed namespace; expired ones are dropped when it is read
--
-- KEYS: the keys to read.
-- Returns the server's time in microseconds, as a string, then the entries.
local time = redis.call('TIME')
local reply = {string.format('%d%06d', time[1], time[2])}
for i, key in ipairs(KEYS) do reply[i + 1] = redis.call('GET', key) end
return reply
