"""Which addresses may be connected to, where the user chooses the host: those of the internet alone.

The rule for Apprise's process, webhooks, and the MCP servers of users. Not responsible for connecting: who connects
checks the very address that it connects to, since a name may resolve to another one a moment later.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

MAX_URL = 4000  # characters of an address that a user gives
_NOT_IN_ADDRESS = re.compile(r"[\s\\\x00-\x20\x7f-\U0010ffff]")

_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
# `::127.0.0.1`: deprecated, but some systems still connect to the IPv4 address in it.
_COMPATIBLE = IPv6Network("::/96")
# Where clouds serve a machine's credentials. 168.63.129.16 would pass as an address of the internet.
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"})


def why_refused(address: str) -> str | None:
    """Why an IP address (``127.0.0.1``, ``fe80::1%eth0``) is refused; None for an address of the internet."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address[:100]} is not an IP address"
    why = next((kind for each in (found, *_embedded(found)) if (kind := _kind(each))), None)
    return None if why is None else f"{address} is {why}"


def parts_of_url(url: str, *, allow_private: bool, hint: str) -> SplitResult | str:
    """The parts of an address to connect to; or what is wrong with it, which shows nothing of it. Without the network.

    ``hint``: what there is in place of a password.
    """
    if len(url) > MAX_URL:
        return f"it is longer than {MAX_URL} characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is not a URL"
    if parts.scheme == "http" and not allow_private:
        return "http:// is not encrypted: use https://"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "it must be like https://host/path"
    if _NOT_IN_ADDRESS.search(url):
        return "it must be ASCII without spaces (percent-encode the path, use the host's xn-- form)"
    if "@" in parts.netloc:
        return f"it must have no user name or password: {hint}"
    return parts


def why_refused_host(host: str) -> str | None:
    """As :func:`why_refused` for a host that is written as an address; a name is looked at when it is connected to."""
    with suppress(ValueError):
        ip_address(host.partition("%")[0])
        return why_refused(host)
    return None


def _kind(address: IPv4Address | IPv6Address) -> str | None:
    kinds = {
        "a metadata service": str(address) in _METADATA,
        "this machine": address.is_loopback or address.is_unspecified,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "private": address.is_private or getattr(address, "is_site_local", False),
        "not of the internet": not address.is_global,
    }
    return next((kind for kind, holds in kinds.items() if holds), None)


def _embedded(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address contains, in every form of embedding."""
    if isinstance(address, IPv4Address):
        return ()
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    found = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64 or address in _NAT64_LOCAL or (address in _COMPATIBLE and int(address) > 0xFFFF):
        found.append(last)
    if address.teredo is not None:
        found.extend(address.teredo)
    return tuple(each for each in found if each is not None)


def resolve(host: str, port: int = 443) -> list[str]:
    """The addresses of a host, in any notation (``2130706433``, ``0177.1``). Blocks. Raises OSError for none."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host[:100]} is not the name of a host") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
