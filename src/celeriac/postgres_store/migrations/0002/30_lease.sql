-- Lease: messages from the heads of queues to an owner.
-- Table: messages (0001/10_tables.sql).  Tags are numbers of one sequence, so they ascend and none comes twice.
--
-- Rows that another session has just locked are passed over.  The caller has planning by statistics turned off: those of a
-- queue's table are always of another moment.
--
-- The index entries of what was leased before stay until a vacuum removes them, and it may not while a transaction is open that is
-- older.  So a session remembers for each queue and priority the id after the last one that it leased (its head), and begins there.
-- What may lie before a head all the same:
--
--   what was put back, by whomever, is found in the index messages_back, at once;
--   what another transaction had locked and then rolled back, or has committed after messages with higher ids, is found by a look
--   from the queue's start.  There may be such messages when other transactions that write were under way as a head was moved on.
--   Then a lease that finds nothing looks at once, and one that comes up short when twenty times as long has passed as the last
--   look took (ten seconds at most).
--
-- In any case there is a look when half a second has passed, and twenty times as long as the last one took: an id is given out a moment
-- before its transaction is seen to write.
--
-- Heads are only hints: it does no harm that a pooler gives one session to several owners.  They are kept in one setting of the
-- session for each queue, an array: when the queue was last looked at from its start, and the pause until the next such look, in
-- microseconds; 1 when something may lie before a head, or else 0; then priority and head of each priority, ascending.

DROP FUNCTION {schema}.next_priority(text, smallint);

CREATE FUNCTION {schema}.microseconds() RETURNS bigint
LANGUAGE sql VOLATILE AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- Whether no other transaction that writes was under way at any moment since a snapshot was taken.
CREATE FUNCTION {schema}.alone_since(before pg_snapshot) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT pg_snapshot_xmax(before) = pg_snapshot_xmax(pg_current_snapshot())
        AND NOT EXISTS (SELECT FROM pg_snapshot_xip(before))
        AND NOT EXISTS (SELECT FROM pg_snapshot_xip(pg_current_snapshot()))
$$;

-- The name of the setting.
CREATE FUNCTION {schema}.heads_of(name text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT '{schema}.heads_' || to_hex(hashtextextended(name, 0)) $$;

-- The head of a priority, or lower where something was put back; 1, below all ids, where none is remembered.
CREATE FUNCTION {schema}.head(name text, level smallint, heads bigint[]) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    lowest bigint;
BEGIN
    FOR i IN 4 .. coalesce(cardinality(heads), 0) BY 2 LOOP
        CONTINUE WHEN heads[i] <> level;
        SELECT m.id INTO lowest FROM {schema}.messages m
        WHERE m.owner IS NULL AND m.tag IS NOT NULL AND m.priority = level AND m.queue = name AND m.id < heads[i + 1]
        ORDER BY m.priority, m.queue, m.id LIMIT 1;
        RETURN coalesce(lowest, heads[i + 1]);
    END LOOP;
    RETURN 1;
END
$$;

-- Heads with that of a priority added or raised, or set after a look from the queue's start.
CREATE FUNCTION {schema}.with_head(heads bigint[], level smallint, head bigint, whole boolean) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    place integer := 4;
BEGIN
    WHILE heads[place] < level LOOP
        place := place + 2;
    END LOOP;
    IF heads[place] = level THEN
        heads[place + 1] := CASE WHEN whole THEN head ELSE greatest(head, heads[place + 1]) END;
        RETURN heads;
    END IF;
    RETURN heads[: place - 1] || level::bigint || head || heads[place :];
END
$$;

-- The lowest priority above a given one that a queue may have messages of.  Those with a head count without a look.
CREATE FUNCTION {schema}.next_priority(name text, after smallint, heads bigint[]) RETURNS smallint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    bound bigint := after;
    level smallint;
BEGIN
    FOR i IN 4 .. coalesce(cardinality(heads), 0) BY 2 LOOP
        CONTINUE WHEN heads[i] <= bound;
        SELECT m.priority INTO level FROM {schema}.messages m
        WHERE m.owner IS NULL AND m.queue = name AND m.priority > bound AND m.priority < heads[i]
        ORDER BY m.queue, m.priority, m.id LIMIT 1;
        RETURN coalesce(level, heads[i]);
    END LOOP;
    SELECT m.priority INTO level FROM {schema}.messages m
    WHERE m.owner IS NULL AND m.queue = name AND m.priority > bound
    ORDER BY m.queue, m.priority, m.id LIMIT 1;
    RETURN level;
END
$$;

CREATE OR REPLACE FUNCTION {schema}.lease(me bigint, wanted text[], most integer)
RETURNS TABLE (tag bigint, queue text, raw bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    began bigint := {schema}.microseconds();
    taking bigint := 0;  -- how long that takes which has nothing to do with finding messages
    states text[];       -- heads of each queue, as text: arrays of arrays must be of one length
    whole boolean[];     -- whether a queue is looked at from its start
    firsts smallint[];   -- the priority that comes next in each queue
    heads bigint[];
    level smallint;
    missing integer := most;
    begin_at bigint;
    last_id bigint;
    places tid[];
    again boolean;
    before pg_snapshot := pg_current_snapshot();
    unsure boolean;
BEGIN
    FOR i IN 1 .. cardinality(wanted) LOOP
        states[i] := coalesce(nullif(current_setting({schema}.heads_of(wanted[i]), true), ''), '{0,0,1}');
        heads := states[i]::bigint[];
        whole[i] := began - heads[1] >= greatest(500000, heads[2]);
        firsts[i] := {schema}.next_priority(wanted[i], (-32768)::smallint, CASE WHEN whole[i] THEN NULL ELSE heads END);
    END LOOP;
    WHILE missing > 0 LOOP
        -- The lowest priority of all goes first, in the order of the queues.
        level := (SELECT min(f.p) FROM unnest(firsts) AS f (p));
        IF level IS NULL THEN
            again := false;
            FOR i IN 1 .. cardinality(wanted) LOOP
                heads := states[i]::bigint[];
                CONTINUE WHEN whole[i] OR heads[3] = 0 OR (missing < most AND began - heads[1] < heads[2]);
                whole[i] := true;
                firsts[i] := {schema}.next_priority(wanted[i], (-32768)::smallint, NULL);
                again := true;
            END LOOP;
            EXIT WHEN NOT again;
            CONTINUE;
        END IF;
        FOR i IN 1 .. cardinality(wanted) LOOP
            CONTINUE WHEN firsts[i] IS DISTINCT FROM level;
            heads := states[i]::bigint[];
            begin_at := CASE WHEN whole[i] THEN 1 ELSE {schema}.head(wanted[i], level, heads) END;
            SELECT array_agg(h.place), max(h.id) INTO places, last_id
            FROM (
                SELECT m.ctid AS place, m.id FROM {schema}.messages m
                WHERE m.owner IS NULL AND m.queue = wanted[i] AND m.priority = level AND m.id >= begin_at
                ORDER BY m.queue, m.priority, m.id LIMIT missing FOR UPDATE SKIP LOCKED
            ) AS h;
            IF places IS NOT NULL THEN
                taking := taking - {schema}.microseconds();
                -- A list of places is read in the order of the places.  Mostly that is the order of the queue, too, and costs a
                -- third less than a join that keeps an order.
                IF places = ARRAY(SELECT p.place FROM unnest(places) AS p (place) ORDER BY p.place) THEN
                    RETURN QUERY
                    UPDATE {schema}.messages m SET owner = me, tag = nextval('{schema}.tags') WHERE m.ctid = ANY (places)
                    RETURNING m.tag, m.queue, m.raw;
                ELSE
                    RETURN QUERY
                    WITH head AS MATERIALIZED (
                        SELECT p.place, nextval('{schema}.tags') AS tag FROM unnest(places) AS p (place)
                    )
                    UPDATE {schema}.messages m SET owner = me, tag = head.tag FROM head WHERE m.ctid = head.place
                    RETURNING m.tag, m.queue, m.raw;
                END IF;
                taking := taking + {schema}.microseconds();
                states[i] := {schema}.with_head(heads, level, last_id + 1, whole[i])::text;
                missing := missing - cardinality(places);
                EXIT WHEN missing <= 0;
            END IF;
            firsts[i] := {schema}.next_priority(wanted[i], level, CASE WHEN whole[i] THEN NULL ELSE heads END);
        END LOOP;
    END LOOP;
    unsure := NOT {schema}.alone_since(before);
    FOR i IN 1 .. cardinality(wanted) LOOP
        heads := states[i]::bigint[];
        heads[3] := CASE WHEN whole[i] THEN unsure::integer ELSE greatest(heads[3], unsure::integer) END;
        IF whole[i] THEN
            heads[1] := began;
            heads[2] := least(20 * ({schema}.microseconds() - began - taking), 10000000);
        END IF;
        PERFORM set_config({schema}.heads_of(wanted[i]), heads::text, false);
    END LOOP;
END
$$;
