"""Work done ahead by threads while its earlier results are used, without changing the order of anything."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NoReturn, TypeVar

from depthcell.processes import default_jobs

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Results that may wait to be fetched; bounds the memory used."""


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(work, items)` with the next few results worked out by threads.

    Results come in the order of their items, and so do errors: one that `items` raises comes after the results of all
    items before it. Worth it for work that leaves the interpreter free, such as unpacking large blocks.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(default_jobs(), "ahead") as pool:
        for task in _tasks(work, items):
            waiting.append(pool.submit(task))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _tasks(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Callable[[], Result]]:
    """The work on each item, and an error of `items` itself as the last piece of work."""
    try:
        for item in items:
            yield partial(work, item)
    except Exception as error:  # whatever it is, it waits for its turn
        yield partial(_fail, error)


def _fail(error: Exception) -> NoReturn:
    raise error
