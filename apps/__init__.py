"""Runnable examples. They import only `headwater`, and are installed as `headwater_apps`."""
