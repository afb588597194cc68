"""Planted keys appear nowhere: not in a session's log, the database, exports, answers, or the server's own log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navi_jupyter import redaction
from navi_jupyter.agent.providers.catalog import PROVIDERS, first_key, key
from navi_jupyter.event_redaction import EventRedactor, scrubbed
from navi_jupyter.events import (
    ActivityDelta,
    Custom,
    Event,
    RunStarted,
    TextMessageContent,
    TextMessageEnd,
    ToolCallResult,
)
from navi_jupyter.log_setup import get_logger
from navi_jupyter.redaction import redact, redact_output, remember, scrub
from tests.e2e.client import call, new_session, ok
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

SECRET = 'pl4nted-"quoted"/key+1'


@pytest.fixture
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)


# --- what is a secret ------------------------------------------------------------------------------------------------


def test_every_key_of_the_catalog_is_known_as_a_secret() -> None:
    names = {name for provider in PROVIDERS.values() for name in provider.keys if not name.endswith("_URL")}
    assert len(names) > 15
    assert not [name for name in names if not redaction.is_secret(name)]


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "JUPYTERHUB_API_TOKEN",
        "JPY_API_TOKEN",
        "PGPASSWORD",
        "GITHUB_PAT",
        "NAVI_ENDPOINT_LAB_KEY",
        "OPENAI_API_KEY_2",
        "SENTRY_DSN",
        "db_password",
        "DB_PASS",
        # One per service, as its documentation names it.
        *"""
        SLACK_WEBHOOK_URL SLACK_WEBHOOK DISCORD_WEBHOOK_URL TEAMS_WEBHOOK_URI DEPLOY_WEBHOOK_URL_PROD
        MATTERMOST_HOOK_URL VAULT_SECRET_ID DBPASS BEARER OTP_SEED RECOVERY_CODES STRIPE_WEBHOOK_SECRET
        AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN B2_APPLICATION_KEY_ID AZURE_STORAGE_SAS AZURE_STORAGE_SAS_TOKEN BLOB_SAS_URL
        AZURE_STORAGE_KEY AZURE_STORAGE_CONNECTION_STRING AZURE_CLIENT_SECRET AZURE_DEVOPS_EXT_PAT SYSTEM_ACCESSTOKEN
        APPLICATIONINSIGHTS_CONNECTION_STRING GH_TOKEN GITHUB_TOKEN GITLAB_TOKEN CI_JOB_TOKEN ACTIONS_RUNTIME_TOKEN
        NPM_TOKEN NODE_AUTH_TOKEN NPM_CONFIG__AUTH PYPI_TOKEN TWINE_PASSWORD POETRY_PYPI_TOKEN_PYPI UV_PUBLISH_TOKEN
        DOCKER_PASSWORD DOCKER_AUTH_CONFIG KAGGLE_KEY HF_TOKEN HUGGING_FACE_HUB_TOKEN WANDB_API_KEY NEPTUNE_API_TOKEN
        MLFLOW_TRACKING_PASSWORD DATABRICKS_TOKEN SNOWSQL_PWD SNOWFLAKE_PRIVATE_KEY_PASSPHRASE MYSQL_PWD
        MYSQL_ROOT_PASSWORD REDISCLI_AUTH RABBITMQ_DEFAULT_PASS SENTRY_AUTH_TOKEN STRIPE_SECRET_KEY TWILIO_AUTH_TOKEN
        SENDGRID_API_KEY TELEGRAM_BOT_TOKEN SLACK_BOT_TOKEN SLACK_SIGNING_SECRET DD_API_KEY DD_APP_KEY
        NEW_RELIC_LICENSE_KEY PAGERDUTY_ROUTING_KEY VAULT_TOKEN CONSUL_HTTP_TOKEN CLOUDFLARE_API_TOKEN
        DIGITALOCEAN_ACCESS_TOKEN HEROKU_API_KEY NETLIFY_AUTH_TOKEN SUPABASE_SERVICE_ROLE_KEY GOOGLE_CREDENTIALS
        GCP_SA_KEY GCP_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_JSON ANTHROPIC_AUTH_TOKEN SSH_PRIVATE_KEY GPG_PASSPHRASE
        BW_SESSION BW_CLIENTSECRET OP_SESSION_my OP_SERVICE_ACCOUNT_TOKEN JWT_SECRET SECRET_KEY_BASE DJANGO_SECRET_KEY
        JUPYTER_TOKEN JUPYTERHUB_CRYPT_KEY CONFIGPROXY_AUTH_TOKEN MINIO_ROOT_PASSWORD SMTP_PASS EMAIL_HOST_PASSWORD
        LDAP_BIND_PW AIRFLOW__CORE__FERNET_KEY OAUTH_CLIENT_SECRET REFRESH_TOKEN NGROK_AUTHTOKEN TS_AUTHKEY
        KUBECONFIG_DATA
        HASHIDS_SALT LITELLM_MASTER_KEY CODECOV_TOKEN S3_SECRET
        """.split(),  # noqa: SIM905 - a table of words
    ],
)
def test_names_that_say_so_hold_secrets(name: str) -> None:
    assert redaction.is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "SSH_AUTH_SOCK", "KEYBOARD", "MONKEY", "TOKENIZERS_PARALLELISM", "PWD",
     "GOOGLE_APPLICATION_CREDENTIALS", "OPENAI_API_KEY_FILE", "COMPASS", "XPATH", "OLDPWD", "AWS_REGION", "AWS_PROFILE",
     "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_OPENAI_ENDPOINT",
     "OPENAI_BASE_URL", "GITHUB_REPOSITORY", "GITHUB_ACTOR", "HF_HOME", "WANDB_PROJECT", "MLFLOW_TRACKING_URI",
     "PGUSER", "DATABASE_URL", "REDIS_HOST", "GPG_TTY", "XDG_SESSION_ID", "DESKTOP_SESSION", "PASSWORD_STORE_DIR",
     "SLACK_CHANNEL",
     "KUBECONFIG", "VAULT_ADDR", "WEBHOOK_HOST", "WEBHOOK_PORT", "GITHUB_WEBHOOK_PATH", "POSTGRES_HOST_AUTH_METHOD",
     "NPM_CONFIG_REGISTRY", "JWT_ALGORITHM", "SASL_MECHANISM", "AUTHOR", "GIT_AUTHOR_NAME", "DBUS_SESSION_BUS_ADDRESS",
     "SSH_KEY_PATH", "TWILIO_ACCOUNT_SID", "COMPOSE_PROJECT_NAME", "PASSENGER_ROOT", "SESSION_MANAGER"],
)  # fmt: skip
def test_other_names_do_not(name: str) -> None:
    assert not redaction.is_secret(name)


@pytest.mark.parametrize("value", ["", "short", "production", "assistant", "20261123"])
def test_words_and_numbers_are_no_secrets_or_texts_would_be_spoiled(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", value)
    text = f"the word {value} stays"
    assert redact(text) == text


def test_a_password_in_an_address_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE", "postgresql://me:pa55w0rd!@host:5432/db")
    assert scrub_now("it is pa55w0rd! indeed") == "it is … indeed"


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T0AB/B0CD/x1y2z3w4v5u6", ["x1y2z3w4v5u6"]),
        ("NOTIFY", "https://hooks.slack.com/services/T0AB/B0CD/x1y2z3w4v5u6", ["x1y2z3w4v5u6"]),
        ("ALERTS", "https://discord.com/api/webhooks/123/abcDEF-12345", ["abcDEF-12345"]),
        ("MY_WEBHOOK", "https://ci.example.org/trigger/9f8e7d6c5b4a39281706", ["9f8e7d6c5b4a39281706"]),
        ("BLOB", "https://a.blob.core.windows.net/c?sv=2024&sig=abc%2Fdef123456%3D", ["abc%2Fdef123456%3D"]),
        ("BUCKET", "https://s3.aws/x?X-Amz-Signature=0123456789abcdef&X-Amz-Date=1", ["0123456789abcdef"]),
        ("REMOTE", "https://ghx_0123456789abcdefghij@github.com/a/b", ["ghx_0123456789abcdefghij"]),
        ("BROKER", "redis://:s3cr3tpass@cache:6379/0", ["s3cr3tpass"]),
        ("STORE", "DefaultEndpointsProtocol=https;AccountName=lab;AccountKey=Zm9vYmFyYmF6cXV4==;",
         ["Zm9vYmFyYmF6cXV4=="]),
        ("PGCONN", "host=db user=ann password=t0psecret1 dbname=x", ["t0psecret1"]),
        ("GCP_SA_KEY",
         '{"type": "service_account", "private_key": "-----BEGIN KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQE\\n"}',
         ["MIIEvQIBADANBgkqhkiG9w0BAQE"]),
        ("DOCKER_AUTH_CONFIG", '{"auths": {"r.io": {"auth": "dXNlcjpwYXNzd29yZA=="}}}', ["dXNlcjpwYXNzd29yZA=="]),
        ("SSH_PRIVATE_KEY", "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5v\n-----END KEY-----",
         ["b3BlbnNzaC1rZXktdjEAAAAABG5v"]),
    ],
)  # fmt: skip
def test_what_of_a_value_is_a_secret_is_hidden_alone_too(
    name: str, value: str, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    for secret in (value, *secrets):
        shown = scrub_now(f"line: {secret} ends")
        assert not any(part in shown for part in secrets), shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_REGION", "eu-central-1"),
        ("OPENAI_BASE_URL", "https://api.example.org/v1"),
        ("DATABASE_URL", "postgresql://db.example.org/prices"),
        ("PIP_INDEX_URL", "https://pypi.example.org/simple"),
        ("MLFLOW_TRACKING_URI", "https://ml.example.org/?page=2&order=name"),
        ("WEBHOOK_HOST", "hooks.example.org"),
        ("LISTING", "https://api.example.org/v1?sort_key=created_at&code=utf-8"),
        ("JWT_ISSUER", "https://login.example.org"),
        ("REPOSITORY", "https://some-long-organization-name@dev.example.org/repo"),
        ("LS_COLORS", "rs=0:di=01;34:ln=01;36"),
    ],
)
def test_usual_values_stay(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert scrub_now(f"it is {value}") == f"it is {value}"


def test_a_mounted_secret_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "k").write_text("m0unted-secret\n")
    monkeypatch.setenv("LAB_API_KEY_FILE", str(tmp_path / "k"))
    assert redact("m0unted-secret") == "…"
    assert key("LAB_API_KEY") == "m0unted-secret"
    (tmp_path / "k").write_text("r0tated-secret\n")
    assert first_key(("NO_KEY", "LAB_API_KEY")) == "r0tated-secret"
    assert redact("m0unted-secret and r0tated-secret") == "… and …", "the old one may still be in a text"


def test_a_file_that_is_not_there_is_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_API_KEY_FILE", str(tmp_path))
    assert key("LAB_API_KEY") is None
    monkeypatch.setenv("LAB_API_KEY_FILE", str(tmp_path / "none"))
    assert key("LAB_API_KEY") is None


def test_what_looks_like_a_secret_does_not_survive_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    text = redact(
        "key hunter2hunter2, sk-proj-abcdefghijk, Bearer abc.def.ghi, https://u:pw@host/?api_key=12345&x=1, "
        "AIzaSyA1234567890"
    )
    for secret in ("hunter2", "abcdefghijk", "abc.def", ":pw@", "12345&", "AIzaSy"):
        assert secret not in text
    assert "&x=1" in text


def scrub_now(text: str) -> Any:
    return redact_output(text)


# --- where it is replaced --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_planted")
@pytest.mark.parametrize(
    "content",
    [
        f"env: {SECRET}",
        {"a": [{"b": (SECRET, 1, None)}], SECRET: 2},
        json.dumps({"env": SECRET}),
        repr({"env": SECRET}),
        f"x={SECRET}".encode(),
        "https://h/?k=pl4nted-%22quoted%22%2Fkey%2B1",
    ],
)
def test_what_a_tool_returns_has_it_replaced_in_every_spelling(content: Any) -> None:
    cleaned = redact_output(content)
    assert "quoted" not in str(cleaned)
    assert "…" in (cleaned.decode() if isinstance(cleaned, bytes) else str(cleaned))
    assert type(cleaned) is type(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_what_holds_no_secret_is_given_back_as_it_is(content: Any) -> None:
    remember("n0-such-secret-anywhere")
    assert redact_output(content) is content


def test_megabytes_are_cleaned_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        monkeypatch.setenv(f"X{number}_API_KEY", f"sk-{number}-abcdefgh")
    content = "all is well. " * 1_000_000 + "sk-7-abcdefgh"
    began = time.thread_time()
    assert redact_output(content).endswith("well. …")
    assert time.thread_time() - began < 5, "not in steps that grow with the square of its length"


@pytest.mark.usefixtures("_planted")
@pytest.mark.parametrize(
    "event",
    [
        TextMessageContent(message_id="m_1", delta=f"it is {SECRET}."),
        ToolCallResult(message_id="m_1", tool_call_id="t_1", content=json.dumps({"env": SECRET})),
        ActivityDelta(message_id="m_1", activity_type="navi.output", patch=({"op": "add", "value": {"text": SECRET}},)),
        Custom(name="navi.mcp", value={"server": "s", "status": "failed", "message": f"env {SECRET}"}),
    ],
)
def test_an_event_of_a_run_has_it_replaced(event: Event) -> None:
    remember(SECRET)
    clean = scrubbed(event)
    assert type(clean) is type(event)
    assert "quoted" not in clean.wire()


def test_an_event_without_one_is_the_same_event() -> None:
    for event in (TextMessageContent(message_id="m_1", delta="hello"), RunStarted(thread_id="s", run_id="r")):
        assert scrubbed(event) is event


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.text("sk-t0p e", max_size=12))
def test_a_secret_that_comes_in_pieces_has_it_replaced_and_nothing_else_is_lost(cuts: list[int], around: str) -> None:
    secret = "sk-t0p-s3cret"
    remember(secret)
    text, pieces, at = f"{around}{secret}{around}", list[str](), 0
    while at < len(text):
        length = cuts[len(pieces) % len(cuts)]
        pieces.append(text[at : at + length])
        at += length
    scrubber = EventRedactor()
    events: list[Event] = [TextMessageContent(message_id="m_1", delta=piece) for piece in pieces]
    passed = [clean for event in [*events, TextMessageEnd(message_id="m_1")] for clean in scrubber.passed(event)]
    said = "".join(event.delta for event in passed if isinstance(event, TextMessageContent))
    assert said == text.replace(secret, "…")
    assert isinstance(passed[-1], TextMessageEnd)
    assert not scrubber.rest()


def test_pieces_of_different_messages_are_not_mixed() -> None:
    remember("sk-t0p-s3cret")
    scrubber = EventRedactor()
    events = [TextMessageContent(message_id=f"m_{number}", delta="sk-t0p") for number in (1, 2)]
    passed = [*scrubber.passed(events[0]), *scrubber.passed(events[1]), *scrubber.rest()]
    assert passed == events


def test_our_own_log_lines_have_it_replaced_also_in_tracebacks() -> None:
    remember(SECRET)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("navi").addHandler(handler)
    try:
        try:
            raise RuntimeError(f"the key {SECRET} was refused")
        except RuntimeError:
            get_logger("test").error("it_broke", why=f"key {SECRET}", more={"k": SECRET}, exc_info=True)
    finally:
        logging.getLogger("navi").removeHandler(handler)
    assert "it_broke" in stream.getvalue()
    assert "RuntimeError" in stream.getvalue()
    assert "quoted" not in stream.getvalue()


def test_the_hot_path_learns_of_a_key_as_soon_as_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scrub("br4nd-new-key") == "br4nd-new-key"
    monkeypatch.setenv("BRAND_NEW_API_KEY", "br4nd-new-key")
    key("BRAND_NEW_API_KEY")
    assert scrub("br4nd-new-key") == "…"


# --- a whole server --------------------------------------------------------------------------------------------------

LEAK = """\
import os
from IPython.display import HTML, display
display(HTML("<b>" + os.environ["OPENAI_API_KEY"] + "</b>"))
print(dict(os.environ))
raise RuntimeError("no: " + os.environ["ANTHROPIC_API_KEY"] + " " + os.environ["WAREHOUSE"])
"""
PROFILE = 'description = "Runs code without asking."\n[permissions]\nrun_code = "allow"\n'


def planted(home: Path) -> dict[str, str]:
    """An environment full of keys, each with a value of its own."""
    names = {name for provider in PROVIDERS.values() for name in provider.keys if not name.endswith("_URL")}
    environ = {name: f"pl4nt-{number:02d}-c0ffee{number * 7919}" for number, name in enumerate(sorted(names))}
    environ |= {"HUB_API_TOKEN": "hub-t0ken-c0ffee", "WAREHOUSE": "postgresql://me:wareh0use-pass@host/db"}
    (home / "mounted").write_text("m0unted-c0ffee-key\n")
    return environ | {"NAVI_ENDPOINT_LAB_KEY_FILE": str(home / "mounted"), "OPENAI_API_KEY": KEY}


def values(environ: Mapping[str, str]) -> list[str]:
    keys = [value for name, value in environ.items() if redaction.is_secret(name)]
    return [*keys, "wareh0use-pass", "m0unted-c0ffee-key"]


def ask(server: JupyterServer, session_id: str, text: str, **more: Any) -> Mapping[str, Any]:
    """Prompt and wait for the run's end."""
    command = {"type": "prompt", "text": text, **more}
    accepted = ok(server, "POST", f"sessions/{session_id}/commands", command)
    cursor = accepted["seq"]
    while True:
        page = ok(server, "GET", f"sessions/{session_id}/events?after={cursor}&wait=20")
        for one in page["events"]:
            cursor = one["seq"]
            if one["run_id"] == accepted["run_id"] and one["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR"):
                return ok(server, "GET", f"sessions/{session_id}/runs/{one['run_id']}")  # type: ignore[no-any-return]


def everything(server: JupyterServer, session_id: str) -> Iterator[tuple[str, bytes]]:
    """All that the server says and writes."""
    about = ["health", "models", "tools", "profiles", "mcp", "openapi.json", "sessions"]
    of_session = ["", "/events?after=0&limit=1000", "/messages", "/runs"]
    exports = [f"/export?format={form}" for form in ("md", "ipynb", "json")]
    for path in [*about, *(f"sessions/{session_id}{one}" for one in (*of_session, *exports))]:
        answer = call(server, "GET", path)
        assert answer.status == 200, (path, answer.body)
        yield path, answer.body
    for file in (server.home / "data").rglob("*"):
        if file.is_file():
            yield str(file), file.read_bytes()
    yield "the server's log", server.log.read_bytes()


@pytest.mark.slow
async def test_planted_keys_appear_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = planted(tmp_path)
    script = (
        Reply(status=401, error={"message": f"Incorrect API key provided: {KEY}.", "type": "invalid_request_error"}),
        Reply(status=400, error={"message": f"x {environ['ANTHROPIC_API_KEY']} y", "type": environ["HF_TOKEN"]}),
        Reply(calls=(Call("run_code", {"code": LEAK}),)),
        Reply(f"It said {KEY} and {environ['ANTHROPIC_API_KEY']}.", reasoning=f"the key {KEY}"),
        Reply(f"Half {KEY}", malformed=True),
        Reply("Half of ", KEY[:9], KEY[9:15], KEY[15:], cut=True),
    )
    profile = tmp_path / "server" / "config" / "navi" / "profiles" / "free.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(PROFILE)
    async with ScriptedProvider(*script) as provider:
        environ |= {"OPENAI_BASE_URL": f"{provider.url}/v1", "NAVI_ENDPOINT_LAB_URL": f"{provider.url}/v1"}
        server = JupyterServer(tmp_path / "server", env=environ)

        def work() -> dict[str, bytes]:
            server.start(args=["--ServerApp.log_level=DEBUG"])
            session_id = new_session(server, profile="free", model="openai-chat:gpt-6-luna", notebook_path="a.ipynb")
            ends = [ask(server, session_id, f"go {number}") for number in range(5)]
            assert [one["status"] for one in ends] == ["failed", "failed", "completed", "failed", "failed"], ends
            assert ends[0]["error"]["code"] == "provider_auth"
            assert ask(server, session_id, "go on", model="lab:x")["status"] == "failed"
            found = dict(everything(server, session_id))
            server.stop()
            return found | {"the log at the end": server.log.read_bytes()}

        try:
            found = await asyncio.to_thread(work)
        finally:
            server.stop()
    messages = found[next(path for path in found if path.endswith("/messages"))].decode()
    assert "RuntimeError" in messages, "the code has run, and has failed as it should"
    assert "HUB_API_TOKEN" in messages, "it printed its environment"
    assert KEY in json.dumps([request.headers for request in provider.requests]), "the key was really used"
    leaks = [(path, value) for path, text in found.items() for value in values(environ) if value.encode() in text]
    assert not leaks
    sent = json.dumps([request.body for request in provider.requests])
    assert not [value for value in values(environ) if value in sent], "nor is the model told of them"
