-- needs: 1
-- What leasing from a remembered place and sending by COPY need of the table of messages.
--
--   tag        stays in a message that was leased and is put back, so that the index messages_back has those and no others: they
--              are what comes to lie before messages that were leased already (see 30_lease.sql).
--   queued_at  is filled in by the server, since COPY calls no function.
--
-- The index has its columns in an order of its own, so that the planner cannot take the other one in its place.

ALTER TABLE {schema}.messages ALTER queued_at SET DEFAULT clock_timestamp();

CREATE INDEX messages_back ON {schema}.messages (priority, queue, id) WHERE owner IS NULL AND tag IS NOT NULL;
