"""The profiles that one user can choose from: the user's own, kept in the database, before those of everybody.

One of a user's own with the name of another takes its place for this user, and may extend it. What the profiles of
files extend is not changed by it. Not responsible for what a profile means (``definitions``) or where it is stored.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ...errors import InvalidRequest
from ...ports.user_configuration import UserConfiguration
from .definitions import DEFAULT_PROFILE, Profile, describe
from .files import ProfileForm, Profiles


class UserProfiles(Profiles):
    """See the module. A user's own are read when they are asked for: most runs need one of a hundred."""

    def __init__(self, shared: Profiles, configuration: UserConfiguration) -> None:
        self._shared = shared
        self._own = configuration.profiles
        self._resolved: dict[str, Profile] = {}

    def get(self, name: str) -> Profile:
        if name in self._own:
            return self._resolve(name, ())
        try:
            return self._shared.get(name)
        except InvalidRequest:
            if not self._own or name in self._shared.names():
                raise
            known = ", ".join(self.names())
            raise InvalidRequest(f"There is no profile {name!r}. There is: {known}.", field="profile") from None

    def names(self) -> list[str]:
        return list(dict.fromkeys([*self._shared.names(), *sorted(self._own)]))

    def describe(self) -> list[dict[str, Any]]:
        shared = {str(entry["name"]): entry for entry in self._shared.describe()}
        return [self._described(name) if name in self._own else shared[name] for name in self.names()]

    def _described(self, name: str) -> dict[str, Any]:
        try:
            return describe(self._resolve(name, ())) | {"available": True, "why": None}
        except InvalidRequest as error:
            known = Profile(name=name, description="", instructions="", builtin=False, own=True)
            return describe(known) | {"available": False, "why": error.message}

    def _resolve(self, name: str, trail: tuple[str, ...]) -> Profile:
        """One of the user's own with all that it extends. Raises InvalidRequest."""
        if name in self._resolved:
            return self._resolved[name]
        form = _form(name, self._own[name])
        extends = form.extends or DEFAULT_PROFILE
        if extends in trail:
            circle = " extends ".join((*trail, name, extends))
            raise InvalidRequest(f"The profile {name!r} extends itself ({circle}).", field="extends")
        try:
            if extends in self._own and extends != name:
                extended = self._resolve(extends, (*trail, name))
            else:
                extended = self._shared.get(extends)
        except InvalidRequest as error:
            raise InvalidRequest(f"extends: {error.message}", field="extends") from None
        return self._resolved.setdefault(name, form.over(name, extended, None))


def _form(name: str, text: str) -> ProfileForm:
    try:
        return ProfileForm.model_validate_json(text)
    except ValidationError as error:  # stored by another version of Navi
        why = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, why["loc"]))
        raise InvalidRequest(
            f"Your own profile {name!r} cannot be read: {where}: {why['msg']}", field="profile"
        ) from None
