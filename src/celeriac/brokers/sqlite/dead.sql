-- Dead letters.  Table: dead (schema.sql).  An id is never used twice, so that replaying twice cannot send another.

-- name: bury
INSERT INTO dead (queue, priority, raw, reason, error, task, task_id, traceback, attempts, crashes, worker, at)
SELECT queue, priority, raw, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM messages WHERE id = ?1

-- name: count
SELECT count(*) FROM dead

-- name: drop_oldest
DELETE FROM dead WHERE id IN (SELECT id FROM dead ORDER BY id LIMIT ?)

-- name: expire
DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE at < ? ORDER BY at LIMIT ?)

-- name: page
SELECT id, queue, raw, reason, error, task, task_id, traceback, attempts, crashes, worker, at
FROM dead WHERE id < ? ORDER BY id DESC LIMIT ?

-- name: one
SELECT id, queue, raw, reason, error, task, task_id, traceback, attempts, crashes, worker, at
FROM dead WHERE id = ?

-- name: exhume
DELETE FROM dead WHERE id = ? RETURNING queue, raw, priority

-- name: discard
DELETE FROM dead WHERE id = ?
