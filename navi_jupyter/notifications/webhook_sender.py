"""Sends signed events to webhooks: one HTTP POST each, in the form of the Standard Webhooks specification (1.0).

A client of its own, on asyncio's streams: the address that is checked is the address that is connected to, a peer that
drips its answer or sends a huge one costs no more than a deadline and a few kilobytes, and a stop ends it at once. No
redirect is followed, no proxy is used (it would resolve the host where no check can be made), no answer is kept.
Not responsible for what is sent (``webhook_body``) or when (``service``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from ..input.address_policy import parts_of_url, resolve, why_refused, why_refused_host
from .apprise_sender import STOPPED, SendResult

DEADLINE = 15.0  # seconds from the look-up of the host to the last header of the answer
CONNECTING = 5.0  # seconds for each address of the host
MAX_HEAD = 32 * 1024  # bytes of the status line and the headers of an answer
LONGEST_WAIT = timedelta(hours=1)  # that a service can ask for by ``Retry-After``
SHORTEST_SECRET, LONGEST_SECRET = 24, 64  # bytes, by the specification
_PREFIX = "whsec_"
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """An address that gets events, and the secrets that sign them."""

    url: str = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)
    """Each signs every event: while a secret is replaced, the receiver accepts the old one or the new one."""
    events: frozenset[str] = frozenset()  # what it gets without being named by a recall: ``firing``, ``run``
    content: bool = True  # whether titles, answers and messages of errors go along


class _AddressRefusedError(Exception):
    """The message says why."""


def read_secret(text: str) -> bytes:
    """A secret as it is configured: base64, with or without ``whsec_`` before it. Raises ValueError."""
    try:
        secret = base64.b64decode(text.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64, as `whsec_…` of Standard Webhooks") from None
    if not SHORTEST_SECRET <= len(secret) <= LONGEST_SECRET:
        raise ValueError(f"must be {SHORTEST_SECRET} to {LONGEST_SECRET} bytes as base64, not {len(secret)}")
    return secret


def signature(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of HMAC-SHA256 over the id, the time and the body, with dots between."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def headers_of(webhook: Webhook, event_id: str, body: bytes, *, at: datetime) -> dict[str, str]:
    """The headers of one attempt. The id is that of the event, the time that of the attempt."""
    timestamp = int(at.timestamp())
    return {
        "Content-Type": "application/json",
        "User-Agent": "navi-jupyter",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, event_id, timestamp, body) for secret in webhook.secrets),
    }


def why_unusable_address(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with a webhook's address, without use of the network; None when nothing is. Shows nothing of it."""
    parts = parts_of_url(url, allow_private=allow_private, hint="the signature says who sends")
    if isinstance(parts, str):
        return parts
    if parts.fragment:
        return "it must have no #fragment"
    if not allow_private and (why := why_refused_host(parts.hostname or "")) is not None:
        return f"{why}: events go to addresses of the internet only (the administrator's notify_allow_private)"
    return None


class WebhookSender:
    """Sends events. For one event loop."""

    def __init__(self, *, allow_private: bool = False, deadline: float = DEADLINE) -> None:
        self._allow_private = allow_private
        self._deadline = deadline
        self._running: set[asyncio.Task[SendResult]] = set()
        self._closed = False

    async def send(self, webhook: Webhook, event_id: str, body: bytes, *, at: datetime) -> SendResult:
        """Send one event. Raises nothing but CancelledError."""
        if self._closed:
            return SendResult(problem=STOPPED, stopped=True)
        # A task of its own, so that `close` ends the request and not the caller.
        task = asyncio.create_task(self._sent(webhook, event_id, body, at), name="navi-webhook")
        self._running.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._running.discard(task)
        return SendResult(problem=STOPPED, stopped=True) if task.cancelled() else task.result()

    def close(self) -> None:
        """Abort what is being sent, and send nothing more."""
        self._closed = True
        for task in self._running:
            task.cancel()

    async def _sent(self, webhook: Webhook, event_id: str, body: bytes, at: datetime) -> SendResult:
        if (why := why_unusable_address(webhook.url, allow_private=self._allow_private)) is not None:
            return SendResult(problem=why, lasting=True)
        parts = urlsplit(webhook.url)
        request = _request(parts, headers_of(webhook, event_id, body, at=at), body)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._exchanged(parts, request, at)
        except TimeoutError:  # before OSError, whose kind it is
            return SendResult(problem=f"it did not answer within {self._deadline:.0f} s")
        except _AddressRefusedError as error:
            return SendResult(problem=f"refused: {error}", lasting=True)
        except ssl.SSLCertVerificationError as error:
            return SendResult(problem=f"its certificate is not valid: {error.verify_message[:200]}")
        except (ssl.SSLError, OSError) as error:
            return SendResult(problem=f"it could not be reached ({type(error).__name__})")
        except (ValueError, EOFError, asyncio.LimitOverrunError):
            return SendResult(problem="its answer is not HTTP")

    async def _exchanged(self, parts: SplitResult, request: bytes, at: datetime) -> SendResult:
        reader, writer = await self._connected(parts)
        try:
            writer.write(request)
            await writer.drain()
            status, headers = await _answer(reader)
            return _result(status, headers, at)
        finally:
            # What else it sends is of no interest; a TLS goodbye would wait for the other side.
            writer.transport.abort()

    async def _connected(self, parts: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to one of the host's addresses, all of which were looked at. Raises OSError, TimeoutError."""
        encrypted = parts.scheme == "https"
        host, port = str(parts.hostname), parts.port or (443 if encrypted else 80)
        failure: Exception = OSError()
        # Of the system's authorities, and those of SSL_CERT_FILE. Reading them takes milliseconds: not on the loop.
        context = await asyncio.to_thread(ssl.create_default_context) if encrypted else None
        for address in await self._addresses(host, port):
            try:
                async with asyncio.timeout(CONNECTING):
                    return await asyncio.open_connection(
                        address, port, ssl=context, server_hostname=host if encrypted else None, limit=MAX_HEAD
                    )
            except ssl.SSLCertVerificationError:
                raise
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """The host's addresses. Raises OSError for none, _AddressRefusedError when one of them may not be used."""
        found = await asyncio.to_thread(resolve, host, port)
        if not self._allow_private:
            # One is enough: a name that leads to the internet and inwards is meant to lead inwards.
            why = next((why for each in found if (why := why_refused(each)) is not None), None)
            if why is not None:
                raise _AddressRefusedError(why)
        return found


def _request(parts: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    host = parts.netloc.encode("ascii")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1".encode(), b"Host: " + host, b"Connection: close"]
    lines += [f"{name}: {value}".encode() for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}".encode()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Mapping[bytes, bytes]]:
    """The status and the headers of the answer. Raises ValueError, EOFError, LimitOverrunError for what is not one."""
    for _ in range(5):
        head = await reader.readuntil(b"\r\n\r\n")
        found = _STATUS.match(head)
        if found is None:
            raise ValueError("not a status line")
        status = int(found[1])
        if status >= 200:  # what is below comes before the answer
            lines = (line.partition(b":") for line in head[found.end() :].split(b"\r\n") if line)
            return status, {name.strip().lower(): value.strip() for name, _, value in lines}
    raise ValueError("no answer after five interim ones")


def _result(status: int, headers: Mapping[bytes, bytes], at: datetime) -> SendResult:
    if status < 300:
        return SendResult()
    if status < 400:
        return SendResult(
            problem=f"it answered {status}: redirects are not followed, write the address that it leads to",
            lasting=True,
        )
    if status == 410:
        return SendResult(problem="it answered 410: it takes no more events", lasting=True)
    wait = _asked_wait(headers.get(b"retry-after", b"").decode("latin-1"), at)
    return SendResult(problem=f"it answered {status}", wait=wait)


def _asked_wait(text: str, at: datetime) -> timedelta | None:
    """What ``Retry-After`` asks for, as seconds or as a date; None for nothing that can be read."""
    try:
        if text.isdecimal():
            wait = timedelta(seconds=min(int(text[:9]), LONGEST_WAIT.total_seconds()))
        else:
            until = parsedate_to_datetime(text)
            wait = (until if until.tzinfo else until.replace(tzinfo=UTC)) - at
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(timedelta(0), min(wait, LONGEST_WAIT))
