"""What the client does, apart from doing it: requests and pauses as values, yielded by generators.

An operation is a generator that yields effects and is sent their results. `Client` performs them with blocking calls,
`AsyncClient` with awaited ones, so that everything else is written once.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_SECONDS = 40.0
"""Of silence after which a connection counts as lost: a followed log is silent for 15 s at most."""


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    """Quoted."""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    public: bool = False
    """True: without the key."""
    silence_seconds: float = ANSWER_SECONDS


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """With lower-case names."""
    body: bytes
    stream: Any = None
    """For `Read`: of an answer whose body is taken piece by piece."""


class ConnectionLost(Exception):
    """No whole answer came."""


@dataclass(frozen=True)
class Send:
    """Sends a request; results in a Response, or raises ConnectionLost."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Sends a request; results in a Response with a stream, or, of an error, with its body."""

    request: Request


@dataclass(frozen=True)
class Read:
    """Results in the next bytes of a stream; empty at its end. Raises ConnectionLost when it is cut."""

    stream: Any


@dataclass(frozen=True)
class Close:
    """Ends a stream."""

    stream: Any


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Item(Generic[T]):
    """Handed to the caller of a stream."""

    value: T


Effect: TypeAlias = Send | Open | Read | Close | Sleep
Steps: TypeAlias = Generator[Effect, Any, T]
Stream: TypeAlias = Generator[Effect | Item[T], Any, None]


class BlockingRunner(ABC):
    """Performs steps with blocking calls."""

    @abstractmethod
    def run(self, steps: Steps[T]) -> T:
        """The result of the steps."""

    @abstractmethod
    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        """The items of a stream."""


class AwaitingRunner(ABC):
    """Performs steps with awaited calls."""

    @abstractmethod
    async def run(self, steps: Steps[T]) -> T:
        """The result of the steps."""

    @abstractmethod
    def iterate(self, stream: Stream[T]) -> AsyncIterator[T]:
        """The items of a stream."""


class operation(Generic[P, T]):  # noqa: N801 - a decorator
    """A method whose body is steps: it returns their result, or, of an AwaitingRunner, a coroutine of it."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__
        self.__name__ = steps.__name__

    @overload
    def __get__(self, runner: None, owner: type) -> "operation[P, T]": ...
    @overload
    def __get__(self, runner: BlockingRunner, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, runner: AwaitingRunner, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, runner: Any, owner: type) -> Any:
        if runner is None:
            return self

        @functools.wraps(self.steps)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return runner.run(self.steps(runner, *args, **kwargs))

        return call


class streamed(Generic[P, T]):  # noqa: N801 - a decorator
    """A method whose body is a stream: it returns an iterator, or, of an AwaitingRunner, an asynchronous one."""

    def __init__(self, stream: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self.stream = stream
        self.__doc__ = stream.__doc__
        self.__name__ = stream.__name__

    @overload
    def __get__(self, runner: None, owner: type) -> "streamed[P, T]": ...
    @overload
    def __get__(self, runner: BlockingRunner, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, runner: AwaitingRunner, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, runner: Any, owner: type) -> Any:
        if runner is None:
            return self

        @functools.wraps(self.stream)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return runner.iterate(self.stream(runner, *args, **kwargs))

        return call
