"""The apps that the benchmarks run."""
