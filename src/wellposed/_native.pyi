"""The native core: loops over memory, by address. Who calls them answers for what lies there."""

def use(parallel_for: int, /) -> None: ...
def instruction_set() -> str: ...
def source_digest() -> str: ...
def fill(
    out: int, dtype: int, count: int, layout: bytes, key: int, call: int, kind: int, constants: bytes, /
) -> None: ...
def thin(
    x: int,
    out: int,
    dtype: int,
    count: int,
    layout: bytes,
    key: int,
    call: int,
    threshold: int,
    scale: float,
    shift: float,
    floor: float,
    /,
) -> None: ...
def paint(painted: int, maps: int, sides: bytes, start: int, key: int, call: int, threshold: int, /) -> int: ...
def clear(
    x: int, out: int, dtype: int, count: int, painted: int, size: int, shared: int, scale: float, /
) -> None: ...
def move(
    x: int, out: int, words: int, rows: int, token_bytes: int, prefix: int, others: int, kept: int, back: bool, /
) -> None: ...
def elastic(kind: int, jobs: bytes, pieces: int, results: int, /) -> None: ...
