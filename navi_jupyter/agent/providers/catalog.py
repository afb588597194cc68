"""The known model providers, what each needs, whether that is installed and set, and their keys. Imports none of them.

The names are pydantic-ai's (a test compares them with the installed version), and those of *endpoints*: any server that
speaks OpenAI's protocol, named in the environment of the Jupyter server::

    NAVI_ENDPOINT_LAB_URL=https://llm.example.org/v1     model strings ``lab:<model>``
    NAVI_ENDPOINT_LAB_KEY=… or NAVI_ENDPOINT_LAB_KEY_FILE=/run/secrets/lab     when it wants a key
    NAVI_ENDPOINT_LAB_API=responses     when it is OpenAI's responses protocol; default ``chat``
    NAVI_ENDPOINT_LAB_MODELS=qwen3,gemma     models to suggest; else the server is asked
    NAVI_ENDPOINT_LAB_WINDOW=32768     tokens that its models read, where that is not known by their names
"""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ...errors import InvalidRequest
from ...installation import has_package, install_command, server_name
from ...redaction import mounted, remember
from .stored_settings import STORED

OFFLINE = "offline"


def environment() -> Mapping[str, str]:
    """The variables that say what can be used: those of the server's environment, then those that the user stored."""
    stored = STORED.values()
    return ChainMap(os.environ, dict(stored)) if stored else os.environ


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What a prefix of model strings needs."""

    label: str
    module: str  # the package that is present when the extra is installed
    install: str  # what to give to ``pip install``
    # Environment variables, of which one must be set (or the one with ``_FILE`` behind, that names a file).
    keys: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()  # environment variables that make a key unnecessary (the user's own server)
    models: tuple[str, ...] = ()  # models to suggest
    # Environment variable with the address of a server that can be asked for its models (``GET <address>/models``).
    base_url: str | None = None
    prefixes: tuple[str, ...] = ()  # what its keys begin with, where no other provider's do

    @property
    def is_installed(self) -> bool:
        """Whether its package is here."""
        return has_package(self.module)

    def has_key(self, environ: Mapping[str, str] | None = None) -> bool:
        """Whether a key is set, or one of the variables that make it unnecessary."""
        env = environment() if environ is None else environ
        return not self.keys or any(env.get(name) for name in self.instead) or first_key(self.keys, env) is not None

    def missing(self, environ: Mapping[str, str] | None = None) -> str | None:
        """Why it cannot be used here and the one thing that changes that; None when it can."""
        if not self.is_installed:
            return (
                f"{self.label} support is not installed. Run: {install_command(self.install)} and restart the server."
            )
        if not self.has_key(environ):
            what = "an address" if self.keys[0].endswith("_URL") else "a key"
            here = "give it in the settings of the chat, or " if STORED.allowed else ""
            return f"{self.label} needs {what}: {here}set {self.keys[0]} in the {server_name()}'s environment."
        return None


def _openai(label: str, *keys: str, **more: Any) -> Provider:
    """A provider that is reached with OpenAI's package."""
    return Provider(label=label, module="openai", install="navi-jupyter[openai]", keys=keys, **more)


def _other(label: str, module: str, extra: str, *keys: str, **more: Any) -> Provider:
    """A provider that pydantic-ai knows and that has no extra of this package."""
    return Provider(label=label, module=module, install=f"pydantic-ai-slim[{extra}]", keys=keys, **more)


_OPENAI_MODELS = ("gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna")
_OPENAI = _openai("OpenAI", "OPENAI_API_KEY", instead=("OPENAI_BASE_URL",), models=_OPENAI_MODELS)

# By the prefix of the model string, the usual ones first.
PROVIDERS: Mapping[str, Provider] = {
    "openai-chat": replace(_OPENAI, base_url="OPENAI_BASE_URL", prefixes=("sk-proj-", "sk-svcacct-")),
    "openai": _OPENAI,
    "openai-responses": _openai("OpenAI", "OPENAI_API_KEY", instead=("OPENAI_BASE_URL",)),
    "anthropic": Provider(
        label="Anthropic",
        module="anthropic",
        install="navi-jupyter[anthropic]",
        keys=("ANTHROPIC_API_KEY",),
        models=("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"),
        prefixes=("sk-ant-",),
    ),
    "google": Provider(
        label="Google",
        module="google.genai",
        install="navi-jupyter[google]",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        models=("gemini-4-argon", "gemini-3.8-flash"),
        prefixes=("AIza",),
    ),
    "google-cloud": Provider(label="Google Cloud", module="google.genai", install="navi-jupyter[google]"),
    "ollama": _openai("Ollama", "OLLAMA_BASE_URL", base_url="OLLAMA_BASE_URL"),
    "vllm": _openai("vLLM", "VLLM_BASE_URL", base_url="VLLM_BASE_URL"),
    "litellm": _openai("LiteLLM"),
    "openrouter": _openai("OpenRouter", "OPENROUTER_API_KEY", prefixes=("sk-or-",)),
    "deepseek": _openai("DeepSeek", "DEEPSEEK_API_KEY"),
    "azure": _openai("Azure OpenAI", "AZURE_OPENAI_API_KEY"),
    "azure-responses": _openai("Azure OpenAI", "AZURE_OPENAI_API_KEY"),
    "together": _openai("Together", "TOGETHER_API_KEY"),
    "fireworks": _openai("Fireworks", "FIREWORKS_API_KEY"),
    "moonshotai": _openai("Moonshot AI", "MOONSHOTAI_API_KEY"),
    "cerebras": _openai("Cerebras", "CEREBRAS_API_KEY", prefixes=("csk-",)),
    "nebius": _openai("Nebius", "NEBIUS_API_KEY"),
    "ovhcloud": _openai("OVHcloud", "OVHCLOUD_API_KEY"),
    "alibaba": _openai("Alibaba Cloud", "ALIBABA_API_KEY", "DASHSCOPE_API_KEY"),
    "sambanova": _openai("SambaNova", "SAMBANOVA_API_KEY"),
    "zai": _openai("Z.AI", "ZAI_API_KEY"),
    "meta": _openai("Meta", "META_API_KEY"),
    "groq": _other("Groq", "groq", "groq", "GROQ_API_KEY", prefixes=("gsk_",)),
    "mistral": _other("Mistral", "mistralai", "mistral", "MISTRAL_API_KEY"),
    "cohere": _other("Cohere", "cohere", "cohere", "CO_API_KEY"),
    "xai": _other("xAI", "xai_sdk", "xai", "XAI_API_KEY", prefixes=("xai-",)),
    "huggingface": _other("Hugging Face", "huggingface_hub", "huggingface", "HF_TOKEN", prefixes=("hf_",)),
    "bedrock": _other("Amazon Bedrock", "boto3", "bedrock"),
}


_ENDPOINT = re.compile(r"^NAVI_ENDPOINT_([A-Z0-9]+(?:_[A-Z0-9]+)*)_URL$")
_APIS = ("chat", "responses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server of the user's own that speaks OpenAI's protocol."""

    name: str  # the prefix of its model strings: lower case, ``-`` for ``_``
    url: str  # where its API begins, e.g. ``https://llm.example.org/v1``
    api: str = "chat"
    models: tuple[str, ...] = ()
    window: int | None = None  # tokens that its models read

    @property
    def key_name(self) -> str:
        """The environment variable with its key."""
        return f"{_variable(self.name)}_KEY"

    @property
    def provider(self) -> Provider:
        """The endpoint as the catalog describes providers."""
        host = urlsplit(self.url).hostname or self.name
        return _openai(f"{self.name} ({host})", models=self.models, base_url=f"{_variable(self.name)}_URL")


def _variable(name: str) -> str:
    return f"NAVI_ENDPOINT_{name.upper().replace('-', '_')}"


def endpoints(environ: Mapping[str, str] | None = None) -> Mapping[str, Endpoint]:
    """The endpoints that the environment names, by their prefix. Names of known providers cannot be taken."""
    env = environment() if environ is None else environ
    found: dict[str, Endpoint] = {}
    for variable, url in sorted(env.items()):
        if (named := _ENDPOINT.match(variable)) is None or not _is_address(url):
            continue
        name = named[1].lower().replace("_", "-")
        if name in PROVIDERS or name == OFFLINE:
            continue
        base = _variable(name)
        api = env.get(f"{base}_API", "").strip().lower()
        models = tuple(filter(None, (model.strip() for model in env.get(f"{base}_MODELS", "").split(","))))
        window = env.get(f"{base}_WINDOW", "").strip()
        found[name] = Endpoint(
            name=name,
            url=url.strip(),
            api=api if api in _APIS else "chat",
            models=models,
            window=int(window) if window.isdecimal() and int(window) > 0 else None,
        )
    return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # a bracket that is not closed
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def all_providers(environ: Mapping[str, str] | None = None) -> Mapping[str, Provider]:
    """The user's endpoints, then the known providers, by prefix."""
    own = {name: endpoint.provider for name, endpoint in endpoints(environ).items()}
    return own | dict(PROVIDERS)


def provider_of(model: str) -> Provider:
    """The provider of a model string ``provider:model``. Raises InvalidRequest naming what is wrong with it."""
    prefix, colon, name = model.partition(":")
    if not colon or not name.strip():
        raise InvalidRequest(
            f"{model!r} is not a model. Use {OFFLINE!r}, or provider:model like openai-chat:{_OPENAI_MODELS[0]}.",
            field="model",
        )
    provider = PROVIDERS.get(prefix)
    if provider is None and (own := endpoints().get(prefix)) is not None:
        provider = own.provider
    if provider is None:
        known = ", ".join(list(all_providers())[:6])
        raise InvalidRequest(
            f"There is no model provider {prefix!r}. Known ones: {known}, … "
            f"To use your own server, set NAVI_ENDPOINT_<NAME>_URL in the {server_name()}'s environment.",
            field="model",
        )
    return provider


def key(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The secret ``name``; None when it is set nowhere.

    Read at each request from the environment, else from the file that ``<NAME>_FILE`` names (mounted secrets of
    JupyterHub, Docker, Kubernetes), else from what the user stored: a key that changes needs no restart. Never taken
    from a cell.
    """
    env = os.environ if environ is None else environ
    path = env.get(f"{name}_FILE", "").strip()
    stored = STORED.values() if environ is None else {}
    value = env.get(name, "").strip() or (mounted(path) if path else None) or stored.get(name, "").strip()
    if not value:
        return None
    remember(value)  # so that redaction keeps it out of all texts
    return value


def first_key(names: tuple[str, ...], environ: Mapping[str, str] | None = None) -> str | None:
    """The first of these that is set."""
    return next((value for name in names if (value := key(name, environ))), None)


_NAME = re.compile(r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$")


def variable_of(name: str, value: str) -> str:
    """The variable of what a provider needs: its key, its address, or the address of a server of the user's own.

    Raises InvalidRequest for a provider that needs nothing of the kind.
    """
    if (provider := PROVIDERS.get(name)) is not None:
        if not provider.keys:
            raise InvalidRequest(
                f"{provider.label} has no key that can be stored: see its documentation.", field="name"
            )
        return provider.keys[0]
    if not _NAME.match(name) or name == OFFLINE or (value and not _is_address(value)):
        raise InvalidRequest(
            f"{name[:40]!r} is no known provider. A server of your own takes a name of small letters, and its address "
            "(https://llm.example.org/v1).",
            field="name",
        )
    return f"{_variable(name)}_URL"


_ASSIGNED = re.compile(r"(?:export\s+|set\s+|\$env:)?[A-Z][A-Z0-9]*_[A-Z0-9_]+\s*=\s*(?P<value>.+)", re.DOTALL)
_BEARER = re.compile(r"(?:authorization:\s*)?bearer\s+(?P<value>\S.*)", re.DOTALL | re.IGNORECASE)
_UNSEEN = re.compile(r"\s*[\r\n\t]\s*|[\u200b-\u200d\u2060\ufeff]")


def checked_value(name: str, value: str) -> str:
    """A key or an address of a provider as it is to be stored, whatever was pasted around it.

    Raises InvalidRequest, without the value in its message.
    """
    variable = variable_of(name, value)
    # A key that was copied from a terminal has line ends in it, one from a page signs that cannot be seen.
    text = _UNSEEN.sub("", value).strip()
    if (assigned := _ASSIGNED.fullmatch(text) or _BEARER.fullmatch(text)) is not None:
        text = assigned["value"].strip()
    text = text.strip("\"'`“”‘’ ")
    if variable.endswith("_URL"):
        if not _is_address(text):
            raise InvalidRequest("The address begins with http:// or https://, and names a host.", field="value")
        return text.rstrip("/")
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest("A key has no blanks and only plain letters, digits and signs.", field="value")
    own_server = f"{variable.removesuffix('_API_KEY')}_BASE_URL" in environment()  # where any key may be the right one
    other = None if own_server else _provider_of_key(text)
    if other is not None and variable not in other.keys:
        raise InvalidRequest(
            f"This is a key of {other.label}, not of {PROVIDERS[name].label}. Choose {other.label}, and give it there.",
            field="value",
        )
    return text


def _provider_of_key(text: str) -> Provider | None:
    """The provider whose keys alone begin so."""
    return next((one for one in PROVIDERS.values() if one.prefixes and text.startswith(one.prefixes)), None)


def first_step() -> str:
    """What to do where no key is set, by what is installed."""
    usual = [PROVIDERS[name] for name in ("anthropic", "openai-chat", "google")]
    ready = [one for one in usual if one.is_installed]
    one = (ready or usual)[0]
    begin = "" if ready else f"{install_command(one.install)}, then "
    return f"{begin}give a key in the settings of the chat, or set {one.keys[0]} where the server is started"


def how_to_get_one() -> str:
    """The next step to a language model as Markdown, by what is installed and which keys are there."""
    usual = [(prefix, PROVIDERS[prefix]) for prefix in ("openai-chat", "anthropic", "google")]
    server = f"in the environment of the {server_name()}, and restarts that"
    own = server.replace("restarts", "restart")

    def first(fits: Callable[[Provider], bool]) -> tuple[str, Provider] | None:
        return next((item for item in usual if fits(item[1])), None)

    if found := first(lambda one: one.missing() is None):
        text, command = "{label} is ready here; choose it in the settings of the chat, or with:", "%navi model {model}"
    elif found := first(lambda one: one.has_key()):
        text, command = "A key for {label} is set, its package is missing. Install it and restart the server:", "{pip}"
    elif (found := first(lambda one: one.is_installed)) and STORED.allowed:
        text = "Give a key in the settings of the chat: it is tried, and kept for you on this server. Or set it "
        text, command = text + own + ":", "export {key}=…"
    elif found:
        text = "The package for {label} is installed, a key is missing. The administrator of this server sets it "
        text, command = text + server + ":", "export {key}=…"
    else:
        text = "To get one, install a provider and restart the server; then give its key in the settings of the chat:"
        by_others = f"The administrator of this server installs a provider, sets its key (`{{key}}`) {server}:"
        text, command = text if STORED.allowed else by_others, "{pip}"
    prefix, one = found or usual[0]
    model, pip = f"{prefix}:{one.models[0]}", install_command(one.install)
    return f"{text}\n\n```\n{command}\n```".format(label=one.label, model=model, pip=pip, key=one.keys[0])
