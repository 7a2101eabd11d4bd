"""The network edge of stock faust: an in-process broker below faust's own consumer and producer.

It is not a mock of faust. Consumer, conductor, streams, agents, tables, recovery, stores, the transaction
manager and the aiokafka driver's producer are the installed package's own code; only the calls that would
leave the process end here, in `Broker`.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import faust
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, RecordMetadata

STOCK_VERSION = "0.15.3"

AgentBody = Callable[[Any], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of one transactional id, with what a broker keeps of it."""

    transactional_id: str
    state: str = "open"  # open | committed | aborted
    touched: set[TP] = field(default_factory=set)
    offsets: dict[TP, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A record as the broker stores it; `transaction` is None outside transactions."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 1_600_000_000_000
    timestamp_type: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0
    transaction: Transaction | None = None


class Broker:
    """Logs, committed offsets and transactions: what would be on the other side of the socket."""

    def __init__(self, **partitions: int) -> None:
        self.partitions = dict(partitions)  # topic (dashes as underscores) -> number of partitions
        self.log: dict[TP, list[Stored]] = defaultdict(list)
        self.end: dict[TP, int] = defaultdict(int)
        self.committed: dict[TP, int] = {}
        self.commits: list[dict[TP, int]] = []
        self.transactions: list[Transaction] = []

    def append(
        self, tp: TP, key: bytes | None, value: bytes | None, transaction: Transaction | None = None
    ) -> Stored:
        """Store one record at the end of `tp`."""
        record = Stored(tp.topic, tp.partition, self.end[tp], key, value, transaction=transaction)
        self.log[tp].append(record)
        self.end[tp] += 1
        return record

    def append_marker(self, tp: TP) -> None:
        """Let `tp` grow by one offset that no consumer is ever given (a transaction marker)."""
        self.end[tp] += 1

    def finish(self, transaction: Transaction, state: str) -> None:
        """Commit or abort: one marker in every partition the transaction wrote to."""
        transaction.state = state
        for tp in sorted(transaction.touched):
            self.append_marker(tp)
        if state == "committed":
            self.committed.update(transaction.offsets)

    def read_committed(self, tp: TP) -> list[Stored]:
        """The records that a read_committed reader of `tp` sees."""
        return [r for r in self.log[tp] if r.transaction is None or r.transaction.state == "committed"]

    def partition_count(self, topic: str) -> int:
        """Partitions of `topic`; one unless it was declared with more."""
        return self.partitions.get(topic.replace("-", "_"), 1)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """What faust's assignor asks of aiokafka's cluster metadata."""
        return set(range(self.partition_count(topic)))


class EdgeClient:
    """Stands where `aiokafka.AIOKafkaProducer` stands, with the calls that faust's driver makes."""

    broker: Broker

    def __init__(self, *, transactional_id: str | None = None, **settings: object) -> None:
        self.transactional_id = transactional_id
        self.transaction: Transaction | None = None

    async def start(self) -> None:
        """Connect: nothing to do."""

    async def stop(self) -> None:
        """Disconnect. aiokafka's stop never aborts, so an open transaction stays open."""

    async def flush(self) -> None:
        """Nothing is buffered on this side."""

    async def begin_transaction(self) -> None:
        """Begin."""
        assert self.transactional_id is not None
        assert self.transaction is None
        self.transaction = Transaction(self.transactional_id)
        self.broker.transactions.append(self.transaction)

    async def send_offsets_to_transaction(self, offsets: Mapping[TP, int], group_id: str) -> None:
        """Make the offsets part of the transaction."""
        assert self.transaction is not None
        self.transaction.offsets.update(offsets)

    async def commit_transaction(self) -> None:
        """Commit."""
        assert self.transaction is not None
        self.broker.finish(self.transaction, "committed")
        self.transaction = None

    async def abort_transaction(self) -> None:
        """Abort."""
        assert self.transaction is not None
        self.broker.finish(self.transaction, "aborted")
        self.transaction = None

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[tuple[str, bytes]] | None = None,
    ) -> "asyncio.Future[RecordMetadata]":
        """Store and acknowledge at once."""
        tp = TP(topic, partition if partition is not None else 0)
        record = self.broker.append(tp, key, value, self.transaction)
        if self.transaction is not None:
            self.transaction.touched.add(tp)
        acknowledged: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(
            RecordMetadata(topic=topic, partition=tp.partition, topic_partition=tp, offset=record.offset)
        )
        return acknowledged

    def _partition(self, topic: str, **call: object) -> int:
        """The driver asks its client for the partition of a key: the first one here."""
        return 0


class EdgeProducer(driver.Producer):
    """faust's aiokafka producer over `EdgeClient`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Stock faust keeps these two on the class, shared by every app of the process (row F10). Tests must
        # not see each other, so each producer gets its own; nothing here depends on the sharing.
        self._transaction_producers = {}
        self._trn_locks = {}
        super().__init__(*args, **kwargs)

    @property
    def _producer_type(self) -> type[EdgeClient]:
        return type("BoundEdgeClient", (EdgeClient,), {"broker": cast(EdgeTransport, self.transport).broker})

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Topics exist as soon as they are named."""


class EdgeConsumer(Consumer):
    """faust's consumer over `Broker`: fetches are answered from `answers`, one a call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers: asyncio.Queue[Mapping[TP, list[Stored]]] = asyncio.Queue()
        self.assigned: set[TP] = set()
        self.seeks: list[dict[TP, int]] = []
        self.positions: dict[TP, int | None] = {}

    @property
    def broker(self) -> Broker:
        """The broker of this consumer's transport."""
        broker: Broker = cast(EdgeTransport, self.transport).broker
        return broker

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Stored]]:
        return await self.answers.get()

    _to_message = driver.Consumer._to_message

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        self.broker.commits.append(dict(offsets))
        self.broker.committed.update(offsets)
        return True

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Assignment is set by hand in `assign`."""

    def assignment(self) -> set[TP]:
        """Return the partitions given to `assign`."""
        return set(self.assigned)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Report the committed offsets of the assigned partitions, as aiokafka does."""
        committed = {tp: self.broker.committed[tp] for tp in self.assigned if tp in self.broker.committed}
        self.seeks.append(committed)
        return committed

    async def _seek(self, partition: TP, offset: int) -> None:
        self.seeks.append({partition: offset})

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek several partitions."""
        self.seeks.append(dict(partitions))

    async def seek_to_beginning(self, *partitions: TP) -> None:
        """Seek to the first offset."""
        self.seeks.append(dict.fromkeys(partitions, 0))

    async def position(self, tp: TP) -> int | None:
        """The next offset that would be fetched; None where aiokafka has no position yet."""
        return self.positions.get(tp)

    def highwater(self, tp: TP) -> int:
        """The end offset of one partition."""
        return self.broker.end[tp]

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The end offsets."""
        return {tp: self.broker.end[tp] for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The start offsets: nothing is ever trimmed here."""
        return dict.fromkeys(partitions, 0)

    def topic_partitions(self, topic: str) -> int | None:
        """Number of partitions of one topic."""
        return self.broker.partition_count(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """The driver's rule: what was asked for, else by key; every key lives in partition 0 here."""
        return partition if partition is not None else 0

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Topics exist as soon as they are named."""


class EdgeTransport(driver.Transport):
    """Gives faust the two classes above and the broker they end in."""

    Consumer = EdgeConsumer
    Producer = EdgeProducer

    def __init__(self, broker: Broker, app: faust.App) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.broker = broker


def stock_app(broker: Broker, folder: Path, *, app_id: str = "stock", **options: Any) -> Any:
    """Build a stock faust app that is a local object, keeps its files in `folder` and talks to `broker`.

    Typed Any on purpose: the rows look at what faust's interface types do not show.
    """
    assert faust.__version__ == STOCK_VERSION, f"these rows are about faust {STOCK_VERSION}"
    app = faust.App(
        app_id,
        broker="kafka://127.0.0.1:9",  # never dialled: the transport is replaced before its first use
        datadir=folder,
        web_enabled=False,
        **options,
    )
    app.finalize()
    transport = EdgeTransport(broker, app)
    app.transport = transport
    app.producer_transport = transport
    app.in_worker = True
    return app


def assign(app: Any, *topics: str) -> set[TP]:
    """Give the app every partition of `topics` through faust's own assignor, as one member alone gets it."""
    broker: Broker = app.transport.broker
    assignor = app.assignor
    result = assignor.assign(broker, {"m0": assignor.metadata(set(topics))})
    assignor.on_assignment(result["m0"])
    partitions = {TP(topic, number) for topic in topics for number in broker.partitions_for_topic(topic)}
    app.consumer.assigned = partitions
    app.consumer._set_active_tps(partitions)
    app.consumer.resume_flow()
    app.flow_control.resume()
    return partitions


@asynccontextmanager
async def serving(app: Any, *topics: str) -> AsyncIterator[EdgeConsumer]:
    """Run the app's agents, streams and producer between the broker's edge and the conductor.

    What a worker starts besides (timers that commit on their own, the fetcher, the web) stays off: a test
    says itself when a record arrives and when the commit timer fires.
    """
    assign(app, *topics)
    await app.producer.maybe_start()
    await app.agents.maybe_start()
    await app.topics._update_indices()
    await app.topics.on_partitions_assigned(app.consumer.assignment())
    if app.in_transaction:
        await app.consumer.transactions.on_rebalance(app.consumer.assignment(), set(), set())
    try:
        yield app.consumer
    finally:
        await app.agents.stop()
        await app.producer.stop()


def agent(app: Any, topic: Any, *, name: str) -> Callable[[AgentBody], AgentBody]:
    """Declare an agent with faust's own decorator, typed."""
    decorate: Callable[[AgentBody], AgentBody] = app.agent(topic, name=name)
    return decorate


async def deliver(app: Any, record: Stored) -> ConsumerMessage:
    """Hand one fetched record to the conductor, as faust's fetcher does."""
    tp = TP(record.topic, record.partition)
    message: ConsumerMessage = app.consumer._to_message(tp, record)
    await app.topics.on_message(message)
    return message


async def settle(turns: int = 50) -> None:
    """Let everything that is ready run; nothing here waits for a clock."""
    for _ in range(turns):
        await asyncio.sleep(0)
