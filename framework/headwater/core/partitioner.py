"""Kafka's default partitioner, so that a key lives in the same partition whoever writes it.

Algorithm: MurmurHash2 (Austin Appleby), as in org.apache.kafka.common.utils.Utils.murmur2.
"""

from __future__ import annotations

from functools import lru_cache

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit murmur2 of the bytes, unsigned."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for at in range(0, whole, 4):
        k = (int.from_bytes(data[at : at + 4], "little") * _M) & _MASK
        k = ((k ^ (k >> 24)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    tail = length - whole
    if tail:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


# Hashing costs about 0.3 µs a byte in Python, so the keys in use are remembered.
_positive = lru_cache(maxsize=1 << 16)(lambda key: murmur2(key) & 0x7FFFFFFF)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the home partition of a key among `partitions`."""
    if partitions == 1:
        return 0
    return (_positive(key) if len(key) <= 256 else murmur2(key) & 0x7FFFFFFF) % partitions
