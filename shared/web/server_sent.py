"""Server-sent events as bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html): pure."""

import msgspec


def sent_event(data: bytes, *, last_id: str | None = None, event: str | None = None) -> bytes:
    """One event.

    Args:
        data: JSON without line ends.
        last_id: What the client says when it asks for what comes after this.
        event: Its kind; None: an ordinary one.
    """
    told_id = b"" if last_id is None else b"id: %b\n" % last_id.encode()
    told_event = b"" if event is None else b"event: %b\n" % event.encode()
    return b"%b%bdata: %b\n\n" % (told_id, told_event, data)


def reason_event(event: str, reason: str, *, last_id: str | None = None) -> bytes:
    """An event of the answer itself: `end`, or `resync`."""
    return sent_event(msgspec.json.encode({"reason": reason}), last_id=last_id, event=event)


def sign_of_life(last_id: str) -> bytes:
    """Nothing is new; the client takes the id, so that it need not be told again what it knows is none of its own."""
    return b": nothing new\nid: %b\n\n" % last_id.encode()


def beginning(retry_milliseconds: int, last_id: str | None) -> bytes:
    """What an answer begins with: how long to wait before asking again, and after what."""
    told_id = b"" if last_id is None else b"id: %b\n" % last_id.encode()
    return b"retry: %d\n%b\n" % (retry_milliseconds, told_id)
