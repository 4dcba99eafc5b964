"""``python -m wellposed``: the command line."""

from wellposed.cli import main

if __name__ == "__main__":
    main()
