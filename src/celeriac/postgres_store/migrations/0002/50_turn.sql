-- Turn: settle a batch of outcomes and lease the next one.
-- Tables: owners, messages, dead, results, chords (0001/10_tables.sql), through the functions of other files.
--
-- What is put back keeps its tag; see 10_tables.sql.
--
-- Everything is fenced by the owner: a condemned one is refused as a whole (SQLSTATE CL001), and a lease that it does not
-- hold any more is refused alone.  The shared advisory lock is held to the end of the transaction; condemning takes it
-- exclusively, so that who was condemned can have no turn under way.  (A lock on the owner's row would do the same, and
-- write the row each time.)
--
-- Arguments that there are none of are NULL, so that a plain batch costs one delete and one update.
--
--   tags                  of all outcomes, each once
--   result_…              results, each with the tag of its outcome; no task twice
--   part_…                finished members of chords
--   next_…                messages that follow; next_dues is NULL when all are for now
--   back_tags, back_raws  to be put back; raw is NULL where it did not change
--   dead_…                to be given up
--   done_tags, done_groups  chords whose callback is among what follows
--   key_…                 held keys that go with an outcome
--   wanted, most          queues to lease from, in their order, and how many messages
--
-- Returns rows of three kinds: 0 once, first, with the number of refused outcomes as tag; 1 for each part (its place as tag)
-- that completed a chord: its outcome is not finished; 2 for each leased message.

CREATE OR REPLACE FUNCTION {schema}.turn(
    owner_name text, is_condemned boolean, tags bigint[],
    result_tags bigint[], result_ids text[], result_states text[], result_payloads bytea[], result_guards boolean[],
    part_tags bigint[], part_groups text[], part_tasks text[], part_positions integer[], part_payloads bytea[],
    claim_seconds float8,
    next_tags bigint[], next_queues text[], next_priorities smallint[], next_dues float8[], next_raws bytea[],
    back_tags bigint[], back_raws bytea[],
    dead_tags bigint[], dead_reasons text[], dead_errors text[], dead_tasks text[], dead_task_ids text[],
    dead_tracebacks text[], dead_attempts integer[], dead_crashes integer[], dead_workers text[], dead_ats float8[],
    dead_limit integer,
    done_tags bigint[], done_groups text[],
    key_tags bigint[], key_spaces text[], key_names text[], key_holders text[], key_contents bytea[], key_ttls float8[],
    wanted text[], most integer
)
RETURNS TABLE (kind smallint, tag bigint, queue text, raw bytea)
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    me bigint;
    held bigint[];
    complete integer[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('{schema}.owners'), hashtext(owner_name));
    SELECT o.id INTO me FROM {schema}.owners o
    WHERE o.name = owner_name AND (o.condemned_at IS NOT NULL) = is_condemned;
    IF me IS NULL AND NOT is_condemned THEN
        RAISE EXCEPTION 'owner % is not registered, or its leases were taken over', owner_name USING ERRCODE = 'CL001';
    END IF;
    IF tags IS NOT NULL THEN
        IF part_tags IS NULL AND back_tags IS NULL AND dead_tags IS NULL THEN
            WITH gone AS (
                DELETE FROM {schema}.messages m WHERE m.owner = me AND m.tag = ANY (tags) RETURNING m.tag
            )
            SELECT array_agg(gone.tag) INTO held FROM gone;
        ELSE
            held := ARRAY(
                SELECT m.tag FROM {schema}.messages m
                WHERE m.owner = me AND m.tag = ANY (tags) ORDER BY m.owner, m.tag FOR UPDATE
            );
        END IF;
        held := coalesce(held, '{}');
        RETURN QUERY SELECT 0::smallint, (cardinality(tags) - cardinality(held))::bigint, NULL::text, NULL::bytea;
        IF result_tags IS NOT NULL THEN
            IF cardinality(held) < cardinality(tags) THEN
                SELECT array_agg(r.id), array_agg(r.state), array_agg(r.payload), array_agg(r.guarded)
                INTO result_ids, result_states, result_payloads, result_guards
                FROM unnest(result_tags, result_ids, result_states, result_payloads, result_guards)
                    AS r (tag, id, state, payload, guarded)
                WHERE r.tag = ANY (held);
            END IF;
            PERFORM {schema}.put_results(result_ids, result_states, result_payloads, result_guards);
        END IF;
        IF part_tags IS NOT NULL THEN
            -- Groups of outcomes that are refused are passed over, places kept.
            SELECT array_agg(CASE WHEN p.tag = ANY (held) THEN p.id END ORDER BY p.n) INTO part_groups
            FROM unnest(part_tags, part_groups) WITH ORDINALITY AS p (tag, id, n);
            complete := ARRAY(
                SELECT c.place FROM {schema}.count_parts(part_groups, part_tasks, part_positions, part_payloads, claim_seconds)
                    AS c (place) ORDER BY c.place
            );
            RETURN QUERY SELECT 1::smallint, c.place::bigint, NULL::text, NULL::bytea FROM unnest(complete) AS c (place);
            held := ARRAY(
                SELECT h.tag FROM unnest(held) AS h (tag)
                WHERE h.tag <> ALL (ARRAY(SELECT part_tags[c.place] FROM unnest(complete) AS c (place)))
            );
        END IF;
        IF back_tags IS NOT NULL THEN
            UPDATE {schema}.messages m SET owner = NULL, raw = coalesce(b.raw, m.raw)
            FROM unnest(back_tags, back_raws) AS b (tag, raw)
            WHERE m.owner = me AND m.tag = b.tag AND b.tag = ANY (held);
        END IF;
        IF dead_tags IS NOT NULL THEN
            INSERT INTO {schema}.dead
                (queue, priority, raw, reason, error, task, task_id, traceback, attempts, crashes, worker, at)
            SELECT m.queue, m.priority, m.raw, d.reason, d.error, d.task, d.task_id, d.traceback, d.attempts, d.crashes,
                d.worker, coalesce(to_timestamp(d.at), clock_timestamp())
            FROM unnest(dead_tags, dead_reasons, dead_errors, dead_tasks, dead_task_ids, dead_tracebacks, dead_attempts,
                    dead_crashes, dead_workers, dead_ats) WITH ORDINALITY
                AS d (tag, reason, error, task, task_id, traceback, attempts, crashes, worker, at, n)
            JOIN {schema}.messages m ON m.owner = me AND m.tag = d.tag
            WHERE d.tag = ANY (held) ORDER BY d.n;
            DELETE FROM {schema}.dead x
            WHERE x.id <= (SELECT y.id FROM {schema}.dead y ORDER BY y.id DESC OFFSET dead_limit LIMIT 1);
        END IF;
        IF part_tags IS NOT NULL OR back_tags IS NOT NULL OR dead_tags IS NOT NULL THEN
            -- What was put back has no owner any more.
            DELETE FROM {schema}.messages m WHERE m.owner = me AND m.tag = ANY (held);
        END IF;
        IF key_tags IS NOT NULL THEN
            PERFORM {schema}.apply_keys(
                array_agg(k.space), array_agg(k.name), array_agg(k.holder), array_agg(k.content), array_agg(k.ttl))
            FROM unnest(key_tags, key_spaces, key_names, key_holders, key_contents, key_ttls)
                AS k (tag, space, name, holder, content, ttl)
            WHERE k.tag = ANY (held);
        END IF;
        IF done_tags IS NOT NULL THEN
            PERFORM {schema}.finish_chords(ARRAY(
                SELECT d.id FROM unnest(done_tags, done_groups) AS d (tag, id) WHERE d.tag = ANY (held)
            ));
        END IF;
        IF next_tags IS NOT NULL THEN
            IF cardinality(held) < cardinality(tags) THEN
                SELECT array_agg(n.queue ORDER BY n.n), array_agg(n.priority ORDER BY n.n), array_agg(n.due ORDER BY n.n),
                    array_agg(n.raw ORDER BY n.n)
                INTO next_queues, next_priorities, next_dues, next_raws
                FROM unnest(next_tags, next_queues, next_priorities, next_dues, next_raws) WITH ORDINALITY
                    AS n (tag, queue, priority, due, raw, n)
                WHERE n.tag = ANY (held);
            END IF;
            PERFORM {schema}.enqueue(next_queues, next_priorities, next_dues, next_raws);
        END IF;
    END IF;
    IF most > 0 THEN
        RETURN QUERY SELECT 2::smallint, l.tag, l.queue, l.raw FROM {schema}.lease(me, wanted, most) AS l;
    END IF;
END
$$;

-- Put unstarted deliveries back where they were; returns their queues, once for each message.
CREATE OR REPLACE FUNCTION {schema}.release(owner_name text, tags bigint[]) RETURNS SETOF text
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('{schema}.owners'), hashtext(owner_name));
    RETURN QUERY
    UPDATE {schema}.messages m SET owner = NULL
    WHERE m.owner = (SELECT o.id FROM {schema}.owners o WHERE o.name = owner_name AND o.condemned_at IS NULL)
        AND m.tag = ANY (tags)
    RETURNING m.queue;
END
$$;
