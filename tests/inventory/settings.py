"""Celery's settings."""

from __future__ import annotations

from celeriac.compat.refusals import REFUSED, UNNEEDED
from tests.inventory.row import Section, celery, different, honoured, merged, refused

ORACLE = "oracle/test_programs.py::test_a_program_does_what_it_does_on_celery"
SENT = "test_settings.py::test_a_message_is_the_same_as_from_celery"
STORED = "test_settings.py::test_results_are_stored_as_by_celery"
REFUSED_TEST = "test_settings.py::test_what_cannot_be_honoured_is_refused_with_a_way_out"
UNNEEDED_TEST = "test_settings.py::test_settings_without_an_effect_are_named"
CONTROL = "test_control.py::test_a_worker_answers_a_ping"
BEAT = "test_commands.py::test_beat_sends_what_is_due"

GENERAL = merged(
    honoured("accept_content", "test_bad_input.py::test_pickle_is_refused_with_a_word_on_how_to_allow_it"),
    honoured("result_accept_content", STORED),
    honoured("enable_utc timezone", SENT),
    celery("imports include", "the app's loader imports them", "test_settings.py::test_modules_are_imported"),
)

BROKER = merged(
    honoured("broker_url", ORACLE),
    refused(
        "broker_read_url broker_write_url",
        "only when they are different: a worker takes a message and sends what follows it in one transaction",
        REFUSED_TEST,
    ),
    honoured("broker_transport_options", "test_settings.py::test_connection_settings_reach_the_engine", "key prefix, priority "
             "steps, separator, time-outs; the visibility timeout has no use, because leases are kept alive by beats"),
    honoured("broker_connection_timeout broker_use_ssl", "test_settings.py::test_connection_settings_reach_the_engine"),
    honoured("broker_connection_retry broker_connection_retry_on_startup",
             "test_settings.py::test_a_worker_gives_a_broker_up_as_it_is_told"),
    different("broker_connection_max_retries", "Celery's default (100) would end a worker in an outage of an hour and "
              "means here: go on trying. Any other number is honoured, as the time that so many tries take",
              "test_settings.py::test_how_long_an_outage_may_last"),
    honoured("broker_failover_strategy", REFUSED_TEST, "on RabbitMQ; where each URL is another store, several are refused"),
    different("broker_heartbeat", "RabbitMQ: Celery's default (120) would leave what was pushed to a lost node there for minutes and "
              "means here: a third of the lease, 10 s. Any other number is honoured",
              "faults/test_partitions.py::test_what_was_pushed_to_a_lost_node_goes_to_others_when_its_leases_end"),
    celery("broker_heartbeat_checkrate broker_login_method broker_native_delayed_delivery_queue_type",
           "AMQP only: see the RabbitMQ engine"),
    different("broker_pool_limit broker_pool_acquire_timeout", "sending keeps one connection per thread and needs no pool; "
              "what goes through kombu uses kombu's pool, with these"),
    honoured("broker_transport broker_host broker_port broker_user broker_password broker_vhost",
             "test_settings.py::test_a_broker_may_be_named_in_parts"),
)  # fmt: skip

CONTROL_AND_EVENTS = merged(
    celery("control_exchange control_queue_durable control_queue_exclusive control_queue_expires control_queue_ttl",
           "Celery's mailbox is used as it is", CONTROL),
    honoured("event_exchange event_serializer", "test_events.py::test_a_task_is_followed_from_its_queue_to_its_result"),
    celery("event_queue_durable event_queue_exclusive event_queue_expires event_queue_prefix event_queue_ttl",
           "Celery's event receiver, in monitors"),
)  # fmt: skip

BEAT_SETTINGS = merged(
    honoured("beat_schedule beat_scheduler beat_cron_starting_deadline", BEAT,
             "by Celeriac's scheduler, or by the one of Celery's that beat_scheduler or -S names"),
    celery("beat_schedule_filename beat_sync_every beat_max_loop_interval beat_enable_remote_control "
           "beat_remote_control_max_tick_age", "Celery's beat; Celeriac's scheduler keeps its state in the broker or the result "
           "store, needs no file, and looks when something is due"),
)  # fmt: skip

OTHER_STORES = celery(
    " ".join(
        [
            "arangodb_backend_settings cache_backend cache_backend_options couchbase_backend_settings",
            "mongodb_backend_settings",
            *(f"cassandra_{n}" for n in ("auth_kwargs", "auth_provider", "bundle_path", "entry_ttl", "keyspace", "options",
                                         "port", "read_consistency", "servers", "table", "write_consistency")),
            *(f"s3_{n}" for n in ("access_key_id", "secret_access_key", "bucket", "base_path", "endpoint_url", "region")),
            *(f"azureblockblob_{n}" for n in ("base_path", "connection_timeout", "container_name", "read_timeout",
                                              "retry_increment_base", "retry_initial_backoff_sec", "retry_max_attempts")),
            *(f"gcs_{n}" for n in ("bucket", "project", "base_path", "ttl")),
            *(f"cosmosdbsql_{n}" for n in ("collection_name", "consistency_level", "database_name", "max_retry_attempts",
                                           "max_retry_wait_time")),
            *(f"elasticsearch_{n}" for n in ("max_retries", "retry_on_timeout", "save_meta_as_text", "timeout")),
            *(f"database_{n}" for n in ("create_tables_at_setup", "engine_callback", "engine_options",
                                        "short_lived_sessions", "table_names", "table_schemas", "url")),
        ]
    ),
    "Celery's own class of that result store reads and writes it",
)  # fmt: skip

REDIS = merged(
    honoured("redis_host redis_port redis_db redis_username redis_password redis_backend_use_ssl",
             "test_settings.py::test_connection_settings_reach_the_engine"),
    celery("redis_max_connections redis_retry_on_timeout redis_socket_connect_timeout redis_socket_keepalive "
           "redis_socket_timeout", "for reading results: Celery's own Redis class. Workers write them through the engine, "
           "which tries again until the store is back, with the time-outs of result_backend_transport_options"),
)  # fmt: skip

RESULTS = merged(
    honoured("result_backend", ORACLE),
    honoured("result_serializer result_compression result_extended", STORED),
    honoured("result_expires result_failure_expires result_chord_expires", "test_settings.py::test_results_expire"),
    honoured("result_chord_join_timeout result_backend_transport_options", ORACLE),
    celery("result_cache_max result_backend_always_retry result_backend_max_retries "
           "result_backend_base_sleep_between_retries_ms result_backend_max_sleep_between_retries_ms",
           "reading: Celery's base class of result stores. Workers always go on trying to write"),
    celery("result_chord_retry_interval", "for result stores that cannot count chords: Celery's own classes"),
    celery("result_exchange result_exchange_type result_persistent", "the rpc:// result store, which is Celery's"),
)  # fmt: skip

SECURITY = celery(
    "security_cert_store security_certificate security_digest security_key security_key_password",
    "app.setup_security()", "test_task_options.py::test_messages_are_signed",
)  # fmt: skip

TASKS = merged(
    honoured("task_acks_late task_reject_on_worker_lost", "test_survival_slots.py::"
             "test_a_late_acknowledged_task_runs_again_within_a_second_and_nothing_else_is_disturbed"),
    honoured("task_acks_on_failure task_acks_on_timeout task_acks_on_failure_or_timeout",
             "test_task_options.py::test_late_tasks_are_acknowledged_as_their_options_say"),
    honoured("task_retry_on_worker_lost", "test_task_options.py::test_a_task_whose_process_died_is_retried"),
    honoured("task_default_rate_limit worker_disable_rate_limits",
             "test_rate_limits.py::test_limits_can_be_turned_off_and_have_a_default"),
    honoured("task_time_limit task_soft_time_limit", "test_limits.py::test_limits_of_the_worker_and_of_a_call"),
    honoured("task_serializer task_compression task_protocol task_default_queue task_default_exchange "
             "task_default_exchange_type task_default_routing_key task_default_priority task_default_delivery_mode "
             "task_queues task_routes task_create_missing_queues task_repr_maxlevels", SENT),
    celery("task_create_missing_queue_exchange_type task_create_missing_queue_type task_default_queue_type "
           "task_queue_max_priority", "how queues are declared on AMQP: Celery's amqp declares them"),
    honoured("task_publish_retry task_publish_retry_policy",
             "test_settings.py::test_sending_is_tried_again_as_the_policy_says"),
    honoured("task_send_sent_event", "test_events.py::test_a_sent_task_is_announced"),
    honoured("task_inherit_parent_priority task_ignore_result task_track_started task_store_errors_even_if_ignored",
             ORACLE),
    honoured("task_annotations", "test_rate_limits.py::test_a_limit_that_cannot_be_read_is_refused_at_start_up"),
    celery("task_always_eager task_eager_propagates task_store_eager_result", "Task.apply, which no worker sees",
           "test_task_options.py::test_eager_tasks_run_at_once"),
    celery("task_allow_error_cb_on_chord_header", "the canvas, when it sends", ORACLE),
    celery("task_remote_tracebacks", "result handles, when they raise"),
)  # fmt: skip

WORKER = merged(
    *(refused(name, why, REFUSED_TEST) for name, why in REFUSED.items()),
    *(different(name, f"no effect: {why}", UNNEEDED_TEST) for name, why in UNNEEDED.items()),
    honoured("worker_concurrency worker_pool", "test_limits.py::test_a_soft_limit_can_be_caught"),
    different("worker_prefetch_multiplier", "what a slot holds is bounded by time (20 ms of work); 1 means that nothing "
              "unstarted is held", "test_settings.py::test_without_prefetch_nothing_waits_in_a_slot"),
    honoured("worker_disable_prefetch",
             "test_settings.py::test_without_prefetch_nothing_waits_in_a_slot"),
    honoured("worker_deduplicate_successful_tasks",
             "test_task_options.py::test_a_redelivered_task_that_has_succeeded_is_not_run_again"),
    honoured("worker_direct", "test_settings.py::test_a_worker_has_a_queue_of_its_own"),
    honoured("worker_enable_remote_control", CONTROL),
    honoured("worker_max_tasks_per_child", "test_limits.py::test_a_process_runs_exactly_as_many_tasks_as_it_may"),
    honoured("worker_max_memory_per_child", "test_limits.py::test_a_process_that_took_too_much_memory_is_replaced"),
    honoured("worker_pool_restarts", "test_control.py::test_the_pool_grows_shrinks_and_restarts"),
    honoured("worker_send_task_events", "test_events.py::test_a_task_is_followed_from_its_queue_to_its_result"),
    honoured("worker_soft_shutdown_timeout", "test_shutdown.py::test_a_soft_stop_gives_running_tasks_their_time"),
    honoured("worker_state_db", "test_control.py::test_a_revoke_is_remembered_by_the_next_worker_with_a_state_file"),
    celery("worker_hijack_root_logger worker_log_color worker_log_datefmt worker_log_format worker_task_log_datefmt "
           "worker_task_log_format worker_redirect_stdouts worker_redirect_stdouts_level",
           "app.log sets logging up", "test_settings.py::test_logs_look_as_they_are_told_to"),
)  # fmt: skip

SETTINGS: Section = merged(
    GENERAL, BROKER, CONTROL_AND_EVENTS, BEAT_SETTINGS, OTHER_STORES, REDIS, RESULTS, SECURITY, TASKS, WORKER
)
