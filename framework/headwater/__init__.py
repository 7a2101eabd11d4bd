"""Headwater: one agent over a topic's present (the live log) and its past (the archive)."""
