"""A real Kafka cluster on loopback for tests and benchmarks: 1 or 3 KRaft brokers from Maven's jars.

`python -m tests.kafka.cluster [--brokers N]` starts one, prints its bootstrap servers, and stops it with a signal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

POM = Path(__file__).parent / "pom.xml"
START_S = 180.0
"""A machine that does much else takes a minute and more."""

PROMPT = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
"""For brokers that are never killed: transactions of killed workers are aborted as soon as they time out, not 10 s later.

A broker that starts again must not be in such haste: 4.3.1 ends a transaction without telling the partitions that have no
leader yet, and nothing behind that transaction is given to readers any more (docs/operate.md).
"""

LOG4J = """\
Configuration:
  status: "ERROR"
  Appenders:
    Console: {name: "STDOUT", target: "SYSTEM_OUT", PatternLayout: {pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root: {level: "WARN", AppenderRef: [{ref: "STDOUT"}]}
"""


def missing() -> str | None:
    """Say what this machine lacks to run a broker, or None."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            return f"{program} is not installed: a broker needs Java 17 or newer, and Maven for its jars"
    return None


def classpath() -> str:
    """Return the class path of Kafka's jars; Maven fetches them once, the answer is kept beside its repository."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headwater-tests"
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"kafka-{uuid.uuid5(uuid.NAMESPACE_OID, POM.read_text()).hex}.classpath"
    if kept.exists() and all(Path(jar).exists() for jar in kept.read_text().split(os.pathsep)):
        return kept.read_text()
    made = cache / f"{kept.name}.{os.getpid()}"
    subprocess.run(
        [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(POM),
            "dependency:build-classpath",
            f"-Dmdep.outputFile={made}",
        ],
        check=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        # Maven puts colours into what it prints, quiet or not, and ours is read.
        stdout=sys.stderr,
    )
    os.replace(made, kept)
    return kept.read_text()


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def new_id() -> str:
    """Return an id as Kafka writes them; none that its tools would take for an option."""
    while True:
        found = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):
            return found


class Cluster:
    """Brokers that are controllers too; data, settings and output in one folder."""

    def __init__(
        self,
        folder: Path,
        brokers: int = 1,
        *,
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        """Take free ports; `settings` are added to every broker's server.properties.

        Where there are `users`, with their passwords, brokers listen at `secured` too, by TLS and SCRAM, and grant these users
        nothing; who comes by the open door may do all.
        """
        self.folder = folder
        self.brokers = brokers
        self._settings = dict(settings or {})
        self._users = dict(users or {})
        ports = free_ports(3 * brokers)
        self._ports, self._controllers = ports[:brokers], ports[brokers : 2 * brokers]
        self._secured = ports[2 * brokers :]
        self._ids = [new_id() for _ in range(brokers)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._classpath = classpath()

    @property
    def bootstrap(self) -> str:
        """Return the brokers' addresses as clients take them."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    @property
    def url(self) -> str:
        """Return the log's URL."""
        return f"kafka://{self.bootstrap}"

    @property
    def secured(self) -> str:
        """Return the brokers' addresses where they ask who one is."""
        return ",".join(f"127.0.0.1:{port}" for port in self._secured)

    @property
    def authority(self) -> Path:
        """Return the file with the certificate of who signed the brokers'."""
        return self.folder / "authority.pem"

    def start(self) -> None:
        """Format the folders and start all brokers; return when all answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.yaml").write_text(LOG4J)
        voters = ",".join(
            f"{index}@127.0.0.1:{self._controllers[index]}:{self._ids[index]}"
            for index in range(self.brokers)
        )
        cluster_id = new_id()
        if self._users:
            self._certify()
        formats = []
        for index in range(self.brokers):
            self._properties(index)
            how = [
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster_id,
                "--initial-controllers",
                voters,
                "-c",
                str(self.folder / f"{index}.properties"),
            ]
            for user, password in self._users.items():
                how += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
            formats.append(self._java(how, index, "format"))
        for process in formats:
            if process.wait(timeout=START_S):
                raise RuntimeError(f"formatting failed: {self._tail()}")
        for index in range(self.brokers):
            self._launch(index)
        self.wait()

    def _certify(self) -> None:
        """Write the brokers' certificate, with its key as Kafka reads it, and that of who signed it."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        own = authority.issue_cert("127.0.0.1")
        key = load_pem_private_key(own.private_key_pem.bytes(), password=None)
        parts = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
        parts += [pem.bytes() for pem in own.cert_chain_pems]
        (self.folder / "broker.pem").write_bytes(b"".join(parts))

    def _guarded(self, index: int, lines: Mapping[str, str]) -> dict[str, str]:
        """Return what a broker's second listener needs."""
        address = f"SECURED://127.0.0.1:{self._secured[index]}"
        return {
            "listeners": f"{lines['listeners']},{address}",
            "advertised.listeners": f"{lines['advertised.listeners']},{address}",
            "listener.security.protocol.map": f"{lines['listener.security.protocol.map']},SECURED:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "broker.pem"),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def _properties(self, index: int) -> None:
        replicas = str(min(3, self.brokers))
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(index),
            "listeners": f"PLAINTEXT://127.0.0.1:{self._ports[index]},CONTROLLER://127.0.0.1:{self._controllers[index]}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._ports[index]}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{p}" for p in self._controllers),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / f"data{index}"),
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.num.partitions": "5",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "2" if self.brokers > 1 else "1",
            "default.replication.factor": replicas,
            "min.insync.replicas": "2" if self.brokers > 1 else "1",
            "num.partitions": "4",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.min.heartbeat.interval.ms": "200",
            "group.consumer.heartbeat.interval.ms": "300",
            "group.consumer.session.timeout.ms": "6000",
            "log.retention.check.interval.ms": "1000",
            "log.cleaner.backoff.ms": "500",
            "log.initial.task.delay.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "3",
        }
        if self._users:
            lines.update(self._guarded(index, lines))
        lines.update(self._settings)
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        (self.folder / f"{index}.properties").write_text(text)

    def _java(self, arguments: list[str], index: int, kind: str) -> subprocess.Popen[bytes]:
        output = (self.folder / f"{kind}{index}.out").open("ab")
        options = ["-Xmx384m", "-Xms128m", "-XX:TieredStopAtLevel=1"] if kind == "format" else ["-Xmx512m"]
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}"
        with output:
            return subprocess.Popen(
                ["java", *options, "-XX:+UseSerialGC", logging, "-cp", self._classpath, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _launch(self, index: int) -> None:
        self._processes[index] = self._java(
            ["kafka.Kafka", str(self.folder / f"{index}.properties")], index, "broker"
        )

    def _tail(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.out")))

    def wait(self) -> None:
        """Wait until every running broker answers a client."""
        from confluent_kafka.admin import AdminClient

        deadline_s = time.monotonic() + START_S
        running = [index for index, process in self._processes.items() if process.poll() is None]
        servers = ",".join(f"127.0.0.1:{self._ports[index]}" for index in running)
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        while True:
            try:
                if len(admin.list_topics(timeout=1).brokers) >= len(running):
                    return
            except Exception as error:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"no answer from {servers}: {self._tail()}") from error
            for index in running:
                if self._processes[index].poll() is not None:
                    raise RuntimeError(f"broker {index} ended: {self._tail()}")
            time.sleep(0.1)

    def signal(self, index: int, number: int) -> None:
        """Send a signal to a broker."""
        os.kill(self._processes[index].pid, number)

    def kill(self, index: int = 0) -> None:
        """End a broker at once."""
        self._processes[index].kill()
        self._processes[index].wait()

    def stop(self, index: int = 0) -> None:
        """End a broker in order."""
        self._processes[index].terminate()
        self._processes[index].wait(timeout=60)

    def restart(self, index: int = 0, *, wait: bool = True) -> None:
        """Start a broker that has ended."""
        self._launch(index)
        if wait:
            self.wait()

    def pause(self, index: int = 0) -> None:
        """Stop a broker in its tracks."""
        self.signal(index, signal.SIGSTOP)

    def resume(self, index: int = 0) -> None:
        """Let a paused broker go on."""
        self.signal(index, signal.SIGCONT)

    def close(self) -> None:
        """End all brokers; the folder is the caller's."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def is_there(pid: int) -> bool:
    """Tell whether a process lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Run a cluster until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", type=int, default=1)
    parser.add_argument("--while", dest="pid", type=int, help="end when this process has ended")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-kafka-") as folder:
        cluster = Cluster(Path(folder), options.brokers, settings=PROMPT)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            cluster.start()
            print(cluster.bootstrap, flush=True)
            while options.pid is None or is_there(options.pid):
                time.sleep(0.5)
        except KeyboardInterrupt:
            pass
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
