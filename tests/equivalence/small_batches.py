"""The flights app with other batch sizes: HEADWATER_TEST_BUFFER_BYTES and HEADWATER_TEST_GROUP_RECORDS set them."""

from __future__ import annotations

import os

from apps.flights import app
from headwater.merge.merge import Merge

BUFFER_BYTES = "HEADWATER_TEST_BUFFER_BYTES"
GROUP_RECORDS = "HEADWATER_TEST_GROUP_RECORDS"

if size := os.environ.get(BUFFER_BYTES):
    app.config_from_object({"buffer_bytes": int(size)})
if records := os.environ.get(GROUP_RECORDS):
    # No option sets the length of a group; its default is where the merge takes it from.
    assert Merge.__init__.__kwdefaults__ is not None
    Merge.__init__.__kwdefaults__["records_max"] = int(records)
