"""Options of an app: ours, those of faust's settings that still mean something, and the ones refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal

from faust.types.settings import Settings as FaustSettings

from headwater.core.errors import MisuseError, did_you_mean
from headwater.core.settings import PREFIX, read_environment
from headwater.core.times import duration_ms

Guarantee = Literal["exactly_once", "at_least_once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """What an app sets for its engine. Places are URLs or folders; None: as `headwater config` says."""

    log: str | None = None
    archive: str | None = None
    state: str | None = None
    archive_options: Mapping[str, Any] | None = None
    """Of the archive's storage, such as its endpoint: fsspec's own, and timeout_s, patience_s, accelerate."""
    kafka: Mapping[str, Any] | None = None
    """librdkafka's settings by its own names, for a log on Kafka."""
    guarantee: Guarantee = "exactly_once"
    epoch_s: float | None = None
    """None: 0.1 live, 1.0 in a replay."""
    dead_letters: bool = True
    retries: int = 2
    """How often a failing record is handed out again."""
    timeout_s: float | None = None
    """How long a record may take."""
    buffer_bytes: int = 64 << 20
    message_bytes_max: int = 4 << 20
    """Larger outputs are refused: the record that caused them goes to dead letters."""
    lease_s: float = 10.0
    align_s: float = 0.0
    """How long a task waits, live, for inputs that lag."""
    ahead: float | timedelta | None = None
    """How far, in event time, a replay's sources run ahead of the slowest; None: as far as the buffers have room."""
    partitions: int = 4
    """Of topics that are made and don't say."""

    def __post_init__(self) -> None:
        """Check ranges. Raises MisuseError naming the option."""
        if self.guarantee not in ("exactly_once", "at_least_once"):
            raise MisuseError(
                f"App(guarantee=…) is 'exactly_once' or 'at_least_once'; found {self.guarantee!r}"
            )
        for name in ("log", "archive", "state"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise MisuseError(f"App({name}=…) is a URL or a folder; found {value!r}")
        if self.kafka is not None and not isinstance(self.kafka, Mapping):
            raise MisuseError(
                f"App(kafka=…) is a dict of librdkafka's settings; found a {type(self.kafka).__name__}"
            )
        if self.archive_options is not None and not isinstance(self.archive_options, Mapping):
            raise MisuseError(
                f"App(archive_options=…) is a dict of storage options; found a {type(self.archive_options).__name__}"
            )
        _whole("retries", self.retries, 0)
        _whole("partitions", self.partitions, 1)
        _whole("buffer_bytes", self.buffer_bytes, 1 << 16)
        _whole("message_bytes_max", self.message_bytes_max, 1)
        _seconds("lease_s", self.lease_s)
        _seconds("align_s", self.align_s, zero=True)
        if self.ahead is not None:
            duration_ms(self.ahead, "App(ahead=…)", zero=False)
        for name in ("epoch_s", "timeout_s"):
            if getattr(self, name) is not None:
                _seconds(name, getattr(self, name))
        if not isinstance(self.dead_letters, bool):
            raise MisuseError(f"App(dead_letters=…) is True or False; found {self.dead_letters!r}")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise MisuseError(f"App({name}=…) is a whole number from {least}; found {value!r}")


def _seconds(name: str, value: Any, *, zero: bool = False) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (0 <= value < 1e9)
        or (not zero and not value)
    ):
        raise MisuseError(
            f"App({name}=…) is a number of seconds {'from' if zero else 'above'} 0; found {value!r}"
        )


OWN = tuple(field.name for field in fields(AppOptions))

ACCEPTED = (
    "autodiscover",
    "cache",
    "canonical_url",
    "debug",
    "logging_config",
    "loghandlers",
    "origin",
    "timezone",
    "web",
    "web_application_options",
    "web_bind",
    "web_cors_options",
    "web_enabled",
    "web_graph_enabled",
    "web_host",
    "web_in_thread",
    "web_metrics_enabled",
    "web_port",
    "web_ssl_context",
    "web_stats_enabled",
    "web_transport",
    "worker_redirect_stdouts",
    "worker_redirect_stdouts_level",
    "HttpClient",
    "Monitor",
    "Worker",
)
"""Settings of faust's that are faust's own services' and mean here what they mean there."""

RENAMED = {"topic_partitions": "partitions", "default_partitions": "partitions"}
"""Settings of faust's that are taken under their old names too."""

DEFAULTS: dict[str, Any] = {
    # Faust serves on 0.0.0.0:6066 unless told not to; nothing is served here unless asked for, and then to this machine.
    "web_enabled": False,
    "web_bind": "127.0.0.1",
    "web_host": "127.0.0.1",
    # These three ask faust's table manager, router and assignor, which are not there.
    "web_router_enabled": False,
    "web_tables_enabled": False,
    "web_graph_enabled": False,
    # A print in an agent is a print.
    "worker_redirect_stdouts": False,
}

_LOG = "log= (memory://NAME, file://DIR or kafka://HOST:PORT)"
_ENGINE = "nothing: the engine's own"
_READER = "nothing: the log's reader is the engine's own; buffer_bytes= bounds what it holds"
_WRITER = "nothing: outputs are one log transaction an epoch; epoch_s= and message_bytes_max="
_REPLY = "nothing: agents don't reply; a sink topic carries answers"
_CLASS = "a subclass of headwater.App that overrides what it declares"
_ACK = "nothing: a failing record is retried (retries=), then goes to dead letters"

REFUSED: dict[str, str] = {
    "broker": _LOG,
    "broker_consumer": _LOG,
    "broker_producer": _LOG,
    "url": _LOG,
    "broker_credentials": "kafka= (librdkafka's sasl.* settings)",
    "ssl_context": "kafka= (librdkafka's ssl.* settings)",
    "blocking_timeout": "timeout_s=",
    "broker_api_version": _ENGINE,
    "broker_check_crcs": "nothing: checksums are always checked",
    "broker_client_id": 'kafka={"client.id": …}',
    "client_id": 'kafka={"client.id": …}',
    "broker_commit_every": "epoch_s=",
    "broker_commit_interval": "epoch_s=",
    "commit_interval": "epoch_s=",
    "broker_commit_livelock_soft_timeout": "timeout_s=",
    "broker_heartbeat_interval": "lease_s=",
    "broker_max_poll_interval": "timeout_s= and lease_s=",
    "broker_max_poll_records": "buffer_bytes=",
    "broker_rebalance_timeout": "lease_s=",
    "broker_request_timeout": 'kafka={"socket.timeout.ms": …}',
    "broker_session_timeout": "lease_s=",
    "consumer_api_version": _READER,
    "consumer_max_fetch_size": 'kafka={"fetch.message.max.bytes": …}',
    "consumer_auto_offset_reset": "nothing: a new app starts at the earliest record of archive and log; `headwater replay --from T`",
    "consumer_group_instance_id": 'kafka={"group.instance.id": …}',
    "consumer_metadata_max_age_ms": 'kafka={"metadata.max.age.ms": …}',
    "consumer_connections_max_idle_ms": 'kafka={"connections.max.idle.ms": …}',
    "ConsumerScheduler": "nothing: a task merges its inputs in event-time order",
    "producer_acks": _WRITER,
    "producer_api_version": _WRITER,
    "producer_compression_type": 'kafka={"compression.type": …}',
    "producer_linger": 'kafka={"linger.ms": …}',
    "producer_linger_ms": 'kafka={"linger.ms": …}',
    "producer_max_batch_size": 'kafka={"batch.size": …}',
    "producer_max_request_size": "message_bytes_max=",
    "producer_partitioner": "nothing: keys go where Kafka's murmur2 sends them; send(partition=…) for another place",
    "producer_request_timeout": 'kafka={"request.timeout.ms": …}',
    "producer_threaded": _WRITER,
    "producer_metadata_max_age_ms": 'kafka={"metadata.max.age.ms": …}',
    "producer_connections_max_idle_ms": 'kafka={"connections.max.idle.ms": …}',
    "processing_guarantee": "guarantee='exactly_once' (the default) or 'at_least_once'",
    "transactions": "guarantee='exactly_once', which is the default",
    "store": "state= (a folder, or memory:// for tests)",
    "datadir": "state= (a folder, or memory:// for tests)",
    "tabledir": "state= (a folder, or memory:// for tests)",
    "store_check_exists": _ENGINE,
    "recovery_consistency_check": "nothing: a table that can't be rebuilt stops the worker",
    "table_cleanup_interval": _ENGINE,
    "table_key_index_size": _ENGINE,
    "table_standby_replicas": "nothing: there are no standbys yet; recovery is in bulk",
    "num_standby_replicas": "nothing: there are no standbys yet; recovery is in bulk",
    "crash_app_on_aerospike_exception": "state=",
    "aerospike_retries_on_exception": "state=",
    "aerospike_sleep_seconds_between_retries_on_exception": "state=",
    "stream_buffer_maxsize": "buffer_bytes=",
    "stream_processing_timeout": "timeout_s=",
    "stream_publish_on_commit": "nothing: outputs are always published with the commit",
    "stream_recovery_delay": _ENGINE,
    "stream_wait_empty": "nothing: a stopping worker finishes and commits what it holds",
    "stream_ack_cancelled_tasks": _ACK,
    "stream_ack_exceptions": _ACK,
    "topic_allow_declare": "nothing: topics that are not there are made when the app starts",
    "topic_disable_leader": _ENGINE,
    "topic_replication_factor": "nothing: the brokers' default.replication.factor; the embedded log has one copy",
    "replication_factor": "nothing: the brokers' default.replication.factor; the embedded log has one copy",
    "reply_create_topic": _REPLY,
    "create_reply_topic": _REPLY,
    "reply_expires": _REPLY,
    "reply_to": _REPLY,
    "reply_to_prefix": _REPLY,
    "agent_supervisor": "retries=, timeout_s= and dead_letters=",
    "cython_optimizations": _ENGINE,
    "env_prefix": "nothing: the prefix is HEADWATER_",
    "env": "nothing: the prefix is HEADWATER_",
    "id_format": "a generation's name: `headwater replay --as NAME`",
    "version": "generations: `headwater replay --from T --as NAME`, then `headwater promote NAME`",
    "key_serializer": "key_type= on app.topic(…)",
    "value_serializer": "value_serializer= on app.topic(…)",
    "web_router_enabled": "nothing: faust's router needs its assignor",
    "web_tables_enabled": "`headwater table get`, or a page of your own that reads the table",
    "Agent": _CLASS,
    "Event": _CLASS,
    "Schema": _CLASS,
    "Stream": _CLASS,
    "Table": _CLASS,
    "SetTable": _CLASS,
    "GlobalTable": _CLASS,
    "SetGlobalTable": _CLASS,
    "TableManager": _CLASS,
    "Serializers": "value_type= and value_serializer= on app.topic(…)",
    "PartitionAssignor": _ENGINE,
    "LeaderAssignor": _ENGINE,
    "Router": _ENGINE,
    "Topic": _CLASS,
    "MY_SETTING": _CLASS,
}
"""Settings of faust's that Headwater does not have, and what to use instead."""


def read_options(given: Mapping[str, Any], *, strict: bool = True) -> tuple[AppOptions, dict[str, Any]]:
    """Split what an app was given into its engine's options and faust's settings.

    Raises MisuseError for a refused option, and for an unknown one unless not `strict` (a settings module also holds
    names of its own).
    """
    own: dict[str, Any] = {}
    faust: dict[str, Any] = {}
    for name, value in given.items():
        if name in REFUSED:
            if value is None:
                continue
            raise MisuseError(
                f"App({name}=…) is faust's and is not there in Headwater; instead: {REFUSED[name]}"
            )
        if name in RENAMED or name in OWN:
            new = RENAMED.get(name, name)
            if new in own:
                raise MisuseError(f"App({new}=…) is given twice; {name!r} is faust's name for it")
            own[new] = str(value) if new in ("log", "archive", "state") and value is not None else value
        elif name in ACCEPTED:
            faust[name] = value
        elif strict:
            raise MisuseError(f"App has no option {name!r}{did_you_mean(name, (*OWN, *ACCEPTED, *REFUSED))}")
    return AppOptions(**own), faust


def faust_environment() -> dict[str, str]:
    """Return the environment that faust's settings may read: HEADWATER_… for the accepted ones, never a bare name."""
    names = {
        f"{PREFIX}{FaustSettings.SETTINGS[name].env_name}"
        for name in ACCEPTED
        if name in FaustSettings.SETTINGS
    }
    return {name: value for name, value in read_environment().items() if name in names}
