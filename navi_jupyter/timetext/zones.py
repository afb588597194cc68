"""Place names -> IANA zones: "tokyo", "new york", "UTC"."""

from __future__ import annotations

from difflib import get_close_matches
from zoneinfo import available_timezones

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
    "africa/",
    "america/",
    "antarctica/",
    "asia/",
    "atlantic/",
    "australia/",
    "europe/",
    "indian/",
    "pacific/",
)


def find_zone(place: str) -> str | None:
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
