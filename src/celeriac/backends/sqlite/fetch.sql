-- Fetch, forget.  Tables: results, groups (schema.sql).

-- name: result
SELECT payload FROM results WHERE task_id = ? AND at > ?

-- name: seen
SELECT id, state FROM results WHERE task_id = ?

-- name: forget_result
DELETE FROM results WHERE task_id = ?

-- name: put_group
INSERT OR REPLACE INTO groups (group_id, at, payload) VALUES (?, ?, ?)

-- name: group
SELECT payload FROM groups WHERE group_id = ? AND at > ?

-- name: forget_group
DELETE FROM groups WHERE group_id = ?
