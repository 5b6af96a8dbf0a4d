"""This machine's browser."""

import html
import webbrowser

from gpudev.cli.keyfile import config_folder, write_private

_PAGE = "jupyter.html"


def open_page(url: str) -> bool:
    """Show a page whose address holds a secret; whether there is a browser.

    The browser is given a file that leads there: the arguments of a program may be read by everybody on this machine.
    """
    path = config_folder() / _PAGE
    address = html.escape(url)
    text = f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}"><a href="{address}">Open</a>'
    write_private(path, text.encode())
    return webbrowser.open(path.as_uri())
