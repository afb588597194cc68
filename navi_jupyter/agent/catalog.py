"""Which model providers there are, what each needs, and whether that is here. Looks, never imports.

The names are pydantic-ai's (a test compares them with the installed version).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from ..errors import InvalidRequest

OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What a prefix of model strings needs."""

    label: str
    module: str
    """The package whose presence tells that the extra is installed."""
    install: str
    """What to give to ``pip install``."""
    keys: tuple[str, ...] = ()
    """Environment variables, of which one must be set."""
    instead: tuple[str, ...] = ()
    """Environment variables that make a key unnecessary (a server of one's own)."""
    models: tuple[str, ...] = ()
    """Models to suggest."""

    def has_key(self, environ: Mapping[str, str] | None = None) -> bool:
        """Whether what authenticates is set (or a server of one's own, that needs nothing)."""
        env = os.environ if environ is None else environ
        return not self.keys or any(env.get(name) for name in (*self.keys, *self.instead))

    def missing(self, environ: Mapping[str, str] | None = None) -> str | None:
        """Why it can not be used here and the one thing that changes that; None when it can."""
        if not installed(self.module):
            return f'{self.label} support is not installed. Run: pip install "{self.install}" and restart the server.'
        if not self.has_key(environ):
            return f"{self.label} needs a key: set {self.keys[0]} in the Jupyter server's environment and restart it."
        return None


def installed(module: str) -> bool:
    """Whether a package can be imported, without importing it (its parents are, for dotted names)."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _openai(label: str, *keys: str, instead: tuple[str, ...] = (), models: tuple[str, ...] = ()) -> Provider:
    """A provider that is reached with OpenAI's package."""
    return Provider(
        label=label,
        module="openai",
        install="navi-jupyter[openai]",
        keys=keys,
        instead=instead,
        models=models,
    )


def _other(label: str, module: str, extra: str, *keys: str, models: tuple[str, ...] = ()) -> Provider:
    """A provider that pydantic-ai knows and we have no extra for."""
    return Provider(label=label, module=module, install=f"pydantic-ai-slim[{extra}]", keys=keys, models=models)


_OPENAI_MODELS = ("gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna")
_OPENAI = _openai("OpenAI", "OPENAI_API_KEY", instead=("OPENAI_BASE_URL",), models=_OPENAI_MODELS)

PROVIDERS: Mapping[str, Provider] = {
    "openai-chat": _OPENAI,
    "openai": _OPENAI,
    "openai-responses": _openai("OpenAI", "OPENAI_API_KEY", instead=("OPENAI_BASE_URL",)),
    "anthropic": Provider(
        label="Anthropic",
        module="anthropic",
        install="navi-jupyter[anthropic]",
        keys=("ANTHROPIC_API_KEY",),
        models=("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"),
    ),
    "google": Provider(
        label="Google",
        module="google.genai",
        install="navi-jupyter[google]",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        models=("gemini-4-argon", "gemini-3.8-flash"),
    ),
    "google-cloud": Provider(label="Google Cloud", module="google.genai", install="navi-jupyter[google]"),
    "ollama": _openai("Ollama", "OLLAMA_BASE_URL"),
    "vllm": _openai("vLLM", "VLLM_BASE_URL"),
    "litellm": _openai("LiteLLM"),
    "openrouter": _openai("OpenRouter", "OPENROUTER_API_KEY"),
    "deepseek": _openai("DeepSeek", "DEEPSEEK_API_KEY"),
    "azure": _openai("Azure OpenAI", "AZURE_OPENAI_API_KEY"),
    "azure-responses": _openai("Azure OpenAI", "AZURE_OPENAI_API_KEY"),
    "together": _openai("Together", "TOGETHER_API_KEY"),
    "fireworks": _openai("Fireworks", "FIREWORKS_API_KEY"),
    "moonshotai": _openai("Moonshot AI", "MOONSHOTAI_API_KEY"),
    "cerebras": _openai("Cerebras", "CEREBRAS_API_KEY"),
    "nebius": _openai("Nebius", "NEBIUS_API_KEY"),
    "ovhcloud": _openai("OVHcloud", "OVHCLOUD_API_KEY"),
    "alibaba": _openai("Alibaba Cloud", "ALIBABA_API_KEY", "DASHSCOPE_API_KEY"),
    "sambanova": _openai("SambaNova", "SAMBANOVA_API_KEY"),
    "zai": _openai("Z.AI", "ZAI_API_KEY"),
    "meta": _openai("Meta", "META_API_KEY"),
    "groq": _other("Groq", "groq", "groq", "GROQ_API_KEY"),
    "mistral": _other("Mistral", "mistralai", "mistral", "MISTRAL_API_KEY"),
    "cohere": _other("Cohere", "cohere", "cohere", "CO_API_KEY"),
    "xai": _other("xAI", "xai_sdk", "xai", "XAI_API_KEY"),
    "huggingface": _other("Hugging Face", "huggingface_hub", "huggingface", "HF_TOKEN"),
    "bedrock": _other("Amazon Bedrock", "boto3", "bedrock"),
}
"""By the prefix of the model string, the usual ones first."""


def provider_of(model: str) -> Provider:
    """The provider of a model string ``provider:model``. Raises InvalidRequest naming what is wrong with it."""
    prefix, colon, name = model.partition(":")
    if not colon or not name.strip():
        raise InvalidRequest(
            f"{model!r} is no model. Use {OFFLINE!r}, or provider:model like openai-chat:{_OPENAI_MODELS[0]}.",
            field="model",
        )
    provider = PROVIDERS.get(prefix)
    if provider is None:
        known = ", ".join(list(PROVIDERS)[:6])
        raise InvalidRequest(f"There is no model provider {prefix!r}. Known ones: {known}, …", field="model")
    return provider
