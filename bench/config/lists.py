"""Lists of values in one text: `4,8,16`."""

from __future__ import annotations


def split(text: str) -> tuple[str, ...]:
    r"""Split at the commas that stand outside of brackets, and strip the parts; `\,` is a comma of a value.

    split(r"qv,layer\.\d{1,2}\.") == ("qv", r"layer\.\d{1,2}\.")
    """
    parts, depth, before = [""], 0, ""
    for char in text:
        if char == "," and before == "\\":
            parts[-1] = f"{parts[-1][:-1]},"
        elif char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
            if before != "\\":
                depth = max(0, depth + (char in "([{") - (char in ")]}"))
        before = char
    return tuple(part.strip() for part in parts) if len(parts) > 1 else (parts[0],)


def single(value: str) -> str:
    """Write one value so that `split` gives it back alone."""
    return value if split(value) == (value,) else value.replace(",", "\\,")
