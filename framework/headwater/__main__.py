"""`python -m headwater`: the command line, where no script of that name is on the path."""

from __future__ import annotations

from headwater.cli.main import main

if __name__ == "__main__":
    main()
