-- Counts of chords.  Tables: chords, chord_parts (schema.sql).

-- name: is_done
SELECT 1 FROM chords WHERE group_id = ? AND done

-- name: add_part
INSERT OR IGNORE INTO chord_parts (group_id, position, task_id, payload) VALUES (?, ?, ?, ?)

-- name: count
INSERT INTO chords (group_id, counted, at) VALUES (?1, ?2, ?3)
ON CONFLICT (group_id) DO UPDATE SET counted = counted + ?2, at = ?3

-- name: claim
UPDATE chords SET claim = ?2, claimed_at = ?3
WHERE group_id = ?1 AND counted >= size + grown AND NOT done AND (claim IS NULL OR claim = ?2 OR claimed_at <= ?4)

-- name: start
INSERT INTO chords (group_id, size, at) VALUES (?1, ?2, ?3)
ON CONFLICT (group_id) DO UPDATE SET
    size = ?2, at = ?3, done = 0,
    grown = CASE WHEN done THEN 0 ELSE grown END,
    counted = CASE WHEN done THEN 0 ELSE counted END,
    claim = CASE WHEN done THEN NULL ELSE claim END

-- name: grow
INSERT INTO chords (group_id, grown, at) VALUES (?1, ?2, ?3)
ON CONFLICT (group_id) DO UPDATE SET grown = grown + ?2, claim = NULL, at = ?3 WHERE NOT done

-- name: parts
SELECT payload FROM chord_parts WHERE group_id = ? ORDER BY position, task_id

-- name: finish
INSERT INTO chords (group_id, done, at) VALUES (?1, 1, ?2)
ON CONFLICT (group_id) DO UPDATE SET done = 1, claim = NULL, at = ?2

-- name: drop_parts
DELETE FROM chord_parts WHERE group_id = ?
