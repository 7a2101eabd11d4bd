"""A cluster that asks who one is (TLS and SCRAM) and grants what docs/operate.md says an app needs, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from headwater.core.errors import LogInterruptedError, LogUnavailableError
from headwater.log.kafka import KafkaLog
from tests.equivalence.place import Place
from tests.kafka.cluster import Cluster
from tests.kafka.counting import NAME

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

USER, PASSWORD = "alice", "a-secret-of-alice"
STRANGER = "mallory"
APP = "counting"


@pytest.fixture
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a cluster that grants the user what an app needs."""
    cluster = new_cluster(users={USER: PASSWORD, STRANGER: PASSWORD})
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    topic, group, transaction = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
    operations = AclOperation
    granted = [
        (topic, APP, (operations.READ, operations.WRITE, operations.CREATE, operations.DELETE)),
        (group, f"{APP}.", (operations.READ,)),
        (transaction, f"{APP}.", (operations.WRITE,)),
        (transaction, "headwater.", (operations.WRITE,)),
    ]
    rules = [
        AclBinding(
            kind, name, ResourcePatternType.PREFIXED, f"User:{USER}", "*", operation, AclPermissionType.ALLOW
        )
        for kind, name, needed in granted
        for operation in needed
    ]
    for made in admin.create_acls(rules).values():
        made.result(30)
    return cluster


@pytest.fixture
def settings(cluster: Cluster) -> dict[str, str]:
    """Return librdkafka's settings of who may."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(cluster.authority),
    }


def _variables(settings: dict[str, str]) -> dict[str, str]:
    return {f"HEADWATER_KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}


def test_an_app_does_all_it_does_with_the_rights_that_the_page_names(
    cluster: Cluster, settings: dict[str, str], tmp_path: Path
) -> None:
    """Worker, archive, trim, replay and doctor; and the password stands in nothing that they write."""
    told: list[str] = []
    place = Place(
        tmp_path / "place",
        "tests.kafka.counting:app",
        {NAME: APP, **_variables(settings)},
        log=f"kafka://{cluster.secured}",
    )
    place.folder.mkdir()
    file = tmp_path / "numbers.jsonl"
    lines = [{"key": f"k{n % 7}", "value": n, "timestamp": 1_000_000 + n} for n in range(300)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(*arguments: str | Path) -> str:
        told.append(place.run(*arguments))
        return told[-1]

    run("send", f"{APP}-in", "--file", file, "--partitions", "4")
    run("worker", "--until-idle", "--processes", "2")
    run("archive", "run", "--until-idle")
    run("trim", f"{APP}-in")
    run("replay", "--from", "earliest", "--as", "again")
    run("doctor")
    run("config")
    live, again = (run("table", "dump", "totals", "--json", *of) for of in ([], ["--generation", "again"]))
    rows = {row["key"]: row["value"] for row in map(json.loads, live.splitlines())}
    assert rows == {f"k{k}": {"n": len(range(k, 300, 7)), "sum": sum(range(k, 300, 7))} for k in range(7)}
    assert again == live
    assert PASSWORD not in "".join(told)


def test_who_may_not_is_told_at_once_what_is_refused(cluster: Cluster, settings: dict[str, str]) -> None:
    """Not after the half minute that an absent broker is waited for; a worker that tries again would be of no use."""
    url = f"kafka://{cluster.secured}"
    for changed, told in (
        ({"sasl.password": "wrong"}, "invalid credentials"),
        ({"sasl.mechanism": "PLAIN"}, "supported mechanisms: SCRAM-SHA-512"),
        ({"ssl.ca.location": ""}, "certificate could not be verified"),
    ):
        began_s = time.monotonic()
        with pytest.raises(
            LogUnavailableError, match=f"refuses the first call: .*{told}.*check the Kafka"
        ) as raised:
            KafkaLog(url, {**settings, **changed})
        assert time.monotonic() - began_s < 20
        assert not isinstance(raised.value, LogInterruptedError)
        assert PASSWORD not in str(raised.value)
    stranger = KafkaLog(url, {**settings, "sasl.username": STRANGER})
    with pytest.raises(LogUnavailableError, match=r"refuses .*Topic authorization failed.*ACLs"):
        stranger.create_topic(f"{APP}-in", 1)
    stranger.close()
