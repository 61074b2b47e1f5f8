"""`python -m minidiff`: the program, where no command of that name is on the path."""

from minidiff.cli import main

if __name__ == "__main__":
    main()
