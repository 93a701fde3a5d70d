"""Options of the command line, and remote control."""

from __future__ import annotations

from tests.inventory.row import Section, celery, different, honoured, merged, refused

DAEMON = "test_daemon.py::test_a_detached_worker_is_a_daemon_in_full"
COMMANDS = "test_commands.py::test_celerys_commands_work_on_our_app"
WORKER = "test_commands.py::test_every_option_of_the_worker_is_taken"

WORKER_OPTIONS: Section = merged(
    honoured("--hostname", "test_control.py::test_two_workers_answer_each_for_itself"),
    honoured("--detach --logfile --pidfile --umask --executable", DAEMON),
    honoured("--uid --gid", "test_daemon.py::test_a_worker_gives_its_privileges_up"),
    honoured("--statedb", "test_control.py::test_a_revoke_is_remembered_by_the_next_worker_with_a_state_file"),
    honoured("--loglevel", "test_settings.py::test_logs_look_as_they_are_told_to"),
    different("--optimization", "always fair: a message never waits behind a slow task while another slot is idle", WORKER),
    honoured("--prefetch-multiplier", WORKER, "1 means that nothing unstarted is held; any other number has no effect"),
    honoured("--disable-prefetch", "test_settings.py::test_without_prefetch_nothing_waits_in_a_slot"),
    honoured("--concurrency", "test_limits.py::test_limits_of_the_worker_and_of_a_call"),
    honoured("--pool", "test_control.py::test_a_worker_of_any_pool_describes_itself",
             "processes (prefork), threads, asyncio, solo; gevent, eventlet and classes: Celery's own worker is started"),
    honoured("--task-events", "test_events.py::test_a_task_is_followed_from_its_queue_to_its_result"),
    honoured("--time-limit --soft-time-limit", "test_limits.py::test_limits_of_the_worker_and_of_a_call"),
    honoured("--max-tasks-per-child", "test_limits.py::test_a_process_runs_exactly_as_many_tasks_as_it_may"),
    honoured("--max-memory-per-child", "test_limits.py::test_a_process_that_took_too_much_memory_is_replaced"),
    refused("--pool-start-method", "fork is the only one; slots are forked from a process that has no threads",
            "test_settings.py::test_what_cannot_be_honoured_is_refused_with_a_way_out"),
    honoured("--discard", WORKER, "--purge is the same"),
    honoured("--queues", "test_queues_at_run_time.py::"
             "test_queues_are_added_and_cancelled_in_slots_that_there_are_and_that_come_later"),
    honoured("--exclude-queues --include", WORKER),
    different("--without-gossip --without-mingle", "taken; Celeriac's workers do not gossip, and answer a mingle of "
              "stock workers", WORKER),
    honoured("--without-heartbeat --heartbeat-interval", "test_events.py::test_a_worker_comes_beats_and_goes"),
    honoured("--autoscale", "test_limits.py::test_slots_come_with_the_load_and_go_without_it"),
    honoured("--beat --schedule-filename --scheduler", "test_commands.py::test_a_worker_runs_beat_inside"),
)  # fmt: skip

COMMAND_OPTIONS: Section = merged(
    celery("--app --broker --config --loader --no-color --quiet --result-backend --skip-checks --workdir",
           "Celery's command reads them; the app is upgraded on the way in", COMMANDS),
    honoured("--version", COMMANDS),
    honoured("multi", "test_daemon.py::test_multi_starts_restarts_and_stops_our_workers"),
    honoured("purge purge~--force purge~--queues purge~--exclude-queues",
             "test_control.py::test_purge_call_and_result_work_from_the_command_line", "empties the schedule, too"),
    honoured("beat beat~--schedule beat~--scheduler beat~--max-interval beat~--hostname beat~--loglevel "
             "beat~--enable-remote-control", "test_commands.py::test_beat_sends_what_is_due",
             "with Celeriac's scheduler, which needs no --schedule; -S takes one of Celery's"),
    celery("beat~--detach beat~--logfile beat~--pidfile beat~--uid beat~--gid beat~--umask beat~--executable",
           "Celery's beat", "test_commands.py::test_beat_sends_what_is_due"),
    celery("call call~--args call~--kwargs call~--eta call~--countdown call~--expires call~--serializer call~--queue "
           "call~--exchange call~--routing-key result result~--task result~--traceback", "sends and reads through Celeriac",
           "test_control.py::test_purge_call_and_result_work_from_the_command_line"),
    celery("control control~--list control~--timeout control~--destination control~--json inspect inspect~--list "
           "inspect~--timeout inspect~--destination inspect~--json status status~--timeout status~--destination "
           "status~--json", "Celery's client; the worker's side is ours",
           "test_control.py::test_our_command_line_reaches_a_worker_on_the_embedded_default"),
    celery("events events~--dump events~--camera events~--frequency events~--maxrate events~--loglevel events~--logfile "
           "events~--detach events~--pidfile events~--uid events~--gid events~--umask events~--executable",
           "Celery's monitors, on our events", "test_commands.py::test_events_are_dumped"),
    celery("migrate migrate~--limit migrate~--timeout migrate~--ack-messages migrate~--tasks migrate~--queues "
           "migrate~--forever", "moves what is queued; what Celeriac has scheduled is put into its queues by "
           "`celeriac release` first", "test_commands.py::test_messages_move_to_another_broker"),
    celery("shell shell~--ipython shell~--bpython shell~--python shell~--without-tasks shell~--eventlet shell~--gevent "
           "report graph graph~bootsteps graph~workers list list~bindings logtool logtool~debug logtool~errors "
           "logtool~incomplete logtool~stats logtool~traces upgrade upgrade~settings upgrade~settings~--django "
           "upgrade~settings~--compat upgrade~settings~--no-backup", "Celery's commands", COMMANDS),
    celery("amqp amqp~basic.ack amqp~basic.get amqp~basic.publish amqp~exchange.declare amqp~exchange.delete "
           "amqp~queue.bind amqp~queue.declare amqp~queue.delete amqp~queue.purge amqp~repl",
           "Celery's shell for AMQP brokers"),
)  # fmt: skip

LIST = "test_control.py::test_what_runs_is_listed_as_celery_lists_it"
DESCRIBES = "test_control.py::test_a_worker_of_any_pool_describes_itself"
POOL = "test_control.py::test_the_pool_grows_shrinks_and_restarts"

CONTROL_COMMANDS: Section = merged(
    honoured("active dump_active stats", LIST),
    honoured("query_task scheduled dump_schedule", "test_control.py::test_what_is_not_due_yet_is_listed_as_scheduled"),
    honoured("reserved dump_reserved active_queues", DESCRIBES),
    celery("registered dump_tasks conf dump_conf clock report", "Celery's commands, on this worker's app", DESCRIBES),
    celery("memsample memdump objgraph", "Celery's commands, about the supervisor's memory",
           "test_surface.py::test_the_supervisors_memory_can_be_asked_for"),
    honoured("ping", "test_control.py::test_a_worker_answers_a_ping"),
    honoured("hello revoked dump_revoked", "test_control.py::test_the_commands_of_stock_celery_reach_our_worker"),
    honoured("revoke", "test_control.py::test_a_revoked_task_does_not_run_whether_it_is_queued_or_scheduled"),
    honoured("terminate", "test_control.py::test_terminating_ends_the_task_and_nothing_else"),
    honoured("revoke_by_stamped_headers", "test_surface.py::test_running_tasks_are_ended_by_their_stamps"),
    honoured("rate_limit", "test_rate_limits.py::test_a_limit_is_changed_and_survives_a_lost_slot_and_a_restart"),
    honoured("time_limit", "test_control.py::test_time_limits_can_be_set_while_the_worker_runs"),
    honoured("add_consumer cancel_consumer", "test_queues_at_run_time.py::"
             "test_queues_are_added_and_cancelled_in_slots_that_there_are_and_that_come_later"),
    honoured("pool_grow pool_shrink", POOL, "where the pool is one process (threads, asyncio, solo): refused, as Celery "
             "does for threads"),
    honoured("pool_restart", "test_surface.py::test_a_restarted_pool_has_other_code"),
    honoured("autoscale", "test_control.py::test_the_limits_of_the_autoscaler_can_be_changed"),
    honoured("shutdown", "test_control.py::test_a_worker_is_shut_down_from_afar"),
    honoured("enable_events disable_events heartbeat", "test_events.py::test_nothing_is_told_of_tasks_unless_asked_for"),
    refused("election", "Celeriac's workers do not gossip; let a beat schedule send the task once",
            "test_control.py::test_what_cannot_be_done_is_said_with_a_way_out"),
)  # fmt: skip
