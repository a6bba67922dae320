"""Files as a careless or hostile hand leaves them: valid ones, mutated by a fixed seed."""

import random

DEEP = b"[" * 3000
PIECES = (
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"1e999", b"-1", b"null", b"NaN", b"{}", b"[]",
    b'""', b'"', b"'", b"\\", b"\n", b"\r", b",", b":", b"=", b"9" * 400, b"18446744073709551616",
    b"true", b"\xc2\xb2", b"../../secret", b"\x1b[31m", b"=cmd|'/c calc'", DEEP, b"{" * 3000,
    b'{"a":' * 2000, b"\xe2\x80\xa8", b"\xef\xbb\xbf",
)  # fmt: skip


def mutated(content, draw):
    """One to four changes of some bytes."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(data) + 1), draw.choice((1, 1, 1, 4, 16, 200))
        match draw.randrange(7):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = draw.choice(PIECES)
            case 2 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
            case 3:
                data[at : at + length] = draw.choice(PIECES)
            case 4:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
            case 5:
                data = data[:at]
            case _:
                data[at : at + length] = draw.randbytes(length)
    return bytes(data)


def many(content, count, seed):
    """So many mutations of some content, always the same ones."""
    draw = random.Random(seed)
    return [mutated(content, draw) for _ in range(count)]
