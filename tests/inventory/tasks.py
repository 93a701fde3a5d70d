"""Options of tasks and calls, the canvas, signals, events and states."""

from __future__ import annotations

from tests.inventory.row import Section, celery, different, honoured, merged, refused

ORACLE = "oracle/test_programs.py::test_a_program_does_what_it_does_on_celery"
TREES = "oracle/test_trees.py::test_a_random_canvas_does_what_it_does_on_celery"
SENT = "test_settings.py::test_a_message_is_the_same_as_from_celery"
SIGNALS_TEST = "test_signals.py::test_signals_are_sent_as_by_celery"
HANDOVER = "test_handover.py::test_a_gevent_worker_serves_what_our_producers_send"
FIELDS = "test_signals.py::test_events_have_the_fields_that_celerys_have"

TASK_OPTIONS: Section = merged(
    honoured("bind name base throws max_retries default_retry_delay autoretry_for dont_autoretry_for retry_kwargs "
             "retry_backoff retry_backoff_max retry_jitter ignore_result store_errors_even_if_ignored track_started "
             "expires priority acks_late time_limit soft_time_limit trail", ORACLE),
    honoured("rate_limit", "test_rate_limits.py::"
             "test_a_limit_spaces_the_starts_of_all_slots_and_holds_nobody_else_up"),
    honoured("reject_on_worker_lost", "test_survival_slots.py::"
             "test_a_late_acknowledged_task_runs_again_within_a_second_and_nothing_else_is_disturbed"),
    honoured("retry_on_worker_lost", "test_task_options.py::test_a_task_whose_process_died_is_retried"),
    honoured("acks_on_failure acks_on_timeout acks_on_failure_or_timeout",
             "test_task_options.py::test_late_tasks_are_acknowledged_as_their_options_say"),
    honoured("serializer typing", "test_task_options.py::test_every_serializer_and_compression_goes_there_and_back"),
    honoured("send_events", "test_events.py::test_nothing_is_told_of_tasks_unless_asked_for"),
    honoured("backend", "test_task_options.py::test_a_task_has_a_result_store_of_its_own"),
    honoured("resultrepr_maxsize", "test_task_options.py::test_logged_results_are_cut"),
    celery("pydantic pydantic_strict pydantic_context pydantic_dump_kwargs", "Celery wraps the body",
           "test_task_options.py::test_models_of_pydantic_go_there_and_back"),
    celery("shared lazy abstract", "how tasks are registered", "test_task_options.py::test_class_based_tasks_run"),
    honoured("Request", "test_task_options.py::test_a_request_class_of_an_app_hears_of_its_tasks"),
    refused("Strategy", "the engine takes messages from the broker itself; override __call__ or the handlers",
            "test_settings.py::test_what_cannot_be_honoured_is_refused_with_a_way_out"),
)  # fmt: skip

CALL_OPTIONS: Section = merged(
    honoured("args kwargs task_id link link_error shadow countdown eta expires retries priority queue headers time_limit "
             "soft_time_limit ignore_result chain chord callbacks errbacks group_id group_index parent_id root_id "
             "reply_to replaced_task_nesting stamped_headers add_to_parent", ORACLE),
    honoured("serializer compression exchange exchange_type routing_key delivery_mode argsrepr kwargsrepr route_name router "
             "task_type", SENT),
    honoured("retry retry_policy", "test_settings.py::test_sending_is_tried_again_as_the_policy_says"),
    honoured("result_cls", "test_settings.py::test_a_call_has_its_own_class_of_handle"),
    honoured("create_sent_event event_dispatcher", "test_events.py::test_a_sent_task_is_announced"),
    different("connection publisher", "sending keeps a connection per thread, so another one is not used: to send to another "
              "broker make an app for it"),
    celery("declare timeout confirm_timeout mandatory immediate", "AMQP only; what does not go to one queue goes through kombu"),
)  # fmt: skip

CANVAS: Section = merged(
    honoured("Signature signature maybe_signature chain group chord", TREES),
    honoured("xmap xstarmap chunks Task.map Task.starmap Task.chunks", ORACLE),
    honoured("StampingVisitor", ORACLE),
    honoured("Task.s Task.si Task.signature Task.subtask Task.delay Task.apply_async Task.apply Task.AsyncResult Task.retry "
             "Task.replace Task.add_to_chord Task.update_state Task.signature_from_request Task.subtask_from_request "
             "Task.add_trail Task.run Task.before_start Task.on_success Task.on_failure Task.on_retry Task.after_return "
             "Task.push_request Task.pop_request", ORACLE),
    honoured("Task.shadow_name Task.on_replace", ORACLE),
    celery("Task.send_event", "Celery's dispatcher, from the slot", "test_task_options.py::test_a_task_sends_an_event_of_its_own"),
    refused("Task.start_strategy", "see Strategy", "test_settings.py::test_what_cannot_be_honoured_is_refused_with_a_way_out"),
)  # fmt: skip

SIGNALS: Section = merged(
    honoured("before_task_publish after_task_publish task_prerun task_postrun task_success task_failure task_retry "
             "task_revoked task_internal_error", ORACLE),
    different("task_received", "sent by the process that runs the task, just before it: messages that are not due stay in "
              "the broker", ORACLE),
    honoured("task_unknown task_rejected celeryd_init celeryd_after_setup worker_init worker_ready worker_process_init "
             "worker_process_shutdown worker_shutting_down worker_shutdown worker_before_create_process heartbeat_sent "
             "task_sent import_modules setup_logging after_setup_logger after_setup_task_logger", SIGNALS_TEST),
    celery("beat_init beat_embedded_init", "by the beat service", SIGNALS_TEST),
    celery("user_preload_options", "Celery's commands, and ours", SIGNALS_TEST),
    celery("eventlet_pool_apply eventlet_pool_postshutdown eventlet_pool_preshutdown eventlet_pool_started",
           "with -P eventlet, by Celery's own worker", HANDOVER),
)  # fmt: skip

EVENTS: Section = merged(
    honoured("task-sent", "test_events.py::test_a_sent_task_is_announced"),
    honoured("task-received task-started task-succeeded task-failed task-retried task-rejected task-revoked", FIELDS),
    honoured("worker-online worker-heartbeat worker-offline", FIELDS),
    different("task-cancelled", "no task is cancelled because a connection was lost: its lease outlives that"),
    different("worker-elect worker-elect-ack", "Celeriac's workers do not gossip"),
)  # fmt: skip

STATES: Section = merged(
    honoured("PENDING STARTED RETRY FAILURE SUCCESS REVOKED", ORACLE),
    different("RECEIVED", "only in the memory of monitors, as in Celery", FIELDS),
)
