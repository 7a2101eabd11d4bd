"""The tables of the embedded log. Records lie in `blob`; `batch` says which offsets each blob holds.

A blob that no row of `batch` names is invisible: staged by a writer (then `staged` says whose), or let go.
Rows of dropped topics and below a partition's start are invisible too, and are swept in small transactions.
"""

from __future__ import annotations

FORMAT = 1
APPLICATION_ID = 0x48775772
PAGE_BYTES = 8192

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS topic (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, topic_id TEXT NOT NULL,
    partitions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS part (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, start INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, base INTEGER NOT NULL, next INTEGER NOT NULL,
    time_min INTEGER NOT NULL, time_max INTEGER NOT NULL, nbytes INTEGER NOT NULL,
    blob INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (topic, partition, base)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob (number INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS staged (
    blob INTEGER PRIMARY KEY, stage TEXT NOT NULL, place TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dropped (topic INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS crew (name TEXT PRIMARY KEY, tasks INTEGER NOT NULL, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (
    joined INTEGER PRIMARY KEY AUTOINCREMENT, crew TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
    place TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, lease_s REAL NOT NULL, deadline_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS task (
    crew TEXT NOT NULL, task INTEGER NOT NULL, member TEXT NOT NULL, PRIMARY KEY (crew, task)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (
    crew TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (crew, topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS duty (
    name TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL,
    deadline_s REAL NOT NULL) WITHOUT ROWID;
"""
# `group` is a word of SQL's own, so a group is a crew here; `UNIQUE` on a member's name: they are random and fenced for good.
