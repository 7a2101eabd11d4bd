"""Any module's app with other batch sizes: HEADWATER_TEST_MODULE names the module, the other two set sizes."""

from __future__ import annotations

import importlib
import os

import headwater as hw
from headwater.merge.merge import Merge
from tests.equivalence.commanded import MODULE
from tests.equivalence.small_batches import BUFFER_BYTES, GROUP_RECORDS

app: hw.App = importlib.import_module(os.environ[MODULE]).app

if size := os.environ.get(BUFFER_BYTES):
    app.config_from_object({"buffer_bytes": int(size)})
if records := os.environ.get(GROUP_RECORDS):
    assert Merge.__init__.__kwdefaults__ is not None
    Merge.__init__.__kwdefaults__["records_max"] = int(records)
