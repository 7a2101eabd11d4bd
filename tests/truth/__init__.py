"""Small truths that tests compare with, and the scripts that make them."""
