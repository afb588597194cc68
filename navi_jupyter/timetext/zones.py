"""Zone names in text: behind a time ("at 17:00 UTC"), and place names ("tokyo", "new york") as IANA zones."""

from __future__ import annotations

import re
from difflib import get_close_matches
from zoneinfo import available_timezones

from ..clock import find_zone
from ..errors import InvalidSchedule

_ALSO = {
    "utc": "UTC", "gmt": "UTC", "zulu": "UTC", "germany": "Europe/Berlin", "france": "Europe/Paris",
    "uk": "Europe/London", "england": "Europe/London", "japan": "Asia/Tokyo", "india": "Asia/Kolkata",
    "delhi": "Asia/Kolkata", "mumbai": "Asia/Kolkata", "bangalore": "Asia/Kolkata", "beijing": "Asia/Shanghai",
    "china": "Asia/Shanghai", "nyc": "America/New_York", "boston": "America/New_York", "washington": "America/New_York",
    "california": "America/Los_Angeles", "san francisco": "America/Los_Angeles", "sf": "America/Los_Angeles",
    "seattle": "America/Los_Angeles", "munich": "Europe/Berlin", "hamburg": "Europe/Berlin", "italy": "Europe/Rome",
    "spain": "Europe/Madrid", "switzerland": "Europe/Zurich", "austria": "Europe/Vienna", "korea": "Asia/Seoul",
}  # fmt: skip

_CONTINENTS = (
    "africa/", "america/", "antarctica/", "asia/", "atlantic/", "australia/", "europe/", "indian/", "pacific/",
)  # fmt: skip


def zone_of_place(place: str) -> str | None:
    """The zone of a city, country or IANA name, or None. Reads the zone directory: not for the event loop."""
    wanted = " ".join(place.strip(" ?.!").lower().replace("_", " ").split())
    if wanted in _ALSO:
        return _ALSO[wanted]
    names = {name.replace("_", " ").lower(): name for name in available_timezones()}
    cities = {name.rsplit("/", 1)[-1]: full for name, full in sorted(names.items()) if name.startswith(_CONTINENTS)}
    if found := names.get(wanted) or cities.get(wanted):
        return found
    close = get_close_matches(wanted, cities, n=1, cutoff=0.83)
    return cities[close[0]] if close else None


_ZONE = re.compile(r"\s+\(?(?P<name>UTC|GMT|[A-Z][A-Za-z]+/[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)?)\b\)?")
_VAGUE_ZONE = re.compile(r"\s+(?P<name>[ECMP][SDE]T|CEST|BST|IST|JST|AEST|AEDT|MEZ|MESZ)\b")


def zone_behind(text: str, end: int, zone: str) -> tuple[str, int]:
    """The zone that is named right after a time ("at 17:00 UTC"), and where its name ends; else the given one."""
    if vague := _VAGUE_ZONE.match(text, end):
        raise InvalidSchedule(
            f"{vague['name']} can mean several zones; name one like Europe/Berlin, or leave it out for {zone}."
        )
    match = _ZONE.match(text, end)
    name = match["name"].replace("GMT", "UTC") if match else ""
    return (name, match.end()) if match and find_zone(name) else (zone, end)
