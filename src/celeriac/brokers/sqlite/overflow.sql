-- What makes room in a queue that is full: the oldest messages of the lowest priority.
-- Tables: ready, messages (schema.sql).

-- name: last_priority
SELECT priority FROM ready WHERE queue = ? ORDER BY priority DESC LIMIT 1

-- name: oldest
SELECT ready.priority, ready.id, messages.raw FROM ready CROSS JOIN messages ON messages.id = ready.id
WHERE ready.queue = ? AND ready.priority = ? ORDER BY ready.id LIMIT ?
