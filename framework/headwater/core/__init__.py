"""The nouns every part shares: records, batches, keys, times, names, errors. No I/O, no event loop, no faust."""
