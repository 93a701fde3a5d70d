-- Look: how much lies in queues, who is to be rescued, whether anything is old.
-- Tables: messages, scheduled, owners, results, groups, chords (10_tables.sql).
--
-- Functions for the sake of their settings: whatever statistics say, no table is read from end to end.  (A plan that cannot do
-- without a scan that is off counts as dear, and the server would compile it, which takes longer than all the rest: no JIT.)

-- How much lies in each queue, in the order asked.  What waits is counted one by one up to a bound, in the index.
CREATE FUNCTION {schema}.depths(wanted text[], bound bigint)
RETURNS TABLE (ready bigint, later bigint, consumers bigint, age float8, waiting bigint)
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    wish text;
BEGIN
    FOREACH wish IN ARRAY wanted LOOP
        SELECT count(*) INTO ready FROM (
            SELECT FROM {schema}.messages m WHERE m.owner IS NULL AND m.queue = wish LIMIT bound) AS bounded;
        SELECT count(*) INTO later FROM (
            SELECT FROM {schema}.scheduled s WHERE s.queue = wish LIMIT bound) AS bounded;
        SELECT count(*) INTO consumers FROM {schema}.owners o
        WHERE o.condemned_at IS NULL AND o.deadline >= clock_timestamp() AND wish = ANY (o.queues);
        age := (SELECT extract(epoch FROM clock_timestamp() - m.queued_at) FROM {schema}.messages m
            WHERE m.owner IS NULL AND m.queue = wish ORDER BY m.queue, m.priority, m.id LIMIT 1);
        waiting := {schema}.parked(wish, bound);
        RETURN NEXT;
    END LOOP;
END
$$;

-- Owners whose time ran out, and condemned ones that still hold something some seconds later.
CREATE FUNCTION {schema}.expired(seconds float8, most integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT o.name FROM {schema}.owners o
    WHERE (o.condemned_at IS NULL AND o.deadline < clock_timestamp())
        OR (o.condemned_at < clock_timestamp() - make_interval(secs => seconds)
            AND (SELECT m.tag FROM {schema}.messages m WHERE m.owner = o.id LIMIT 1) IS NOT NULL)
    ORDER BY o.id LIMIT most;
END
$$;

-- How many messages are leased, by anybody.
CREATE FUNCTION {schema}.leased_count() RETURNS bigint
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT count(*) FROM {schema}.messages m WHERE m.owner IS NOT NULL);
END
$$;

-- Whether anything has outlived its time (in seconds): results, groups and open chords theirs, done chords theirs.
CREATE FUNCTION {schema}.anything_old(ttl float8, done_ttl float8) RETURNS boolean
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    bound timestamptz := clock_timestamp() - make_interval(secs => ttl);
    done_bound timestamptz := clock_timestamp() - make_interval(secs => done_ttl);
BEGIN
    RETURN coalesce((SELECT r.at FROM {schema}.results r ORDER BY r.at LIMIT 1) <= bound, false)
        OR coalesce((SELECT g.at FROM {schema}.groups g ORDER BY g.at LIMIT 1) <= bound, false)
        OR coalesce((SELECT c.at FROM {schema}.chords c WHERE NOT c.done ORDER BY c.done, c.at LIMIT 1) <= bound, false)
        OR coalesce((SELECT c.at FROM {schema}.chords c WHERE c.done ORDER BY c.done, c.at LIMIT 1) <= done_bound, false);
END
$$;
