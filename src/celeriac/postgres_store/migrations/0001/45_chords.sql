-- Count parts of chords, and finish chords.  Tables: chords, chord_parts (10_tables.sql).
--
-- A chord's row is locked first, so that its parts are counted one after another.  A row's time is only set anew when it
-- is a minute old: it is indexed, and counting would cost an index entry each time.

-- Count parts; return the places (from 1) of those that complete their chord and own its callback now.
CREATE FUNCTION {schema}.count_parts(groups text[], tasks text[], positions integer[], payloads bytea[], claim_seconds float8)
RETURNS SETOF integer
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    chord {schema}.chords;
    name text;
    mine text;
    places integer[];
    added integer[];
    place integer;
BEGIN
    FOR name IN SELECT DISTINCT g.id COLLATE "C" FROM unnest(groups) AS g (id) WHERE g.id IS NOT NULL ORDER BY 1 LOOP
        INSERT INTO {schema}.chords (group_id, at) VALUES (name, moment) ON CONFLICT (group_id) DO NOTHING;
        SELECT * INTO chord FROM {schema}.chords c WHERE c.group_id = name FOR UPDATE;
        CONTINUE WHEN chord.done;
        places := ARRAY(SELECT g.n FROM unnest(groups) WITH ORDINALITY AS g (id, n) WHERE g.id = name ORDER BY g.n);
        added := '{}';
        FOREACH place IN ARRAY places LOOP
            INSERT INTO {schema}.chord_parts (group_id, position, task_id, payload)
            VALUES (name, positions[place], tasks[place], payloads[place]) ON CONFLICT DO NOTHING;
            IF FOUND THEN
                chord.counted := chord.counted + 1;
            END IF;
            CONTINUE WHEN chord.size IS NULL OR chord.counted < chord.size + chord.grown;
            mine := tasks[place] || '/' || positions[place];
            IF chord.claim IS NULL OR chord.claim = mine OR chord.claimed_at <= moment - make_interval(secs => claim_seconds)
            THEN
                chord.claim := mine;
                chord.claimed_at := moment;
                RETURN NEXT place;
            END IF;
        END LOOP;
        UPDATE {schema}.chords c SET
            counted = chord.counted, claim = chord.claim, claimed_at = chord.claimed_at,
            at = CASE WHEN c.at < moment - interval '1 minute' THEN moment ELSE c.at END
        WHERE c.group_id = name;
    END LOOP;
END
$$;

-- Drop the parts, and remember that the chords are done.
CREATE FUNCTION {schema}.finish_chords(groups text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.chords (group_id, done, at)
    SELECT DISTINCT g.id COLLATE "C", true, clock_timestamp() FROM unnest(groups) AS g (id) ORDER BY 1
    ON CONFLICT (group_id) DO UPDATE SET done = true, claim = NULL, at = excluded.at;
    DELETE FROM {schema}.chord_parts p WHERE p.group_id = ANY (groups);
END
$$;
