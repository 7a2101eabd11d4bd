"""The log on Kafka, by confluent-kafka."""

from __future__ import annotations

from headwater.log.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
