"""What may be a name, a label or an annotation key."""

import re
import secrets

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENVIRONMENT = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SUBDOMAIN_LENGTH, _LABEL_LENGTH = 253, 63
# without vowels and look-alikes, as the API server's generator
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)


def generate(prefix: str) -> str:
    """A name for `generateName`: the prefix, cut to leave room, and five random characters."""
    return prefix[: _LABEL_LENGTH - 5] + "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def name_problem(resource: str, name: str) -> str | None:
    """What is wrong with an object's name, or None."""
    if resource in {"services", "namespaces"}:
        pattern = _SERVICE if resource == "services" else _LABEL
        return None if pattern.fullmatch(name) and len(name) <= _LABEL_LENGTH else LABEL_RULE
    return None if _SUBDOMAIN.fullmatch(name) and len(name) <= _SUBDOMAIN_LENGTH else SUBDOMAIN_RULE


def label_problem(name: str) -> str | None:
    """What is wrong with a DNS label such as a container's or volume's name, or None."""
    return None if _LABEL.fullmatch(name) and len(name) <= _LABEL_LENGTH else LABEL_RULE


def qualified_name_problem(name: str) -> str | None:
    """What is wrong with a label's key, or None."""
    prefix, slash, rest = name.rpartition("/")
    if slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= _SUBDOMAIN_LENGTH):
        return f"prefix part {SUBDOMAIN_RULE}"
    if not _QUALIFIED.fullmatch(rest) or len(rest) > _LABEL_LENGTH:
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
    return None


def label_value_problem(value: str) -> str | None:
    """What is wrong with a label's value, or None."""
    if value and (not _QUALIFIED.fullmatch(value) or len(value) > _LABEL_LENGTH):
        return (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
    return None


def environment_problem(name: str) -> str | None:
    """What is wrong with an environment variable's name, or None."""
    if _ENVIRONMENT.fullmatch(name):
        return None
    return "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.'"
