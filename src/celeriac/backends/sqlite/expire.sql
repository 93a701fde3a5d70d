-- Expire: delete what has outlived its time, a bounded number of rows at once.
-- Tables: results, groups, chords, chord_parts (schema.sql).

-- name: results
DELETE FROM results WHERE id IN (SELECT id FROM (SELECT id, at FROM results ORDER BY id LIMIT ?2) WHERE at <= ?1)

-- name: groups
DELETE FROM groups WHERE group_id IN (SELECT group_id FROM groups WHERE at <= ?1 ORDER BY at LIMIT ?2)

-- name: open_chords
SELECT group_id FROM chords WHERE NOT done AND at <= ? ORDER BY at LIMIT ?

-- name: done_chords
SELECT group_id FROM chords WHERE done AND at <= ? ORDER BY at LIMIT ?

-- name: some_parts
DELETE FROM chord_parts WHERE id IN (SELECT id FROM chord_parts WHERE group_id = ?1 LIMIT ?2)

-- name: chord
DELETE FROM chords WHERE group_id = ?1 AND NOT EXISTS (SELECT 1 FROM chord_parts WHERE group_id = ?1)

-- name: oldest_result
SELECT at FROM results ORDER BY id LIMIT 1

-- name: oldest_group
SELECT at FROM groups ORDER BY at LIMIT 1

-- name: oldest_open_chord
SELECT at FROM chords WHERE NOT done ORDER BY at LIMIT 1

-- name: oldest_done_chord
SELECT at FROM chords WHERE done ORDER BY at LIMIT 1
