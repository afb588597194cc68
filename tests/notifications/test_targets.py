"""navi/notify.toml and the environment: what is read, what is wrong and where, and what is never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from navi_jupyter.config_files import WatchedFiles
from navi_jupyter.notifications.apprise_sender import why_unusable
from navi_jupyter.notifications.targets import TargetFiles, Targets

SECRET = "ntfys://tk_verysecret@push.example.org/topic"


def reading(*directories: Path, allow_private: bool = False) -> TargetFiles:
    return TargetFiles(
        lambda: [str(directory) for directory in directories],
        check=lambda url: why_unusable(url, allow_private=allow_private),
    )


def write(directory: Path, text: str) -> Path:
    path = directory / "navi" / "notify.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def read(directory: Path, text: str) -> Targets:
    write(directory, text)
    return reading(directory).read()


def test_a_target_is_a_table_with_a_url(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f'quiet = "22:00-07:00"\nper_hour = 5\npublic_url = "https://hub.example.org/user/ada/"\n'
        f'[targets.Phone]\nurl = "{SECRET}"\n',
    )
    target = found.targets["phone"]
    assert (target.name, target.url, target.wrong) == ("Phone", SECRET, None)
    assert (found.quiet_text, found.per_hour, found.problems) == ("22:00-07:00", 5, ())
    assert found.public_url == "https://hub.example.org/user/ada/"


def test_a_url_is_in_no_repr(tmp_path: Path) -> None:
    assert "verysecret" not in repr(read(tmp_path, f'[targets.phone]\nurl = "{SECRET}"\n'))


def test_the_environment_goes_before_files_and_makes_targets_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAVI_NOTIFY_PHONE_URL", "tgram://123:abc/456")
    monkeypatch.setenv("NAVI_NOTIFY_TEAM_URL", "slack://a/b/c")
    found = read(tmp_path, f'[targets.phone]\nurl = "{SECRET}"\n')
    assert found.targets["phone"].url == "tgram://123:abc/456"
    assert found.targets["team"].source == "NAVI_NOTIFY_TEAM_URL"


def test_of_targets_with_the_same_name_the_first_file_counts(tmp_path: Path) -> None:
    write(tmp_path / "own", '[targets.phone]\nurl = "tgram://1:a/2"\n')
    write(tmp_path / "system", '[targets.phone]\nurl = "tgram://9:z/9"\n[targets.team]\nurl = "slack://a/b/c"\n')
    found = reading(tmp_path / "own", tmp_path / "system").read()
    assert found.targets["phone"].url == "tgram://1:a/2"
    assert "team" in found.targets


WRONG = {
    "per_hour = 1\n\n[targets.phone]\nurl = 5\n": ":3: targets.phone: url is missing",
    "[targets.phone]\n": "NAVI_NOTIFY_PHONE_URL",
    '[targets.phone]\nurl = "slack://a/b/c"\nretries = 3\n': ":3: targets.phone.retries: there is no such setting",
    '[targets]\nphone = "slack://a"\n': ":2: targets.phone: must be a table",
    '[targets.phone]\nurl = "not a url"\n': ":1: targets.phone: url must be like service://",
    '[targets.phone]\nurl = "http://192.168.0.1/hook"\n': "not encrypted",
    '[targets.phone]\nurl = "syslog://local"\n': "syslog:// is not among the services",
    '[targets.browser]\nurl = "slack://a/b/c"\n': 'is not "browser"',
    '[targets."a b"]\nurl = "slack://a/b/c"\n': "a name has at most 64",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_target_disables_it_alone_and_says_where(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text + '[targets.other]\nurl = "slack://a/b/c"\n')
    assert found.targets["other"].wrong is None
    wrong = [target for target in found.targets.values() if target.wrong]
    assert len(wrong) == 1
    assert WRONG[text] in str(wrong[0].wrong)
    assert str(tmp_path) in str(wrong[0].wrong)
    assert wrong[0].url == ""


PROBLEMS = {
    "per_hour = \n": "not TOML",
    "\nper_hour = 0\n": ":2: per_hour: must be a whole number",
    "per_hour = true\n": "per_hour: must be",
    'quiet = "22:00"\n': ":1: quiet: quiet hours are written",
    "quiet = 22\n": "quiet: must be text",
    'public_url = "javascript:alert(1)"\n': "public_url: must be text like",
    'colour = "red"\n': ":1: colour: there is no such setting",
    "targets = 3\n": ":1: targets must be tables",
    "a = " + "[" * 20_000: "not TOML",
    "a = " + "9" * 20_000: "",
    "a" * 100_001: "larger than",
}


@pytest.mark.parametrize("text", PROBLEMS, ids=lambda text: text[:20])
def test_what_is_wrong_with_a_file_or_a_setting_says_the_file_and_the_line(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert [PROBLEMS[text] in problem.message for problem in found.problems] == [True]
    assert str(tmp_path) in found.problems[0].message


def test_a_file_is_read_again_when_it_has_changed_and_no_file_is_no_problem(tmp_path: Path) -> None:
    files = reading(tmp_path)
    assert files.read() == Targets()
    path = write(tmp_path, '[targets.phone]\nurl = "slack://a/b/c"\n')
    first = files.read()
    assert set(first.targets) == {"phone"}
    assert files.read() is first
    path.write_text('[targets.team]\nurl = "slack://a/b/c"\n')
    os.utime(path, ns=(1, 1))
    assert set(files.read().targets) == {"team"}
    path.unlink()
    assert files.read() == Targets()


def test_a_broken_file_leaves_its_last_good_targets_in_use_and_is_reported(tmp_path: Path) -> None:
    files = reading(tmp_path)
    path = write(tmp_path, '[targets.phone]\nurl = "slack://a/b/c"\n')
    files.read()
    path.write_text("[targets.team\n")
    found = files.read()
    assert set(found.targets) == {"phone"}
    assert found.problems[0].message.startswith(f"{path}:1: not TOML: ")
    assert "last good version" in found.problems[0].message


def test_the_administrator_can_allow_every_service(tmp_path: Path) -> None:
    write(tmp_path, '[targets.log]\nurl = "json://192.168.0.1/x"\n[targets.other]\nurl = "syslog://local"\n')
    found = reading(tmp_path, allow_private=True).read()
    assert [target.wrong for target in found.targets.values()] == [None, None]


def test_a_file_that_others_can_read_is_used_and_its_user_warned(tmp_path: Path) -> None:
    path = write(tmp_path, f'[targets.phone]\nurl = "{SECRET}"\n')
    assert reading(tmp_path).read().problems == ()
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        found = reading(tmp_path).read()
        assert found.targets["phone"].wrong is None
        assert [("chmod 600" in problem.message) for problem in found.problems] == [True]


def test_a_change_of_the_files_mode_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, f'[targets.phone]\nurl = "{SECRET}"\n')
    path.chmod(0o644)
    files = reading(tmp_path)
    assert files.read().problems
    path.chmod(0o600)
    assert not files.read().problems


MISPLACED = (
    f'[targets]\n"{SECRET}" = 1\n',
    f'[targets."{SECRET}"]\nurl = "slack://a/b/c"\n',
    f'[targets."{SECRET}"]\n',
    f'[targets.phone]\n"{SECRET}" = "url"\n',
    f'"{SECRET}" = 1\n',
    f"[targets.phone]\nurl = {SECRET}\n",
    f'[targets.phone]\nurl = "{SECRET}\n',
    f'[targets.phone]\nurl = ["{SECRET}"]\n',
    f'[targets.phone]\nurl = "{SECRET} {SECRET}"\n',
    f'public_url = "{SECRET}"\n',
    f'quiet = "{SECRET}"\n',
)


@pytest.mark.parametrize("text", MISPLACED)
def test_a_key_that_got_into_the_wrong_place_is_not_shown_either(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    shown = [problem.message for problem in found.problems]
    shown += [f"{name} {target.name} {target.wrong}" for name, target in found.targets.items()]
    assert shown
    assert "verysecret" not in repr((shown, found))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_configuration_file_that_is_a_pipe_or_a_device_is_a_problem_and_is_not_opened(
    tmp_path: Path, suffix: str
) -> None:
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"device{suffix}"
    os.mkfifo(pipe, 0o644)
    device.symlink_to("/dev/zero")
    watched = WatchedFiles(lambda document: document.content, max_bytes=1000)
    watched.refresh([pipe, device])
    assert [each.message.partition(": ")[2] for each in watched.problems] == [
        "a device, a pipe or a socket, not a file"
    ] * 2
    assert pipe.stat().st_mode & 0o777 == 0o644
