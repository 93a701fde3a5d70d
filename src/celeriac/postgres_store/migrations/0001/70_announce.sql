-- Announce: wake whoever waits for messages in these queues, or for these results.
-- Tables: waiters (10_tables.sql).
--
-- Called after the transaction that wrote them, in the same round trip.  Who waits makes itself known first and looks then;
-- who writes commits first and asks then who waits: so one of the two sees the other.  A notification is only sent when
-- somebody waits, because those that send one commit one after another, in the whole database.
--
-- Who waits for messages holds a shared advisory lock for each queue, with channel {schema}.ready; it needs no row to be
-- written, and goes when its connection does.

CREATE FUNCTION {schema}.announce(queues text[], ids text[]) RETURNS void
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off AS $$
DECLARE
    name text;
    target record;
BEGIN
    FOR name IN SELECT DISTINCT q.name FROM unnest(queues) AS q (name) LOOP
        IF NOT pg_try_advisory_xact_lock(hashtext('{schema}.ready'), hashtext(name)) THEN
            PERFORM set_config('synchronous_commit', 'off', true), pg_notify('{schema}.ready', hashtext(name)::text);
        END IF;
    END LOOP;
    IF ids IS NOT NULL AND EXISTS (SELECT FROM {schema}.waiters) THEN
        FOR target IN SELECT DISTINCT w.channel FROM {schema}.waiters w WHERE w.task_id = ANY (ids) LOOP
            PERFORM set_config('synchronous_commit', 'off', true), pg_notify(target.channel, '');
        END LOOP;
    END IF;
END
$$;
