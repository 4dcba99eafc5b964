"""The command ``wellposed``, also ``python -m wellposed``: the command line, or one line on how to install it."""

import sys

try:
    from wellposed.cli import main
except ModuleNotFoundError as error:
    _missing = (error.name or "").partition(".")[0]
    if _missing not in ("typer", "rich"):
        raise

    def main() -> None:
        """Say what to install, and end the process with 2."""
        advice = "install what it needs with: pip install typer rich"
        print(f"wellposed: the command line needs {_missing}, which is not installed; {advice}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
