"""What stock faust-streaming 0.15.3 gets wrong, row by row, shown without a broker."""
