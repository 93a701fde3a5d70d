-- Lanes: a queue's messages that wait beside it, as a hidden queue each whose name begins with the queue's.
-- Tables: queues, ready, messages, leases, owners (schema.sql).

-- name: some
SELECT name, ready FROM queues WHERE name > ?1 AND name < ?2 AND ready > 0 ORDER BY name LIMIT ?3

-- name: parked
SELECT total(ready) FROM queues WHERE name > ?1 AND name < ?2

-- name: move
UPDATE messages SET queue = ?2 WHERE id = ?1

-- name: forget
DELETE FROM queues WHERE name = ? AND ready = 0 AND scheduled = 0

-- name: alive
SELECT 1 FROM owners WHERE name = ? AND condemned_at IS NULL
