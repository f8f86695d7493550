"""``python -m kn_attrib``."""

from kn_attrib.cli import main

if __name__ == "__main__":
    main()
