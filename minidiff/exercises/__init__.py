"""The checkers of the exercises, a file per chapter: `minidiff.learn.check` finds them by their numbers."""
