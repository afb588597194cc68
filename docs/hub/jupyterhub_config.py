"""JupyterHub with Navi as its service: `jupyterhub -f jupyterhub_config.py`.

Without anything set: one machine, the Hub at http://127.0.0.1:8000, and `navi hub` started by the Hub, on SQLite.
With NAVI_SERVICE_TOKEN: `navi hub` is started by you (compose.yaml does, twice), at NAVI_SERVICE_ADDRESS.
What you will want to change is marked CHANGE.
"""

import os
import sys

c = get_config()  # noqa: F821 - JupyterHub has it
given = os.environ.get

# Where the Hub is: for browsers, and for the servers and services that ask it.
c.JupyterHub.bind_url = address = given("HUB_ADDRESS", "http://127.0.0.1:8000/")
c.JupyterHub.hub_bind_url = given("HUB_API_ADDRESS", "http://127.0.0.1:8081/")
c.JupyterHub.hub_connect_url = given("HUB_CONNECT_ADDRESS", c.JupyterHub.hub_bind_url)
c.ConfigurableHTTPProxy.api_url = given("HUB_PROXY_API_ADDRESS", "http://127.0.0.1:8001")
c.ConfigurableHTTPProxy.should_start = given("HUB_STARTS_PROXY", "yes") == "yes"
if given("HUB_PUBLIC_ADDRESS"):  # as browsers see it, where another proxy with TLS is in front; links in notifications
    c.JupyterHub.public_url = given("HUB_PUBLIC_ADDRESS")

# What the Hub keeps. The cookie secret: without the file, all users log in again after a restart.
data = os.path.abspath(given("HUB_DATA", "."))  # noqa: PTH100 - text is what the settings take
c.JupyterHub.db_url = given("HUB_DATABASE_URL", f"sqlite:///{data}/jupyterhub.sqlite")
c.JupyterHub.cookie_secret_file = f"{data}/jupyterhub_cookie_secret"
c.ConfigurableHTTPProxy.pid_file = f"{data}/jupyterhub-proxy.pid"

# CHANGE: who logs in. One password for everybody is for a first look alone.
c.JupyterHub.authenticator_class = given("HUB_AUTHENTICATOR", "dummy")
c.DummyAuthenticator.password = given("HUB_PASSWORD", "")
c.Authenticator.allow_all = True
c.Authenticator.admin_users = set(given("HUB_ADMINS", "admin").split(","))

# CHANGE: where users' servers run. "simple" starts them as the user who started the Hub, who then are no users apart.
c.JupyterHub.spawner_class = given("HUB_SPAWNER", "simple")
c.SimpleLocalProcessSpawner.home_dir_template = f"{data}/homes/{{username}}"
as_root = ["--allow-root"] if os.geteuid() == 0 else []
if c.JupyterHub.spawner_class == "simple":
    c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
    c.Spawner.args = as_root
c.Spawner.start_timeout = c.Spawner.http_timeout = 120  # seconds

# Navi.
service = {"name": "navi", "oauth_no_confirm": True}
if given("NAVI_SERVICE_TOKEN"):
    service["url"] = given("NAVI_SERVICE_ADDRESS", "http://127.0.0.1:9870")
    service["api_token"] = given("NAVI_SERVICE_TOKEN")
else:
    # What it gets of the Hub's own environment: settings, keys of providers, and where Jupyter's files are.
    passed = ("NAVI_", "AWS_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "JUPYTER_", "PYTHONPATH")
    for_servers = ("NAVI_HUB_SERVICE_URL",)
    service["url"] = given("NAVI_SERVICE_ADDRESS", "http://127.0.0.1:9870")
    service["command"] = [sys.executable, "-m", "navi_jupyter.cli", "hub", *as_root]
    service["environment"] = {
        "NAVI_DATABASE_URL": f"sqlite:///{data}/navi.db",
        **{name: value for name, value in os.environ.items() if name.startswith(passed) and name not in for_servers},
    }
c.JupyterHub.services = [service]
c.JupyterHub.load_roles = [
    # Only if the service is to start users' servers, so that recalls can use kernels (start_servers):
    # {"name": "navi", "services": ["navi"], "scopes": ["servers", "read:users:name"]},
    # Who may use it: all users. (Their other rights are in "self".)
    {"name": "user", "scopes": ["self", "access:services!service=navi"]}
]
# The token in a user's server opens the service for its user, too. The first two are JupyterHub's own.
c.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server", "access:services!service=navi"]
# Where users' servers reach it: through the Hub's proxy, unless another way is named.
c.Spawner.environment = {"NAVI_HUB_SERVICE_URL": given("NAVI_HUB_SERVICE_URL", f"{address}services/navi/")}
