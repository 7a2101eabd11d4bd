"""The docs, the README and the tidiness of the tree."""
