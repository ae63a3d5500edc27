"""``python -m eoray``: the command line, where no script of that name is on the path."""

from eoray.cli import main

if __name__ == "__main__":
    main()
