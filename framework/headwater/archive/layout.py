"""Where the files of an archive lie: paths made and parsed in one place, none of which can leave the root."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

VERSION = "v1"
META = "_meta.json"

_PARTITION = re.compile(r"p=(\d{5,10})\Z")
_SEGMENT = re.compile(r"(\d{20})\.parquet\Z")


def encode_name(name: str) -> str:
    """Return a name as one path component: percent-encoded, never hidden, never `..`, without `~`."""
    text = quote(name, safe="").replace("~", "%7E")
    return "%2E" + text[1:] if text.startswith(".") else text


def decode_name(component: str) -> str:
    """Return what `encode_name` encoded."""
    return unquote(component)


def log_folder(log_id: str) -> str:
    """Return the folder of one log's topics."""
    return f"{VERSION}/{encode_name(log_id)}"


def topic_folder(log_id: str, topic: str, topic_id: str) -> str:
    """Return the folder of one topic; a topic made anew has another id, so another folder."""
    return f"{log_folder(log_id)}/{encode_name(topic)}~{encode_name(topic_id)}"


def parse_topic(component: str) -> tuple[str, str] | None:
    """Return the topic and topic id of a folder's name, or None where it is something else."""
    topic, separator, topic_id = component.partition("~")
    return (decode_name(topic), decode_name(topic_id)) if separator and topic and topic_id else None


def partition_folder(topic_path: str, partition: int) -> str:
    """Return the folder of one partition's segments."""
    return f"{topic_path}/p={partition:05d}"


def parse_partition(component: str) -> int | None:
    """Return the partition of a folder's name, or None where it is something else."""
    match = _PARTITION.match(component)
    return int(match[1]) if match else None


def segment_name(base: int) -> str:
    """Return a segment's file name: a function of its base alone, so that creating it is a compare-and-swap."""
    return f"{base:020d}.parquet"


def parse_segment(name: str) -> int | None:
    """Return the base in a segment's file name, or None where it is no segment (orphans, temporary files)."""
    match = _SEGMENT.match(name)
    return int(match[1]) if match else None
