"""This machine's browser, and what it will find."""

import html
import time
import webbrowser

import httpx

from gpudev.cli.keyfile import config_folder, write_private

_PAGE = "open.html"
_AWAITED_SECONDS = 15.0
_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 5.0
_OF_THE_INGRESS = {404, 502, 503, 504}
"""What an ingress says of a host that it does not know yet, or of a server that it cannot reach yet."""


def open_page(url: str) -> bool:
    """Show a page whose address holds a secret; whether there is a browser.

    The browser is given a file that leads there: the arguments of a program may be read by everybody on this machine.
    """
    path = config_folder() / _PAGE
    address = html.escape(url)
    text = f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}"><a href="{address}">Open</a>'
    write_private(path, text.encode())
    return webbrowser.open(path.as_uri())


def await_page(url: str) -> str | None:
    """Wait until a job's own address is served: the ingress knows it a moment after the job does.

    Args:
        url: Its query, which holds the token, is not sent.

    Returns:
        None, or why it is not served from here after 15 s.
    """
    page = httpx.URL(url).copy_with(query=None)
    headers = {"Host": page.netloc.decode()}
    if page.host.endswith(".localhost"):  # this machine, as browsers have it and not every system
        page = page.copy_with(host="localhost")
    deadline = time.monotonic() + _AWAITED_SECONDS
    # nothing secret is said and nothing believed: whom the browser trusts is its own matter
    with httpx.Client(verify=False, timeout=_ANSWER_SECONDS) as client:  # noqa: S501
        while (why := _why_not_served(client, page, headers)) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    return why


def _why_not_served(client: httpx.Client, page: httpx.URL, headers: dict[str, str]) -> str | None:
    try:
        status = client.get(page, headers=headers).status_code
    except httpx.TransportError as error:
        return type(error).__name__
    return f"HTTP {status}" if status in _OF_THE_INGRESS else None
