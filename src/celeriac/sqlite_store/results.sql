-- Results and records of groups.  Tables: results, groups (schema.sql).
--
-- A write replaces the row and gives it a new id, the highest: ids are ordered by age.

-- name: put
INSERT OR REPLACE INTO results (task_id, state, at, payload) VALUES (?, ?, ?, ?)

-- name: put_unless_succeeded
INSERT OR REPLACE INTO results (task_id, state, at, payload)
SELECT ?1, ?2, ?3, ?4
WHERE NOT EXISTS (SELECT 1 FROM results WHERE task_id = ?1 AND state = 'SUCCESS')
