"""`python -m mfimage` is the command `mfimage`."""

from mfimage.cli import main

if __name__ == "__main__":
    main()
