-- Publish without letting queues grow past their bounds.  Tables: messages, scheduled, dead (10_tables.sql).
--
-- Whoever publishes to a bounded queue waits for those before him, so that nobody counts what another is about to add.  Counting
-- reads the index up to the bound.  Lanes are queues of their own, whose names begin with the queue's (32_lanes.sql).

-- How much lies in a queue, at most so much of each kind: ready, and scheduled or parked.
CREATE FUNCTION {schema}.lengths(name text, most bigint) RETURNS TABLE (ready bigint, others bigint)
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    SELECT count(*) INTO ready FROM (
        SELECT FROM {schema}.messages m WHERE m.owner IS NULL AND m.queue = name LIMIT most) AS bounded;
    SELECT count(*) INTO others FROM (
        SELECT FROM {schema}.scheduled s WHERE s.queue = name LIMIT most) AS bounded;
    others := others + {schema}.parked(name, most);
    RETURN NEXT;
END
$$;

-- Names ascend, so that two calls do not lock each other out; counts are how many of the messages go to each.  Returns the first
-- queue without room, by its place, and its length; nothing is written then.
CREATE FUNCTION {schema}.publish_within(
    queues text[], priorities smallint[], dues float8[], raws bytea[],
    names text[], mosts bigint[], drops boolean[], counts bigint[], dead_limit integer
) RETURNS TABLE (place integer, length bigint)
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    found record;
    excess bigint;
    too_much bigint[] := '{}';
BEGIN
    FOR i IN 1 .. cardinality(names) LOOP
        PERFORM pg_advisory_xact_lock(hashtext('{schema}.bounds'), hashtext(names[i]));
        SELECT l.ready, l.others INTO found FROM {schema}.lengths(names[i], mosts[i] + counts[i]) AS l;
        excess := found.ready + found.others + counts[i] - mosts[i];
        IF excess > 0 AND (NOT drops[i] OR excess > found.ready) THEN
            RETURN QUERY SELECT i, found.ready + found.others;
            RETURN;
        END IF;
        too_much := too_much || excess;
    END LOOP;
    FOR i IN 1 .. cardinality(names) LOOP
        IF too_much[i] > 0 THEN
            PERFORM {schema}.drop_oldest(names[i], too_much[i], mosts[i], dead_limit);
        END IF;
    END LOOP;
    PERFORM {schema}.enqueue(queues, priorities, dues, raws);
END
$$;

-- The oldest messages of the lowest priorities go to the dead letters.
CREATE FUNCTION {schema}.drop_oldest(name text, number bigint, most bigint, dead_limit integer) RETURNS void
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    WITH oldest AS MATERIALIZED (
        SELECT m.ctid AS place FROM {schema}.messages m
        WHERE m.owner IS NULL AND m.queue = name
        ORDER BY m.priority DESC, m.id LIMIT number FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {schema}.messages m WHERE m.ctid = ANY (ARRAY(SELECT o.place FROM oldest o))
        RETURNING m.id, m.priority, m.queue, m.raw
    )
    INSERT INTO {schema}.dead
        (queue, priority, raw, reason, error, task, task_id, traceback, attempts, crashes, worker, at)
    SELECT g.queue, g.priority, g.raw, 'overflow', 'QueueFull: it made room in a queue of at most ' || most || ' messages',
        coalesce(substring(encode(g.raw, 'escape') FROM '"task": ?"([^"\\]+)"'), ''),
        coalesce(substring(encode(g.raw, 'escape') FROM '"id": ?"([^"\\]+)"'), ''),
        '', 0, 0, '', clock_timestamp()
    FROM gone g ORDER BY g.priority DESC, g.id;
    DELETE FROM {schema}.dead x
    WHERE x.id <= (SELECT y.id FROM {schema}.dead y ORDER BY y.id DESC OFFSET dead_limit LIMIT 1);
END
$$;
