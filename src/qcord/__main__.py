"""``python -m qcord``."""

from qcord.cli.main import main

if __name__ == "__main__":
    main()
