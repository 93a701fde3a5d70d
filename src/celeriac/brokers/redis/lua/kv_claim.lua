-- Take a key that nobody holds.  Goes after keys.lua.
-- KEYS: entry, version counter.  ARGV: holder, data, time to live in ms, "1" to replace the data of a key that is held.
-- Returns nil, or the value of the key that somebody holds.
return claim_key(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
