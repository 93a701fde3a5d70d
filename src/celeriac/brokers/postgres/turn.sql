-- Turn and release.  Tables: owners, messages, dead, results, chords (postgres_store/migrations/0002/50_turn.sql).

-- name: turn
SELECT kind, tag, queue, raw FROM {schema}.turn(
    %(owner)s, %(condemned)s, %(tags)s,
    %(result_tags)s, %(result_ids)s, %(result_states)s, %(result_payloads)s, %(result_guards)s,
    %(part_tags)s, %(part_groups)s, %(part_tasks)s, %(part_positions)s, %(part_payloads)s, %(claim_seconds)s,
    %(next_tags)s, %(next_queues)s, %(next_priorities)s, %(next_dues)s, %(next_raws)s,
    %(back_tags)s, %(back_raws)s,
    %(dead_tags)s, %(dead_reasons)s, %(dead_errors)s, %(dead_tasks)s, %(dead_task_ids)s, %(dead_tracebacks)s,
    %(dead_attempts)s, %(dead_crashes)s, %(dead_workers)s, %(dead_ats)s, %(dead_limit)s,
    %(done_tags)s, %(done_groups)s,
    %(key_tags)s, %(key_spaces)s, %(key_names)s, %(key_holders)s, %(key_contents)s, %(key_ttls)s,
    %(wanted)s, %(most)s)

-- name: release
SELECT queue FROM {schema}.release(%s, %s) AS queue
