"""Marks with which the tools end a record of a log before its line has an end, so that it is seen while it is printed.

Container runtimes hand on a line when it ends, or kilobytes of it. What has waited for a while is therefore ended in
the container's output with `CUT` and a line feed, neither of which the command has printed. A line of the command's
that ends with a mark of its own has a `WHOLE` behind it. Whoever takes away the last byte of each record that is a
mark, and the line feed behind each CUT, has what was printed, byte for byte.

They are written by `deploy/images/tools/src/run.c` and `deploy/local/tools/first_process.py`.
"""

CUT = b"\x1f"
"""ASCII's unit separator: the line goes on in the next record."""
WHOLE = b"\x1e"
"""ASCII's record separator: the line is over, and ends with the mark before this one."""
MARKS = (CUT, WHOLE)


def marked(line: bytes) -> bytes:
    """A line that is over as the tools would have written it, without its line feed."""
    return line + WHOLE if line.endswith(MARKS) else line


def told_bytes(record: bytes) -> int:
    """How much of a record, line feed and all, was printed."""
    text = record.removesuffix(b"\n")
    return len(text) - 1 if text.endswith(CUT) else len(record) - text.endswith(WHOLE)
